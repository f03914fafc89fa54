"""A Service that runs nothing: for tests of what it would say of itself."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from function_builder.server import run
from function_builder.server.service import Service
from function_builder.settings import Settings


def idle_service(root: Path, **settings: Any) -> Service:
    """A service whose BuildKit is not there; anybody may build."""
    given: dict[str, Any] = {"disable_hmac": True, "spool_dir": root, "docker_config": root}
    return run._service(Settings(buildkit_url=f"unix://{root}/absent.sock", **given | settings))


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """Serve an application from a thread until the block ends; gives its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1, ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
