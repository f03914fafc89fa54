"""An embedded registry: one process of distribution, with its blobs in a directory."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from aiobuildkit.hostport import HostPort
from function_builder.engine.address import ensure_free, tcp_answers
from function_builder.engine.process import Program, SupervisedServer
from function_builder.engine.tools import find_tool


class Registry(SupervisedServer):
    """A supervised registry without authentication, over plain HTTP, during an `async with`.

    Args:
        root: the directory of its blobs.
        listen: `host:port`; a loopback address, because any client that reaches it may push.
        log: the file for its output; None: our standard error.
    """

    def __init__(
        self, root: Path, *, listen: str = "127.0.0.1:5000", log: Path | None = None
    ) -> None:
        super().__init__()
        self._root = root.absolute()
        self._listen = listen
        self._log = log

    @property
    def address(self) -> str:
        """Its address on this machine, `host:port`, with which names of images begin."""
        return str(HostPort.parse(self._listen).local)

    async def __aenter__(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            AddressTaken: another program listens there.
            ToolMissing: it is not installed.
            StartFailed: it ended, or did not answer.
        """
        ensure_free(self._listen)
        await self._start(self._program())
        return self

    def _program(self) -> Program:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        config = self._root / "config.yml"
        config.write_text("version: 0.1\nstorage:\n  filesystem: {}\nhttp: {}\n")
        return Program(
            name="registry",
            argv=(str(find_tool("registry")), "serve", str(config)),
            ready=lambda: tcp_answers(self._listen),
            prepare=lambda: None,
            # distribution also reads each key of its configuration from the environment.
            environment={
                "OTEL_TRACES_EXPORTER": "none",
                "REGISTRY_HTTP_ADDR": self._listen,
                "REGISTRY_LOG_ACCESSLOG_DISABLED": "true",
                "REGISTRY_LOG_LEVEL": "warn",
                "REGISTRY_STORAGE_DELETE_ENABLED": "true",
                "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(self._root / "data"),
            },
            log=self._log,
            stop_timeout=5,
        )
