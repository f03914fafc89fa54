"""Builds of clients in the cluster: one, or many while something is done to the cluster."""

import asyncio
from collections import Counter
from types import TracebackType
from typing import Any, Final, Self

from tests.cluster.cluster import REGISTRY
from tests.cluster.openfaas import OpenFaaS, Tell
from tests.support.images import pull

_ATTEMPTS: Final = 20
_QUIET: Final = 8
"""Builds between two changes of the cluster."""


def address(pod: Any) -> str:
    """Where a builder's pod listens, whether it is ready or not."""
    return f"http://{pod['status']['podIP']}:8080"


async def build(openfaas: OpenFaaS, url: str, image: str, dockerfile: str) -> dict[str, Any]:
    """Build a Dockerfile with our client, in a pod; what came of it."""
    arguments = (url, openfaas.payload_secret.strip(), f"{REGISTRY}/{image}")
    said: dict[str, Any] = await openfaas.client("build", *arguments, stdin=dockerfile)
    assert said["status"] == "success", said
    return said


class Load:
    """Four clients that build function after function, for the time of an `async with`.

    Args:
        openfaas: where they are.
        url: the builder.
        images: what their images' repository is called.
    """

    def __init__(self, openfaas: OpenFaaS, url: str, images: str) -> None:
        self._openfaas = openfaas
        secret = openfaas.payload_secret.strip()
        self._command = ("load", url, secret, f"{REGISTRY}/{images}", "4", str(_ATTEMPTS))
        self._builds: list[Any] = []

    async def __aenter__(self) -> Self:
        """Begin."""
        await self._openfaas.shell("rm -f /shared/done && touch /shared/done")
        await self.during("the beginning")
        self._running = asyncio.create_task(self._openfaas.client(*self._command))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let them end what they have begun."""
        await self.during("over")
        self._builds = await self._running

    async def during(self, phase: str) -> None:
        """Say what happens from now on."""
        await self._openfaas.shell(f"cd /shared && printf %s '{phase}' >new && mv new phase")

    async def builds_during(self, phase: str) -> None:
        """Say what happens, and wait for some builds that began since."""
        await self.during(phase)
        count = f"grep -c -x '{phase}' /shared/done || true"
        async with asyncio.timeout(120):
            while int(await self._openfaas.shell(count)) < _QUIET:
                await asyncio.sleep(0.5)

    def tell(self, tell: Tell, title: str) -> None:
        """A table of it all, and why clients had to try again."""
        head = ("while", "requests", "at first try", "after retry", "cut", "lost", "slowest")
        phases = dict.fromkeys(build["phase"] for build in self._builds)
        rows = [
            (phase, *_account([build for build in self._builds if build["phase"] == phase]))
            for phase in phases
        ]
        tell(title, [head, *rows, ("in all", *_account(self._builds))])
        if reasons := Counter(reason for build in self._builds for reason in build["failures"]):
            why = [("times", "why"), *((number, reason) for reason, number in reasons.items())]
            tell("Why they had to try again", why)

    def check(self) -> None:
        """Assert that none was lost or cut short, and that each image is the one asked for."""
        assert self._builds
        for build in self._builds:
            assert len(build["failures"]) < _ATTEMPTS, build
            assert not any(failure.startswith("cut") for failure in build["failures"]), build
            repository, _, tag = build["image"].removeprefix(f"{REGISTRY}/").rpartition(":")
            assert pull(REGISTRY, repository, tag).text("name") == build["image"] + "\n"


def _account(builds: list[Any]) -> tuple[object, ...]:
    """Requests; successes at the first try, and after further ones; replies cut short; lost."""
    failures = [build["failures"] for build in builds]
    return (
        len(builds),
        sum(not tried for tried in failures),
        sum(0 < len(tried) < _ATTEMPTS for tried in failures),
        sum(reason.startswith("cut") for tried in failures for reason in tried),
        sum(len(tried) == _ATTEMPTS for tried in failures),
        f"{max(build['seconds'] for build in builds)} s",
    )
