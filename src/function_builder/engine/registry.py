"""An embedded registry: one process of distribution, with its blobs in a directory."""

from __future__ import annotations

import json
from collections.abc import Sequence
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

    @property
    def command(self) -> Sequence[str]:
        """The command of a process that serves its blobs, once it was started.

        Several processes can share them, because distribution renames a blob into its place.
        """
        traces = "OTEL_TRACES_EXPORTER=none"
        return ("/usr/bin/env", traces, str(find_tool("registry")), "serve", str(self._config))

    @property
    def _config(self) -> Path:
        return self._root / "config.yml"

    def _program(self) -> Program:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        config = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self._root / "data")},
                "delete": {"enabled": True},
            },
            "http": {"addr": self._listen},
        }
        # JSON is YAML too.
        self._config.write_text(json.dumps(config))
        return Program(
            name="registry",
            argv=self.command,
            ready=lambda: tcp_answers(self._listen),
            prepare=lambda: None,
            environment={},
            log=self._log,
            stop_timeout=5,
        )
