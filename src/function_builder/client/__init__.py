"""The Python client of the Function Builder API.

::

    secret = Path(".run/payload-secret").read_bytes().strip()
    async with AsyncClient("http://127.0.0.1:8080", payload_secret=secret) as client:
        async with client.stream("hello/", BuildConfig(image="127.0.0.1:5000/hello:1")) as build:
            async for progress in build:
                for line in progress.log:
                    print(line)
            result = await build.result()
    print(result.status, result.image, result.digest)

Without asyncio, ``Client(AsyncClient(...))`` has the same methods.
"""

from function_builder.client.client import DEFAULT_URL, AsyncClient
from function_builder.client.errors import ClientError, ContextError, Refused, Unreachable
from function_builder.client.progress import (
    LogLine,
    OutputLine,
    StatusLine,
    StepLine,
    parse_log_line,
)
from function_builder.client.stream import BuildStream
from function_builder.client.sync import Client
from function_builder.contract.config import BuildConfig
from function_builder.contract.findings import BuildWarning, Reason, SourceExcerpt
from function_builder.contract.result import BuildResult, BuildStatus

__all__ = [
    "DEFAULT_URL",
    "AsyncClient",
    "BuildConfig",
    "BuildResult",
    "BuildStatus",
    "BuildStream",
    "BuildWarning",
    "Client",
    "ClientError",
    "ContextError",
    "LogLine",
    "OutputLine",
    "Reason",
    "Refused",
    "SourceExcerpt",
    "StatusLine",
    "StepLine",
    "Unreachable",
    "parse_log_line",
]
