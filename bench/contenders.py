"""What is measured, each building a context as an image: this builder, a Go server, buildctl."""

import asyncio
import hashlib
import hmac
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from bench import usage
from bench.contexts import Context
from function_builder.engine import find_tool

SECRET = "only-for-benchmarks"
_BUILD_ARGS = {"SOURCE_DATE_EPOCH": "0"}
_LONGEST_BUILD = 300.0

Job = Callable[[], None]
"""One build, made ready beforehand; returns when the image is pushed."""


class BuildFailed(Exception):
    """A build that should have succeeded did not; what was measured is worth nothing."""


class Contender(Protocol):
    """Something that builds.

    Attributes:
        name: what tables and images call it.
    """

    name: str

    def job(self, context: Context, image: str, *, reproducible: bool = True) -> Job:
        """Make a build of the context, as it is now, ready."""
        ...

    def cpu(self) -> float:
        """Seconds of CPU that it took so far, without BuildKit's."""
        ...

    def idle(self) -> float | None:
        """Megabytes that it holds before its first build; None: it runs only while it builds."""
        ...

    def peak(self) -> float | None:
        """The most megabytes that it held at a time; None likewise."""
        ...


class Server:
    """A process that answers POST /build.

    Attributes:
        address: `host:port`.
        start: seconds from its process's beginning to its first answer on /healthz.
    """

    def __init__(self, name: str, address: str, pid: int, start: float) -> None:
        self.name = name
        self.address = address
        self.start = start
        self._pid = pid
        self.forget_peak()
        self._idle = usage.resident(pid)

    def job(self, context: Context, image: str, *, reproducible: bool = True) -> Job:
        """Make and sign the request."""
        body = context.request(image, _BUILD_ARGS if reproducible else {})

        def build() -> None:
            self.build(body)

        return build

    def cpu(self) -> float:
        """The process's."""
        return usage.process_cpu(self._pid)

    def idle(self) -> float:
        """What it held once it answered."""
        return self._idle

    def peak(self) -> float:
        """Since then."""
        return usage.peak(self._pid)

    def forget_peak(self) -> None:
        """Let `peak` begin again with what it holds now."""
        usage.forget_peak(self._pid)

    def build(self, body: bytes, *, lacking: bool = False) -> bool:
        """Send a request; returns whether the image is built.

        Args:
            body: the request's.
            lacking: whether the builder may lack contents (409). Else this is a failure.
        """
        headers = signed(body) | {"Accept": "application/x-ndjson"}
        connection = http.client.HTTPConnection(self.address, timeout=_LONGEST_BUILD)
        try:
            connection.request("POST", "/build", body, headers)
            answer = connection.getresponse()
            reply = answer.read()
        finally:
            connection.close()
        if lacking and answer.status == http.HTTPStatus.CONFLICT:
            return False
        lines = reply.splitlines() or [b""]
        try:
            succeeded = json.loads(lines[-1])["status"] == "success"
        except (ValueError, KeyError, TypeError):
            succeeded = False
        if not succeeded:
            raise BuildFailed(f"{self.name}: {reply[-2000:].decode(errors='replace')}")
        return True


class Delta:
    """A client of this builder that sends manifests, and the files that may have changed.

    Args:
        server: the builder.
        config: more keys of the builds' config.
    """

    name = "manifest"

    def __init__(self, server: Server, **config: object) -> None:
        self._server = server
        self._config = config
        self.cpu = server.cpu
        self.idle = server.idle
        self.peak = server.peak

    def job(self, context: Context, image: str, *, reproducible: bool = True) -> Job:
        """Make the requests; all is sent where the builder lacks more."""
        arguments = _BUILD_ARGS if reproducible else {}
        config = {"image": image, "buildArgs": arguments, **self._config}
        body = context.manifest(config, ("Dockerfile", "handler.sh"))

        def build() -> None:
            if not self._server.build(body, lacking=True):
                self._server.build(context.manifest(config))

        return build


