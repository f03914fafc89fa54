"""Images for the cluster, built here: no registry on the internet is asked for any."""

import shutil
from pathlib import Path

from function_builder.engine import BuildKitDaemon, find_tool
from tests.cluster.cluster import REGISTRY
from tests.cluster.commands import run

PAUSE = 'FROM busybox\nENTRYPOINT ["sleep", "2147483647"]\n'
"""Holds a pod's namespaces; Kubernetes' own is a program of a few lines that sleeps."""

COREDNS = 'FROM scratch\nCOPY coredns /\nENTRYPOINT ["/coredns"]\n'


async def push(daemon: BuildKitDaemon, name: str, context: Path) -> None:
    """Build a directory with a Dockerfile and push it to the cluster's registry as `name`."""
    image = f"type=image,name={REGISTRY}/{name},push=true,registry.insecure=true"
    await run(
        "buildctl",
        f"--addr={daemon.address}",
        "build",
        "--frontend=dockerfile.v0",
        f"--local=context={context}",
        f"--local=dockerfile={context}",
        f"--output={image}",
    )


async def push_of_cluster(daemon: BuildKitDaemon, root: Path) -> None:
    """Push what a cluster itself runs: the sandbox's image, and CoreDNS."""
    pause = root / "pause"
    pause.mkdir()
    (pause / "Dockerfile").write_text(PAUSE)
    await push(daemon, "pause:latest", pause)
    coredns = root / "coredns"
    coredns.mkdir()
    (coredns / "Dockerfile").write_text(COREDNS)
    shutil.copy(find_tool("coredns"), coredns / "coredns")
    await push(daemon, "kubernetes/coredns:latest", coredns)
