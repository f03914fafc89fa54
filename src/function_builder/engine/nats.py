"""An embedded NATS: one supervised nats-server with JetStream on disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
from pathlib import Path
from typing import Final, Self

import structlog

from function_builder.disk import Disk
from function_builder.engine.address import ensure_free, tcp_answers
from function_builder.engine.process import Program, SupervisedServer
from function_builder.engine.tools import find_tool

MAX_PAYLOAD_BYTES: Final = 1 << 20
"""The largest message, which is also nats-server's default."""

_FULL_BYTES: Final = MAX_PAYLOAD_BYTES
"""Bytes. With less free space on its disk, nats-server may have failed to write."""

_LOOK_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)


class NatsServer(SupervisedServer):
    """A supervised nats-server on a free loopback port, for the time of an `async with`.

    Every acknowledged message is on the disk (`sync_interval: always`), because a client that was
    answered 202 does not send its build again.

    After its disk was full, nats-server does not write to its open files until it is restarted. So
    it is restarted when the disk has space again.

    Args:
        root: its directory: configuration and JetStream's files.
        max_bytes: what JetStream may store; 0: three quarters of the free disk, nats-server's
            default.
        log: the file for its output; None: each line goes to our log.
    """

    def __init__(self, root: Path, *, max_bytes: int = 0, log: Path | None = None) -> None:
        super().__init__()
        self._root = root.absolute()
        self._max_bytes = max_bytes
        self._log = log
        self._listen = ""
        # RUN steps on the host's network reach this port too.
        self._token = secrets.token_urlsafe(32)
        self._watch: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it listens, with its credential; a restart does not change it."""
        return f"nats://{self._token}@{self._listen}"

    async def __aenter__(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            ToolMissing: it is not installed.
            StartFailed: it ended, or did not answer.
        """
        self._listen = f"127.0.0.1:{_free_port()}"
        await self._start(self._program())
        self._watch = asyncio.create_task(self._watch_disk(), name="watch nats-server's disk")
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop it."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        await super().__aexit__(*exc)

    async def _watch_disk(self) -> None:
        was_full = False
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            available = Disk.of(self._root).available
            if available < _FULL_BYTES:
                was_full = True
            elif was_full and available >= 2 * _FULL_BYTES:
                was_full = False
                _log.warning("nats-server is restarted: its disk was full, and has space again")
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGTERM)

    def _program(self) -> Program:
        program = find_tool("nats-server")
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        config = self._root / "nats-server.json"
        config.touch(mode=0o600)
        # JSON is a subset of nats-server's configuration language.
        config.write_text(json.dumps(self._config(), indent=2))
        return Program(
            name="nats-server",
            argv=(str(program), "--config", str(config)),
            ready=lambda: tcp_answers(self._listen),
            prepare=lambda: ensure_free(self._listen),
            environment={"GOMAXPROCS": "2"},
            log=self._log,
        )

    def _config(self) -> dict[str, object]:
        jetstream: dict[str, object] = {
            "store_dir": str(self._root / "jetstream"),
            "sync_interval": "always",
        }
        if self._max_bytes:
            jetstream["max_file_store"] = self._max_bytes
        return {
            "listen": self._listen,
            "authorization": {"token": self._token},
            "jetstream": jetstream,
            "max_payload": MAX_PAYLOAD_BYTES,
            # Seconds that a second Ctrl-C would otherwise wait for idle clients.
            "lame_duck_duration": "30s",
            "logtime": False,
        }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
