"""Builds for other platforms: whether BuildKit can run them, and the digest of each image.

It is not known before a build what a BuildKit can run. It lists the platforms of its kernel, with
binfmt_misc. But its official images have emulators that it does not list, and a Dockerfile that
runs no program of its target (with a cross-compiler) can be built for any platform. So only
platforms that no BuildKit runs are refused before the build. For others the build starts, and if
BuildKit cannot run a step's program, the error says so.
Source: BuildKit, `util/archutil/detect.go`, `solver/llbsolver/ops/exec_binfmt.go`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from aiobuildkit import BuildKitError, Client, SolveError, SolveResult, StatusEvent
from function_builder.builds.failures import NO_MACHINE

_EMULATED: Final = frozenset(
    [
        *("386", "amd64", "arm", "arm64", "loong64", "mips64"),
        *("mips64le", "ppc64", "ppc64le", "riscv64", "s390x"),
    ]
)
"""The architectures that BuildKit can run on Linux, directly or with an emulator."""

_OTHER_NAMES: Final = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
    "armel": "arm",
    "i386": "386",
}

_MANIFEST: Final = "exporting manifest sha256:"
_ASK_SECONDS: Final = 5.0


class UnsupportedPlatform(Exception):
    """A platform cannot be built here; the text, for the client, lists those that can."""


class PlatformReport:
    """The platforms in the status of a build."""

    def __init__(self) -> None:
        self._manifests: dict[str, None] = {}
        self._of_other_machines: set[str] = set()

    def begin(self) -> None:
        """Forget the exports of an earlier attempt, because the build is retried."""
        self._manifests.clear()

    def observe(self, event: StatusEvent) -> None:
        """Read a status event."""
        for status in event.statuses:
            if status.id.startswith(_MANIFEST):
                self._manifests[status.id.removeprefix("exporting manifest ")] = None
        self._of_other_machines.update(log.vertex for log in event.logs if NO_MACHINE in log.data)

    def digests(self, wanted: Sequence[str], result: SolveResult) -> Mapping[str, str]:
        """The digest of each platform's manifest.

        Args:
            wanted: the requested platforms; none: BuildKit's own.
            result: the result of the solve.
        """
        manifests = list(self._manifests)
        if len(wanted) > 1:
            # The exporter writes them in the order of the request.
            return (
                dict(zip(wanted, manifests, strict=True)) if len(manifests) == len(wanted) else {}
            )
        platform = wanted[0] if wanted else str(result.platform or "")
        # With attestations, the build's digest is that of an index.
        digest = manifests[0] if len(manifests) == 1 else result.digest
        return {platform: digest} if platform and digest else {}

    def failed_on_another_machine(self, failure: SolveError) -> bool:
        """Whether a build failed because BuildKit cannot run a program of another platform."""
        return failure.vertex in self._of_other_machines


async def refuse_impossible(client: Client, wanted: Sequence[str]) -> None:
    """Refuse platforms that no BuildKit can run, before the build.

    Raises:
        UnsupportedPlatform: it names them, and those that can be built.
    """
    odd = [platform for platform in wanted if not _possible(platform)]
    if odd:
        await refuse_unlisted(client, odd)


async def refuse_unlisted(client: Client, wanted: Sequence[str]) -> None:
    """Refuse platforms that BuildKit does not list.

    Raises:
        UnsupportedPlatform: it names them, and the list.
    """
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            workers = await client.list_workers()
    except (BuildKitError, TimeoutError):
        return
    listed = list(dict.fromkeys(str(each) for worker in workers for each in worker.platforms))
    known = {_machine(platform) for platform in ["linux", *listed]}
    unlisted = [platform for platform in wanted if _machine(platform) not in known]
    if unlisted:
        emulated = any(map(_possible, unlisted))
        more = "; QEMU beside BuildKit adds more" if emulated else ", and no emulator adds these"
        raise UnsupportedPlatform(
            f"this builder cannot run the steps of {', '.join(unlisted)}: "
            f"it can build for {', '.join(listed)}{more}"
        )


def _possible(platform: str) -> bool:
    system, architecture = _machine(platform)
    return system == "linux" and architecture in _EMULATED | {""}


def _machine(platform: str) -> tuple[str, str]:
    """A platform without its variant, normalized (containerd's `platforms`).

    `arm64` means Linux. `linux` means BuildKit's own architecture, which is empty here.
    """
    system, slash, rest = platform.partition("/")
    if not slash and system != "linux":
        system, rest = "linux", system
    architecture = rest.partition("/")[0]
    return system, _OTHER_NAMES.get(architecture, architecture)
