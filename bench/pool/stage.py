"""Several BuildKits, and builders before them: all real, on one machine."""

import asyncio
import itertools
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx2

from aiobuildkit import Client
from bench import usage
from bench.contenders import BuildFailed, Server, builder, signed
from bench.contexts import Context, Files
from function_builder.engine import BuildKitConfig, BuildKitDaemon, Registry
from function_builder.engine.base_image import seed_base_image

REGISTRY = "127.0.0.1:5000"
_FIRST_PORT = 5001
_LONGEST_BUILD = 120.0
_LONGEST_WAIT = 60.0


class Parallelism(BuildKitConfig):
    """A BuildKit that runs so many steps at once and no more, as one of so many CPUs should."""

    steps = 8

    def toml(self, **where: Any) -> str:
        """The text of buildkitd.toml."""
        text = BuildKitConfig.toml(self, **where)
        return text.replace("gc = true", f"gc = true\nmax-parallelism = {self.steps}")


class Machine:
    """One BuildKit with a directory of its own, that comes and goes.

    Attributes:
        name: of its directory.
    """

    def __init__(self, root: Path, name: str, config: BuildKitConfig) -> None:
        self.name = name
        self._root = root / name
        self._config = config
        self._daemon = self._make()
        self._stack = AsyncExitStack()

    @property
    def address(self) -> str:
        """Where it listens while it is there."""
        return self._daemon.address

    async def start(self) -> None:
        """Let it come; it has what its directory holds."""
        self._daemon = self._make()
        await self._stack.enter_async_context(self._daemon)

    async def stop(self) -> None:
        """Let it go, in order."""
        await self._stack.aclose()

    def kill(self) -> None:
        """Let it die at once, with all that it does; it is started again, as by Kubernetes."""
        os.killpg(self._daemon.pid, signal.SIGKILL)

    def move_to(self, other: Self) -> None:
        """Give another one, which never ran, all that this one, which is stopped, has."""
        self._root.rename(other._root)

    def steps(self) -> int:
        """How many steps it runs: each is a child of its own."""
        return len(self._processes("runc"))

    def memory(self) -> float:
        """Megabytes that it holds."""
        return sum(map(usage.resident, self._processes("buildkitd")))

    def disk(self) -> tuple[float, int]:
        """Megabytes that its directory takes, and how many files and directories it has."""
        command = ("du", "--summarize", "--one-file-system", str(self._root))
        kilobytes, files = (
            int(subprocess.check_output([*command, *flags], text=True).split()[0])
            for flags in (["--block-size=1000"], ["--inodes"])
        )
        return kilobytes / 1000, files

    async def holds(self) -> str:
        """What the records of its cache say of themselves, one a line."""
        async with Client(self.address) as client:
            return "\n".join(record.description for record in await client.disk_usage())

    async def worker(self) -> str:
        """The id of its worker."""
        async with Client(self.address) as client:
            return (await client.list_workers())[0].id

    def _processes(self, name: str) -> list[int]:
        """Those of this name among it and what it started."""
        found, parents = [], [self._daemon.pid]
        while parents:
            pid = parents.pop()
            parent = Path(f"/proc/{pid}")
            with suppress(OSError):
                if (parent / "comm").read_text() == f"{name}\n":
                    found.append(pid)
                for task in (parent / "task").iterdir():
                    parents += map(int, (task / "children").read_text().split())
        return found

    def _make(self) -> BuildKitDaemon:
        self._root.parent.mkdir(parents=True, exist_ok=True)
        log = self._root.with_name(f"{self.name}.log")
        return BuildKitDaemon(self._root, config=self._config, log=log)


@dataclass(frozen=True, slots=True)
class Built:
    """A build that ended: how, in how many seconds, and what it said on the way."""

    function: str
    status: str
    seconds: float
    log: Sequence[str]

    def says(self, words: str) -> bool:
        """Whether a line of output, or a word of the builder's, holds these words."""
        # A vertex is named by its command, which holds them too.
        return any(words in line for line in self.log if not line.startswith("v: "))


