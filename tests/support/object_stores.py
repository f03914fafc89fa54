"""An S3 server for tests: versitygw over a directory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from function_builder.engine.address import tcp_answers
from function_builder.engine.process import Program, SupervisedProcess
from function_builder.engine.tools import find_tool
from tests.support import free_address

ACCESS_KEY = "tests"
SECRET_KEY = "tests-secret"


@asynccontextmanager
async def s3_server(root: Path) -> AsyncIterator[tuple[SupervisedProcess, dict[str, str]]]:
    """A supervised S3 server with the bucket `builds`, and the environment that names it."""
    (root / "objects" / "builds").mkdir(parents=True)
    address = free_address()
    server = SupervisedProcess(
        Program(
            name="versitygw",
            argv=(
                *(str(find_tool("versitygw")), "--port", address, "--quiet"),
                *("posix", "--sidecar", str(root / "meta"), str(root / "objects")),
            ),
            ready=lambda: tcp_answers(address),
            prepare=lambda: (root / "meta").mkdir(exist_ok=True),
            environment={"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
            log=root / "versitygw.log",
        )
    )
    await server.start()
    try:
        yield (
            server,
            {
                "AWS_ENDPOINT_URL": f"http://{address}",
                "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
                "AWS_REGION": "us-east-1",
            },
        )
    finally:
        await server.stop()