class Buildctl:
    """BuildKit's own command, on the context's directory; it receives nothing, checks nothing."""

    name = "buildctl"

    def __init__(self, buildkit: str, root: Path) -> None:
        self._command = [str(find_tool("buildctl")), "--addr", buildkit]
        self._environment = _environment(root)
        self._lock = threading.Lock()
        self._cpu = 0.0

    def job(self, context: Context, image: str, *, reproducible: bool = True) -> Job:
        """Put the command together."""
        push = f"type=image,name={image},push=true,registry.insecure=true"
        argv = ["build", "--frontend=dockerfile.v0", "--progress=plain", f"--output={push}"]
        argv += [f"--local={name}={context.directory}" for name in ("context", "dockerfile")]
        if reproducible:
            argv += [f"--opt=build-arg:{name}={value}" for name, value in _BUILD_ARGS.items()]
        return lambda: self.run(argv)

    def cpu(self) -> float:
        """Of all its runs."""
        return self._cpu

    def idle(self) -> None:
        """It does not wait for builds."""

    def peak(self) -> None:
        """Not known: a child's ru_maxrss begins with what its parent, we, held at the fork."""

    def run(self, argv: list[str]) -> None:
        """Run it to its end."""
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [*self._command, *argv], env=self._environment, stdout=log, stderr=log
            )
            killer = threading.Timer(_LONGEST_BUILD, process.kill)
            killer.start()
            _, status, spent = os.wait4(process.pid, 0)
            killer.cancel()
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                log.seek(0)
                raise BuildFailed(f"buildctl: {log.read()[-2000:].decode(errors='replace')}")
        with self._lock:
            self._cpu += spent.ru_utime + spent.ru_stime


@asynccontextmanager
async def builder(
    root: Path, buildkit: str, listen: str, metrics: str, **settings: str
) -> AsyncIterator[Server]:
    """This project's: `function-builder serve`, its other settings the defaults unless given."""
    secret = _secret(root)
    environment = _environment(root) | {
        "listen": listen,
        "metrics_listen": metrics,
        "buildkit_url": buildkit,
        "secret_mount_path": str(secret.parent),
        "spool_dir": str(root),
        "insecure": "true",
        "drain_delay": "0",
        **settings,
    }
    argv = (sys.executable, "-m", "function_builder", "serve")
    async with _server("ours", argv, environment, listen, root / "log") as server:
        yield server


@asynccontextmanager
async def go_reference(root: Path, buildkit: str, listen: str) -> AsyncIterator[Server]:
    """bench/go-reference."""
    argv = (
        str(find_tool("go-reference")),
        *("-listen", listen, "-buildkit", buildkit, "-secret", str(_secret(root))),
    )
    environment = _environment(root) | {"TMPDIR": str(root)}
    async with _server("go", argv, environment, listen, root / "log") as server:
        yield server


@asynccontextmanager
async def _server(
    name: str, argv: tuple[str, ...], environment: Mapping[str, str], listen: str, log: Path
) -> AsyncIterator[Server]:
    begin = time.perf_counter()
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(str(find_tool("setpriv")), "--pdeathsig", "KILL", "--"),
            *argv,
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(_healthy, listen):
                if process.returncode is not None:
                    raise BuildFailed(f"{name} ended at its start: see {log}")
                await asyncio.sleep(0.002)
        yield Server(name, listen, process.pid, time.perf_counter() - begin)
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(15):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def signed(body: bytes) -> dict[str, str]:
    """The headers that the servers take this body with."""
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return {
        "X-Build-Signature": f"sha256={signature}",
        "Content-Type": "application/octet-stream",
    }


def _healthy(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def _secret(root: Path) -> Path:
    path = root / "secrets" / "payload-secret"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SECRET)
    return path


def _environment(root: Path) -> dict[str, str]:
    # No credentials, no proxy, no tracing of whoever runs the benchmark.
    root.mkdir(parents=True, exist_ok=True)
    return {"PATH": os.environ["PATH"], "HOME": str(root), "DOCKER_CONFIG": str(root)}
