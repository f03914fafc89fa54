"""What a build for other platforms needs: whether they can be had here, and the digest of each.

What a BuildKit can run is not known beforehand. It lists the platforms that its kernel runs, by
binfmt_misc too; but its official images carry emulators of their own that it does not list, and a
Dockerfile that runs nothing on the target (a cross-compiler's, say) is built for any platform
everywhere. So only names that no BuildKit runs are refused before the build; for the rest BuildKit
tries, and where a step's program is of a machine that it cannot run, the answer says so.
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
"""The architectures that some BuildKit runs on Linux, by itself or by an emulator."""

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
    """A platform cannot be built here; the text, for the client, says which can."""


class PlatformReport:
    """What the status of a build says of its platforms."""

    def __init__(self) -> None:
        self._manifests: dict[str, None] = {}
        self._of_other_machines: set[str] = set()

    def begin(self) -> None:
        """Forget what an attempt before has exported: BuildKit is asked again."""
        self._manifests.clear()

    def take(self, event: StatusEvent) -> None:
        """Note what an event says."""
        for status in event.statuses:
            if status.id.startswith(_MANIFEST):
                self._manifests[status.id.removeprefix("exporting manifest ")] = None
        self._of_other_machines.update(log.vertex for log in event.logs if NO_MACHINE in log.data)

    def digests(self, wanted: Sequence[str], result: SolveResult) -> Mapping[str, str]:
        """The digest of each platform's manifest.

        Args:
            wanted: the platforms that were asked for; none: BuildKit's own.
            result: the build's end.
        """
        manifests = list(self._manifests)
        if len(wanted) > 1:
            # The exporter writes them in the order in which they were asked for.
            return (
                dict(zip(wanted, manifests, strict=True)) if len(manifests) == len(wanted) else {}
            )
        platform = wanted[0] if wanted else str(result.platform or "")
        # The build's digest is an index's where attestations stand beside the image.
        digest = manifests[0] if len(manifests) == 1 else result.digest
        return {platform: digest} if platform and digest else {}

    def failed_on_another_machine(self, failure: SolveError) -> bool:
        """Whether a build failed because a program was of a machine that BuildKit cannot run."""
        return failure.vertex in self._of_other_machines


async def refuse_impossible(client: Client, wanted: Sequence[str]) -> None:
    """Refuse the platforms that can be refused before anything is built.

    Raises:
        UnsupportedPlatform: naming them, and what can be built.
    """
    odd = [platform for platform in wanted if not _possible(platform)]
    if odd:
        await refuse_unlisted(client, odd)


async def refuse_unlisted(client: Client, wanted: Sequence[str]) -> None:
    """Refuse the platforms that BuildKit does not list.

    Raises:
        UnsupportedPlatform: naming them, and what it lists.
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
    """A platform without its variant, under its proper name (containerd's `platforms`).

    `arm64` alone is Linux's, and `linux` alone is BuildKit's own, whose architecture is empty here.
    """
    system, slash, rest = platform.partition("/")
    if not slash and system != "linux":
        system, rest = "linux", system
    architecture = rest.partition("/")[0]
    return system, _OTHER_NAMES.get(architecture, architecture)
