"""A Service that runs nothing: for tests of what it would say of itself."""

from pathlib import Path
from typing import Any

from function_builder.server.from_settings import service_of
from function_builder.server.service import Service
from function_builder.settings import Settings


def idle_service(root: Path, **settings: Any) -> Service:
    """A service whose BuildKit is not there; anybody may build."""
    given: dict[str, Any] = {"disable_hmac": True, "spool_dir": root, "docker_config": root}
    return service_of(Settings(buildkit_url=f"unix://{root}/absent.sock", **given | settings))
