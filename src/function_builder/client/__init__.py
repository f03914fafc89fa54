"""The Python client of the Function Builder API.

::

    secret = Path(".run/payload-secret").read_bytes().strip()
    with Client("http://127.0.0.1:8080", payload_secret=secret) as client:
        result = client.build("hello/", image="127.0.0.1:5000/hello:1").raise_for_status()
    print(result.image, result.digest)

A build may be followed while it runs, here with asyncio::

    async with AsyncClient("http://127.0.0.1:8080", payload_secret=secret) as client:
        async with client.stream("hello/", image="127.0.0.1:5000/hello:1") as build:
            async for progress in build:
                for line in progress.log:
                    print(line)
            result = await build.result()

A build may outlive the client, where the builder has a queue::

    with Client("http://127.0.0.1:8080", payload_secret=secret) as client:
        build = client.submit("hello/", image="127.0.0.1:5000/hello:1")
        print(build.id)  # client.handle(id) finds it again, in another process too
        result = build.wait()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from function_builder.client.address import DEFAULT_URL
    from function_builder.client.builds import BuildHandle
    from function_builder.client.client import AsyncClient
    from function_builder.client.errors import ClientError, ContextError, Refused, Unreachable
    from function_builder.client.options import BuildOptions, File, Files
    from function_builder.client.progress import (
        LogLine,
        OutputLine,
        StatusLine,
        StepLine,
        log_lines,
        parse_log_line,
    )
    from function_builder.client.sealing import seal_secrets
    from function_builder.client.stream import BuildStream
    from function_builder.client.sync import Client, Handle, Stream
    from function_builder.client.tls import tls_context
    from function_builder.contract.builds import BuildInfo, BuildState
    from function_builder.contract.config import BuildConfig
    from function_builder.contract.findings import BuildWarning, Reason, SourceExcerpt
    from function_builder.contract.log import StepState
    from function_builder.contract.options import Attest
    from function_builder.contract.result import BuildFailed, BuildResult, BuildStatus

__all__ = [
    "DEFAULT_URL",
    "AsyncClient",
    "Attest",
    "BuildConfig",
    "BuildFailed",
    "BuildHandle",
    "BuildInfo",
    "BuildOptions",
    "BuildResult",
    "BuildState",
    "BuildStatus",
    "BuildStream",
    "BuildWarning",
    "Client",
    "ClientError",
    "ContextError",
    "File",
    "Files",
    "Handle",
    "LogLine",
    "OutputLine",
    "Reason",
    "Refused",
    "SourceExcerpt",
    "StatusLine",
    "StepLine",
    "StepState",
    "Stream",
    "Unreachable",
    "log_lines",
    "parse_log_line",
    "seal_secrets",
    "tls_context",
]

_MODULES: Final = {
    "client.address": ("DEFAULT_URL",),
    "client.builds": ("BuildHandle",),
    "client.client": ("AsyncClient",),
    "client.errors": ("ClientError", "ContextError", "Refused", "Unreachable"),
    "client.options": ("BuildOptions", "File", "Files"),
    "client.progress": (
        "LogLine",
        "OutputLine",
        "StatusLine",
        "StepLine",
        "log_lines",
        "parse_log_line",
    ),
    "client.sealing": ("seal_secrets",),
    "client.stream": ("BuildStream",),
    "client.sync": ("Client", "Handle", "Stream"),
    "client.tls": ("tls_context",),
    "contract.builds": ("BuildInfo", "BuildState"),
    "contract.config": ("BuildConfig",),
    "contract.findings": ("BuildWarning", "Reason", "SourceExcerpt"),
    "contract.log": ("StepState",),
    "contract.options": ("Attest",),
    "contract.result": ("BuildFailed", "BuildResult", "BuildStatus"),
}
"""The names by the module that has them. A module is loaded with the first of its names, because a
program seldom needs all of them, and the command starts faster."""


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"function_builder.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
