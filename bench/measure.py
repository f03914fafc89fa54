"""Rounds of builds on one BuildKit and one registry, each contender in each round.

Every image has a tag of its own, and the registry must hold it after each build: an answer that did
not come from BuildKit would be found out. The order changes from round to round. Before a case is
measured all three build the same, each on an empty cache, and must push the same digest.
"""

import asyncio
import http.client
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import usage
from bench.cases import Case
from bench.contenders import (
    Buildctl,
    BuildFailed,
    Contender,
    Delta,
    Job,
    builder,
    go_reference,
)
from bench.contexts import Context
from function_builder.engine import BuildKitConfig, BuildKitDaemon, Registry
from function_builder.engine.base_image import seed_base_image

REGISTRY = "127.0.0.1:5000"
OURS, METRICS, GO = "127.0.0.1:5001", "127.0.0.1:5002", "127.0.0.1:5003"
_WARM_UP = 2
_LONGEST_CASE = 1800.0
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement; seconds for each build in it.

    Attributes:
        wall: from before the first byte sent until after the last one received.
        cpu: of the contender.
        buildkitd_cpu: of BuildKit and of what it runs.
    """

    wall: float
    cpu: float
    buildkitd_cpu: float


@dataclass(frozen=True, slots=True)
class Series:
    """A contender's measurements in one case, in the order of the rounds; sizes in megabytes."""

    samples: Sequence[Sample]
    idle: float | None
    peak: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a case gave: `series` by contender, and the digest that all of them pushed."""

    case: Case
    digest: str
    series: dict[str, Series]

    def to_json(self) -> dict[str, object]:
        """Everything, for a file."""
        return {
            "case": self.case.name,
            "title": self.case.title,
            "clients": self.case.clients,
            "targets": {
                "buildctl": self.case.buildctl,
                "go": self.case.go,
                "manifest": self.case.manifest,
            },
            "digest": self.digest,
            "series": {name: asdict(series) for name, series in self.series.items()},
        }


@asynccontextmanager
async def buildkit_and_registry(root: Path) -> AsyncIterator[BuildKitDaemon]:
    """Start BuildKit and a registry with a base image, in `root`."""
    config = BuildKitConfig(mirrors={"docker.io": [REGISTRY]}, plain_http=[REGISTRY])
    async with (
        Registry(root / "registry", listen=REGISTRY, log=root / "registry.log"),
        BuildKitDaemon(root / "bk", config=config, log=root / "buildkitd.log") as daemon,
    ):
        await seed_base_image(REGISTRY)
        yield daemon


class Bench:
    """Measures cases, one at a time."""

    def __init__(self, root: Path, buildkit: BuildKitDaemon) -> None:
        self._root = root
        self._buildkit = buildkit
        self._numbers = itertools.count(1)
        self._base = _base_only(root / "base")
        self._buildctl = Buildctl(buildkit.address, root / "prune")

    async def run(self, case: Case, rounds: int) -> Outcome:
        """Measure one case with servers of its own.

        Raises:
            BuildFailed: a build failed, or pushed what it should not have.
            TimeoutError: the case took longer than half an hour.
        """
        root = self._root / case.name
        address = self._buildkit.address
        async with AsyncExitStack() as stack, asyncio.timeout(_LONGEST_CASE):
            running = builder(root / "ours", address, OURS, METRICS)
            ours = await stack.enter_async_context(running)
            contenders: list[Contender] = [
                ours,
                *([] if case.manifest is None else [Delta(ours)]),
                Buildctl(address, root / "buildctl"),
                await stack.enter_async_context(go_reference(root / "go", address, GO)),
            ]
            return await asyncio.to_thread(self._measure, case, contenders, rounds)

    def _measure(self, case: Case, contenders: Sequence[Contender], rounds: int) -> Outcome:
        context = Context(self._root / case.name / "context", case.files())
        digest = self._same_digest(case, context, contenders)
        samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
        for number in range(-_WARM_UP, rounds):
            first = number % len(contenders)
            for contender in (*contenders[first:], *contenders[:first]):
                sample = self._sample(case, context, contender)
                if number >= 0:
                    samples[contender.name].append(sample)
        series = {
            contender.name: Series(samples[contender.name], contender.idle(), contender.peak())
            for contender in contenders
        }
        return Outcome(case, digest, series)

    def _same_digest(self, case: Case, context: Context, contenders: Iterable[Contender]) -> str:
        digests = {}
        for contender in contenders:
            self._forget_all()
            image = _Image(f"bench/{case.name}-{contender.name}", "same")
            contender.job(context, str(image))()
            digests[contender.name] = image.digest()
        if len(set(digests.values())) != 1:
            raise BuildFailed(f"{case.name}: not the same image: {digests}")
        return digests.popitem()[1]

    def _sample(self, case: Case, context: Context, contender: Contender) -> Sample:
        number = next(self._numbers)
        case.change(context, number)
        images = [_image(case, contender, number, build) for build in range(case.builds)]
        jobs = [
            contender.job(context, str(image), reproducible=case.reproducible) for image in images
        ]
        if case.cold:
            self._forget_all()
            # What was written to make it ready is not for the measured build to wait for.
            os.sync()
        cpu, buildkitd = contender.cpu(), usage.session_cpu(self._buildkit.pid)
        wall = _run(jobs, case.clients)
        sample = Sample(
            wall / case.builds,
            (contender.cpu() - cpu) / case.builds,
            (usage.session_cpu(self._buildkit.pid) - buildkitd) / case.builds,
        )
        for image in images:
            image.digest()
        return sample

    def _forget_all(self) -> None:
        self._buildctl.run(["prune", "--all"])
        # The base image is no part of what is cold.
        self._buildctl.job(self._base, f"{REGISTRY}/bench/base:latest")()


@dataclass(frozen=True, slots=True)
class _Image:
    repository: str
    tag: str

    def __str__(self) -> str:
        return f"{REGISTRY}/{self.repository}:{self.tag}"

    def digest(self) -> str:
        """What the registry holds under this name."""
        connection = http.client.HTTPConnection(REGISTRY, timeout=10)
        try:
            path = f"/v2/{self.repository}/manifests/{self.tag}"
            connection.request("HEAD", path, headers={"Accept": _MANIFESTS})
            digest = connection.getresponse().headers.get("Docker-Content-Digest")
        finally:
            connection.close()
        if digest is None:
            raise BuildFailed(f"{self} was not pushed")
        return digest


def _image(case: Case, contender: Contender, number: int, build: int) -> _Image:
    repository = f"bench/{case.name}-{contender.name}"
    if case.cold:
        # The name is what BuildKit's copy of a context is kept by, and a registry its blobs.
        repository += f"-{number}"
    elif case.clients > 1:
        repository += f"-{build % case.clients}"
    return _Image(repository, f"n{number}-{build}")


def _run(jobs: Sequence[Job], clients: int) -> float:
    begin = time.perf_counter()
    if clients == 1:
        for job in jobs:
            job()
    else:
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(lambda job: job(), jobs))
    return time.perf_counter() - begin


def _base_only(directory: Path) -> Context:
    return Context(directory, {"Dockerfile": b"FROM busybox\nCOPY Dockerfile /\n"})
