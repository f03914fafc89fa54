"""Images for the cluster, built here: no registry on the internet is asked for any.

What builds them keeps its cache outside the clone, so that only what changed is built again.
"""

import asyncio
import fcntl
import shutil
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from function_builder.engine import BuildKitConfig, BuildKitDaemon, find_tool
from function_builder.engine.tools import tools_cache
from tests.cluster.cluster import REGISTRY
from tests.cluster.commands import run
from tests.support import VECTORS, served

REPOSITORY: Final = Path(__file__).parents[2]
CHART: Final = REPOSITORY / "chart" / "function-builder"

FAAS_CLI: Final = "test/faas-cli:latest"
"""A client's image: faas-cli, old and new, and a shell."""

_WHEELS: Final = 5001
"""A port of its own for ever: it is in a build argument, and so in the cache's keys."""

_PAUSE: Final = 'FROM busybox\nENTRYPOINT ["sleep", "2147483647"]\n'
"""Holds a pod's namespaces; Kubernetes' own is a program of a few lines that sleeps."""

_COREDNS: Final = 'FROM scratch\nCOPY coredns /\nENTRYPOINT ["/coredns"]\n'

_REGISTRY: Final = """\
FROM scratch
COPY registry config.yml /
ENTRYPOINT ["/registry", "serve"]
CMD ["/config.yml"]
"""
_REGISTRY_CONFIG: Final = """\
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/registry}}
http: {addr: ":5000"}
"""

_FAAS_CLI: Final = "FROM busybox\nCOPY faas-cli faas-cli-0.17 /bin/\n"

_BASE: Final = "FROM scratch\nADD amd64.tar /\n"

# What BuildKit's own image has, as far as the chart uses it.
_BUILDKIT: Final = """\
FROM busybox
COPY root/ /
ENTRYPOINT ["buildkitd"]
"""
# Debian's newuidmap and newgidmap are set-uid and then lack the right to open what the ordinary
# user owns; those of BuildKit's image become that user again. A file capability does the same.
_ROOTLESS: Final = """\
FROM busybox
COPY root/ /
RUN chmod 755 /usr/bin/new?idmap && setcap cap_setuid+ep /usr/bin/newuidmap && \\
    setcap cap_setgid+ep /usr/bin/newgidmap && rm /usr/bin/setcap && \\
    echo user:x:1000:1000::/home/user:/bin/sh >>/etc/passwd && \\
    echo user:x:1000: >>/etc/group && \\
    echo user:100000:65536 | tee /etc/subuid >/etc/subgid && \\
    mkdir -p /home/user/.local/share/buildkit && chown -R 1000:1000 /home/user
USER 1000:1000
ENV HOME=/home/user USER=user
ENTRYPOINT ["rootlesskit", "buildkitd"]
"""
_BUILDKIT_PROGRAMS: Final = ("buildkitd", "buildctl", "runc")
_ROOTLESS_PROGRAMS: Final = ("rootlesskit", "newuidmap", "newgidmap", "setcap")