@dataclass(frozen=True, slots=True)
class Front:
    """A builder that answers, and its process."""

    url: str
    metrics_url: str
    process: Server


class Stage:
    """A registry, a directory, ports, and a client."""

    def __init__(self, root: Path, http: httpx2.AsyncClient) -> None:
        self.root = root
        self._http = http
        self._ports = itertools.count(_FIRST_PORT)
        self._contexts: dict[str, Context] = {}
        self._numbers = itertools.count()

    def directory(self, name: str) -> Path:
        """A new one."""
        directory = self.root / name
        directory.mkdir()
        return directory

    def port(self) -> int:
        """One that nobody has yet."""
        return next(self._ports)

    @asynccontextmanager
    async def machines(
        self,
        number: int,
        *,
        config: type[BuildKitConfig] = BuildKitConfig,
        registry: str = REGISTRY,
    ) -> AsyncIterator[list[Machine]]:
        """BuildKits that nobody has started yet; those that were are stopped at the end."""
        mirrors = config(mirrors={"docker.io": [registry]}, plain_http=[registry])
        directory = self.root / f"set{next(self._numbers)}"
        machines = [Machine(directory, f"bk{each}", mirrors) for each in range(number)]
        try:
            yield machines
        finally:
            await asyncio.gather(*(machine.stop() for machine in machines))

    @asynccontextmanager
    async def builders(self, urls: Iterable[str], **settings: str) -> AsyncIterator[list[Front]]:
        """A builder for each `buildkit_url`, all with these settings besides."""
        async with AsyncExitStack() as stack:
            fronts = []
            for url in urls:
                listen, metrics = (f"127.0.0.1:{self.port()}" for _ in range(2))
                root = self.root / f"builder-{listen.partition(':')[2]}"
                process = await stack.enter_async_context(
                    builder(root, url, listen, metrics, **settings)
                )
                fronts.append(Front(f"http://{listen}", f"http://{metrics}", process))
            yield fronts

    async def until_up(self, fronts: Iterable[Front], number: int) -> None:
        """Wait until each builder knows that so many BuildKits are there."""
        sample = f'function_builder_buildkit_daemons{{state="up"}} {float(number)}\n'
        async with asyncio.timeout(_LONGEST_WAIT):
            for front in fronts:
                while sample not in (await self._http.get(f"{front.metrics_url}/metrics")).text:
                    await asyncio.sleep(0.05)

    async def build(
        self, front: Front, function: str, files: Files, *, registry: str = REGISTRY
    ) -> Built:
        """Build a function; `handler.sh`, if it has one, is edited before."""
        name = function.replace("/", "-")
        if function not in self._contexts:
            self._contexts[function] = Context(self.root / "functions" / name, files)
        context = self._contexts[function]
        number = next(self._numbers)
        if "handler.sh" in files:
            context.edit(number)
        body = context.request(f"{registry}/{function}:n{number}", {})
        begin = time.perf_counter()
        answer = await self._http.post(f"{front.url}/build", content=body, headers=signed(body))
        reply = answer.json()
        return Built(function, reply["status"], time.perf_counter() - begin, reply.get("log", []))


@asynccontextmanager
async def stage(root: Path) -> AsyncIterator[Stage]:
    """Start a registry with a base image, in `root`."""
    client = httpx2.AsyncClient(trust_env=False, timeout=_LONGEST_BUILD)
    async with (
        client,
        Registry(root / "registry", listen=REGISTRY, log=root / "registry.log"),
    ):
        await seed_base_image(REGISTRY)
        yield Stage(root, client)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what tells nobody when it happens."""
    async with asyncio.timeout(_LONGEST_WAIT):
        while not condition():
            await asyncio.sleep(0.05)


def succeeded(builds: Iterable[Built]) -> None:
    """Make sure that what is measured went well.

    Raises:
        BuildFailed: a build did not succeed.
    """
    for built in builds:
        if built.status != "success":
            raise BuildFailed(f"{built.function}: {built.status}: {list(built.log)[-5:]}")


def percent(part: float, whole: float) -> str:
    """A share, in words."""
    return f"{100 * part / whole:.0f} %"
