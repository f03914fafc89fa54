"""A supervised program: it is restarted when it dies, and always ends with this process.

`stop()` ends it. If this process dies, even by SIGKILL, the kernel kills it (the parent-death
signal, set by `setpriv`). If it has its own PID namespace, the kernel then also kills all processes
that it started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from function_builder.engine.errors import EngineError, StartFailed
from function_builder.engine.groups import kill_group, start_group
from function_builder.engine.relay import Relay
from function_builder.engine.tools import find_tool, search_path

_log = structlog.get_logger(__name__)

# The environment variables for children; others may contain secrets.
_PASSED_ON = (
    "GOGC",
    "HOME",
    "LANG",
    "LOGNAME",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
    "USER",
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)

_POLL = 0.02
_LAST_OUTPUT_SECONDS = 1.0
_FIRST_BACK_OFF = 0.2
_LONGEST_BACK_OFF = 30.0


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of child programs: PATH, and variables without secrets."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**kept, "PATH": search_path(), **(extra or {})}


@dataclass(frozen=True, slots=True)
class Program:
    """One program: its command, and the check that it is ready.

    Attributes:
        name: in log lines and errors.
        argv: the program's absolute path and its arguments.
        ready: whether it answers; called every 20 ms until it does.
        prepare: called before each start; raises an EngineError if it cannot start.
        environment: in addition to `child_environment()`.
        log: the file for its output, which is truncated; None: each line goes to our log.
        start_timeout: seconds until it must be ready.
        stop_timeout: seconds between SIGTERM and SIGKILL.
        signal_group: whether SIGTERM goes to its process group instead of its first process.
        why_died: the reason for the log line when it died by itself, if it is known.
    """

    name: str
    argv: Sequence[str]
    ready: Callable[[], Awaitable[bool]]
    prepare: Callable[[], None]
    environment: Mapping[str, str]
    log: Path | None = None
    start_timeout: float = 60.0
    stop_timeout: float = 10.0
    signal_group: bool = True
    why_died: Callable[[], str] = str


class SupervisedProcess:
    """One running `Program`: `start()` returns when it is ready, `stop()` when it has ended.

    If it dies by itself, it is restarted, at once and then after growing pauses of up to 30 s.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._relay = Relay(program.name)
        self._relaying: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The ID of its first process and of its process group; a restart changes it."""
        if self._process is None:
            raise RuntimeError(f"{self._program.name} was not started")
        return self._process.pid

    async def start(self) -> None:
        """Start the program and wait until it is ready.

        Raises:
            StartFailed: it ended, or was not ready in time. It does not run then.
        """
        if self._program.log is not None:
            self._program.log.write_bytes(b"")
        watch = self._supervise(await self._launch())
        self._watch = asyncio.create_task(watch, name=f"watch {self._program.name}")

    async def stop(self) -> None:
        """Stop the program and its processes, within slightly more than `stop_timeout`."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        await self._end()

    async def _launch(self) -> asyncio.subprocess.Process:
        program = self._program
        program.prepare()
        with program.log.open("ab") if program.log else contextlib.nullcontext() as output:
            self._process = process = await start_group(
                str(find_tool("setpriv")),
                *("--pdeathsig", "KILL", "--"),
                *program.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output or asyncio.subprocess.PIPE,
                stderr=output or asyncio.subprocess.STDOUT,
                env=child_environment(program.environment),
            )
        if process.stdout is not None:
            relaying = self._relay.run(process.stdout)
            self._relaying = asyncio.create_task(relaying, name=f"relay {program.name}")
        try:
            async with asyncio.timeout(program.start_timeout):
                await self._until_ready(process)
        except TimeoutError as error:
            await self._end()
            late = f"{program.name} was not ready within {program.start_timeout:g} s"
            raise StartFailed(f"{late}{self._last_words()}") from error
        except BaseException:
            await self._end()
            raise
        return process

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        ended = asyncio.create_task(process.wait())
        try:
            while not await self._program.ready():
                await asyncio.wait((ended,), timeout=_POLL)
                if ended.done():
                    await self._until_told()
                    how = f"{self._program.name} ended with {_describe(ended.result())}"
                    raise StartFailed(f"{how}{self._last_words()}")
        finally:
            ended.cancel()

    async def _supervise(self, process: asyncio.subprocess.Process) -> None:
        loop = asyncio.get_running_loop()
        back_off = _FIRST_BACK_OFF
        while True:
            begun = loop.time()
            status = await process.wait()
            kill_group(self.pid)
            await self._until_told()
            how = _describe(status)
            if reason := self._program.why_died():
                how = f"{how}: {reason}"
            _log.error("program died", program=self._program.name, how=how)
            if loop.time() - begun > _LONGEST_BACK_OFF:
                back_off = _FIRST_BACK_OFF
            process, back_off = await self._start_again(back_off)

    async def _start_again(self, back_off: float) -> tuple[asyncio.subprocess.Process, float]:
        while True:
            await asyncio.sleep(back_off)
            back_off = min(back_off * 2, _LONGEST_BACK_OFF)
            try:
                process = await self._launch()
            except (EngineError, OSError) as error:
                reason = str(error)
                _log.error("program did not start", program=self._program.name, reason=reason)
            else:
                _log.info("program restarted", program=self._program.name)
                return process, back_off

    async def _end(self) -> None:
        if self._process is None:
            return
        send = os.killpg if self._program.signal_group else os.kill
        with contextlib.suppress(ProcessLookupError):
            send(self.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(self._program.stop_timeout):
                await self._process.wait()
        except TimeoutError:
            _log.warning("program was killed", program=self._program.name)
        finally:
            kill_group(self.pid)
        await self._process.wait()
        await self._until_told()

    async def _until_told(self) -> None:
        """Wait for a dead program's last output, for a limited time: a child may keep it open."""
        if self._relaying is not None:
            await asyncio.wait((self._relaying,), timeout=_LAST_OUTPUT_SECONDS)
            self._relaying.cancel()

    def _last_words(self) -> str:
        log = self._program.log
        lines = log.read_text(errors="replace").splitlines() if log else list(self._relay.last)
        # A Go program prints its fatal error after its name; a stack trace may follow.
        named = [line for line in lines if line.startswith(f"{self._program.name}: ")]
        said = (named or lines or ["no word"])[-1]
        said = said.removeprefix(f"{self._program.name}: ").strip()
        return f": {said} ({f'see {log}' if log else 'its output is above'})"


def _describe(status: int) -> str:
    if status < 0:
        return signal.Signals(-status).name
    return f"exit code {status}"


class SupervisedServer:
    """A server that one `Program` makes, during an `async with`; a subclass starts it there."""

    def __init__(self) -> None:
        self._process: SupervisedProcess | None = None

    @property
    def pid(self) -> int:
        """The ID of its process group; a restart changes it."""
        if self._process is None:
            raise RuntimeError(f"{type(self).__name__} was not started")
        return self._process.pid

    async def __aexit__(self, *exc: object) -> None:
        """Stop it and all its processes."""
        if self._process is not None:
            await self._process.stop()

    async def _start(self, program: Program) -> None:
        self._process = SupervisedProcess(program)
        await self._process.start()