@dataclass(frozen=True)
class Images:
    """Builds directories into the cluster's registry.

    Attributes:
        daemon: what builds.
        root: a directory for what is built.
    """

    daemon: BuildKitDaemon
    root: Path

    async def push(
        self,
        context: Path,
        *names: str,
        dockerfile: Path | None = None,
        arguments: Mapping[str, str] | None = None,
        stages: Mapping[str, Path] | None = None,
    ) -> None:
        """Build a directory, and push it under these names.

        Args:
            context: the directory.
            names: of the image, without a registry.
            dockerfile: the directory of the Dockerfile; None: the same.
            arguments: further build arguments.
            stages: directories that stand for stages of the Dockerfile.
        """
        arguments = {"SOURCE_DATE_EPOCH": "0", **(arguments or {})}
        image = ",".join(f"{REGISTRY}/{name}" for name in names)
        await run(
            "buildctl",
            f"--addr={self.daemon.address}",
            "build",
            "--frontend=dockerfile.v0",
            f"--local=context={context}",
            f"--local=dockerfile={dockerfile or context}",
            *(f"--opt=context:{name}=local:{name}" for name in stages or {}),
            *(f"--local={name}={path}" for name, path in (stages or {}).items()),
            *(f"--opt=build-arg:{name}={value}" for name, value in arguments.items()),
            f'--output=type=image,"name={image}",push=true,registry.insecure=true',
        )

    async def push_of_cluster(self) -> None:
        """Push what a cluster itself runs: the sandbox's image, and CoreDNS."""
        await self.push(self._context("pause", _PAUSE), "pause:latest")
        coredns = self._context("coredns", _COREDNS)
        shutil.copy(find_tool("coredns"), coredns)
        await self.push(coredns, "kubernetes/coredns:latest")

    async def push_of_product(self) -> None:
        """Push what the chart runs, under the names it has there, and what its tests run."""
        await self._push_builder()
        await self._push_buildkit()
        faas_cli = self._context("faas-cli", _FAAS_CLI)
        for program in ("faas-cli", "faas-cli-0.17"):
            shutil.copy(find_tool(program), faas_cli / program)
        await self.push(faas_cli, FAAS_CLI)
        registry = self._context("registry", _REGISTRY)
        shutil.copy(find_tool("registry").resolve(), registry / "registry")
        (registry / "config.yml").write_text(_REGISTRY_CONFIG)
        await self.push(registry, "library/registry:3")

    async def _push_builder(self) -> None:
        """The Dockerfile's, from a Debian and wheels that are on this machine."""
        parts = Path((await run(f"{REPOSITORY}/scripts/image-parts", seconds=900)).strip())
        base = self._context("base", _BASE)
        shutil.copy(parts / "amd64.tar", base)
        await self.push(base, "test/python:3")
        # Compiled by scripts/tools from the same module as the Dockerfile's.
        nats = self.root / "images" / "nats"
        nats.mkdir()
        shutil.copy(find_tool("nats-server").resolve(), nats / "nats-server")
        with served(parts / "wheels", _WHEELS) as wheels:
            await self.push(
                REPOSITORY,
                BUILDER,
                # As docs/kubernetes-in-ten-minutes.md calls it.
                "library/function-builder:local",
                dockerfile=REPOSITORY / "image",
                stages={"nats": nats},
                arguments={
                    "PYTHON_IMAGE": f"{REGISTRY}/test/python:3",
                    "HELPERS": "none",
                    "PIP_NO_INDEX": "1",
                    "PIP_FIND_LINKS": wheels,
                },
            )

    async def _push_buildkit(self) -> None:
        """The BuildKit of scripts/tools, whichever version a values file names."""
        values = yaml.safe_load((CHART / "values.yaml").read_text())
        theirs = yaml.safe_load((VECTORS / "pro-builder-values.yaml").read_text())
        for key, dockerfile, programs in (
            ("buildkit", _BUILDKIT, _BUILDKIT_PROGRAMS),
            ("buildkitRootless", _ROOTLESS, _BUILDKIT_PROGRAMS + _ROOTLESS_PROGRAMS),
        ):
            context = self._context(key, dockerfile)
            await _lay_out(context / "root", programs)
            await self.push(context, values[key]["image"], theirs[key]["image"])

    def _context(self, name: str, dockerfile: str) -> Path:
        context = self.root / "images" / name
        context.mkdir(parents=True)
        (context / "Dockerfile").write_text(dockerfile)
        return context


def _builder() -> str:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    return f"function-builder/function-builder:{chart['appVersion']}"


BUILDER: Final = _builder()
"""The builder's image, without the registry that the chart looks for it in."""


@asynccontextmanager
async def images(root: Path) -> AsyncIterator[Images]:
    """What builds, for the time of an `async with`; one at a time on this machine."""
    cache = tools_cache().parents[1] / "cluster"
    cache.mkdir(parents=True, exist_ok=True)
    config = BuildKitConfig(mirrors={"docker.io": [REGISTRY]}, plain_http=[REGISTRY])
    with (cache / "lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        async with BuildKitDaemon(cache, config=config, log=root / "images.log") as daemon:
            yield Images(daemon, root)


async def _lay_out(root: Path, programs: Iterable[str]) -> None:
    """Copy programs, and the shared libraries that they name under the names they look for."""
    (root / "usr" / "bin").mkdir(parents=True)
    for name in programs:
        program = find_tool(name)
        shutil.copy(program.resolve(), root / "usr" / "bin" / name)
        linked = await asyncio.create_subprocess_exec(
            "ldd", program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        said, _ = await linked.communicate()
        for path in (Path(word) for word in said.decode().split() if word.startswith("/")):
            target = root / path.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
