"""A BuildKit on TCP, with certificates."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from function_builder.engine import find_tool, namespaces
from function_builder.engine.address import tcp_answers
from function_builder.engine.process import Program, SupervisedProcess


@asynccontextmanager
async def buildkitd_over_tls(root: Path, address: str, certificates: Path) -> AsyncIterator[int]:
    """Start one as root; gives its session.

    Args:
        root: a directory of its own.
        address: the `host:port` where it listens.
        certificates: the directory of its own, as `function-builder certs` makes it.
    """
    flags = {
        "root": f"{root}/state",
        "addr": f"tcp://{address}",
        "tlscacert": certificates / "ca.crt",
        "tlscert": certificates / "server.crt",
        "tlskey": certificates / "server.key",
        "containerd-worker": "false",
        "otel-socket-path": f"{root}/otel.sock",
    }
    program = Program(
        name="buildkitd",
        argv=(
            *namespaces.for_root().argv,
            str(find_tool("buildkitd")),
            *(f"--{name}={value}" for name, value in flags.items()),
        ),
        ready=lambda: tcp_answers(address),
        prepare=lambda: None,
        environment={},
        log=root / "log",
        stop_timeout=3,
    )
    process = SupervisedProcess(program)
    await process.start()
    try:
        yield process.pid
    finally:
        await process.stop()
