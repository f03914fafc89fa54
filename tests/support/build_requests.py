"""Checked requests without an archive, for tests of what comes after the check."""

from types import SimpleNamespace
from typing import Any

from function_builder.builds.build import BuildRequest
from function_builder.context.fingerprint import fingerprint
from function_builder.contract.config import BuildConfig


def build_request(**fields: Any) -> BuildRequest:
    """A request with an empty context and no push, but for these fields."""
    usual: dict[str, Any] = {
        "build_timeout": 100,
        "config": BuildConfig(skip_push=True),
        "reader": SimpleNamespace(size=0, read=lambda *_: b""),
        "context": [],
        "digests": [],
        "fingerprint": fingerprint((), ()),
        "frontend": {},
        "secrets": {},
        "trust_domain": "open",
    }
    return BuildRequest(**usual | fields)
