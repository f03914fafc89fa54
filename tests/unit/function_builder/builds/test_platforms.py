import base64
import json
from collections.abc import Iterable

import pytest

from aiobuildkit import (
    BuildKitVersion,
    Client,
    ConnectionFailed,
    Platform,
    SolveError,
    SolveResult,
    StatusCode,
    StatusEvent,
    VertexLog,
    VertexStatus,
    WorkerInfo,
)
from function_builder.builds.platforms import (
    PlatformReport,
    UnsupportedPlatform,
    refuse_impossible,
    refuse_unlisted,
)

A, B, INDEX = ("sha256:" + digit * 64 for digit in "abc")


class BuildKit(Client):
    """One that lists what a kernel on amd64 runs, or nothing because it is away."""

    def __init__(self, *, away: bool = False) -> None:
        super().__init__("unix:///absent")
        self.away = away
        self.asked = 0

    async def list_workers(self, *, filters: Iterable[str] = ()) -> list[WorkerInfo]:
        self.asked += 1
        if self.away:
            raise ConnectionFailed("unix:///x", "away")
        platforms = (Platform("linux", "amd64"), Platform("linux", "amd64", "v2"))
        return [WorkerInfo("1", {}, platforms, BuildKitVersion("", "", ""))]


def exporting(*ids: str) -> StatusEvent:
    return StatusEvent(statuses=tuple(VertexStatus(id=each, vertex="v") for each in ids))


def solved(**platform: str) -> SolveResult:
    descriptor = base64.b64encode(json.dumps({"platform": platform}).encode()).decode()
    return SolveResult({"containerimage.digest": INDEX, "containerimage.descriptor": descriptor})


def test_manifests_are_told_in_the_order_of_the_platforms():
    report = PlatformReport()
    # A status is told when it begins and when it ends.
    report.observe(exporting("exporting layers", f"exporting manifest {A}", "exporting config x"))
    report.observe(exporting(f"exporting manifest {A}", f"exporting manifest {B}"))
    report.observe(exporting(f"exporting manifest list {INDEX}", f"pushing manifest for r@{INDEX}"))
    assert report.digests(["linux/amd64", "linux/arm64"], solved()) == {
        "linux/amd64": A,
        "linux/arm64": B,
    }


def test_what_an_attempt_before_exported_does_not_count():
    report = PlatformReport()
    report.observe(exporting(f"exporting manifest {A}", f"exporting manifest {B}"))
    report.begin()
    report.observe(exporting(f"exporting manifest {B}", f"exporting manifest {INDEX}"))
    assert report.digests(["linux/amd64", "linux/arm64"], solved()) == {
        "linux/amd64": B,
        "linux/arm64": INDEX,
    }


def test_one_platforms_digest_is_the_images_and_not_its_indexs():
    report = PlatformReport()
    report.observe(exporting(f"exporting manifest {A}", f"exporting attestation manifest {B}"))
    report.observe(exporting(f"exporting manifest list {INDEX}"))
    assert report.digests(["linux/arm64"], solved()) == {"linux/arm64": A}


def test_digests_that_cannot_be_told_apart_are_not_told():
    report = PlatformReport()
    report.observe(exporting(f"exporting manifest {A}"))
    assert report.digests(["linux/amd64", "linux/arm64"], solved()) == {}


def test_one_platforms_digest_is_the_images():
    assert PlatformReport().digests(["linux/arm64"], solved()) == {"linux/arm64": INDEX}
    own = solved(os="linux", architecture="arm", variant="v7")
    assert PlatformReport().digests([], own) == {"linux/arm/v7": INDEX}


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"containerimage.digest": INDEX},
        {"containerimage.digest": INDEX, "containerimage.descriptor": "?"},
        {"containerimage.digest": INDEX, "containerimage.descriptor": "e30="},
        {"containerimage.digest": INDEX, "containerimage.descriptor": "W10="},
    ],
)
def test_a_platform_that_was_not_said_is_not_guessed(response):
    assert PlatformReport().digests([], SolveResult(response)) == {}


def test_only_the_step_that_failed_is_judged_by_its_output():
    report = PlatformReport()
    report.observe(StatusEvent(logs=(VertexLog("one", 2, b"exec /bin/sh: exec format error\n"),)))
    for vertex, judged in [("one", True), ("two", False), (None, False)]:
        failure = SolveError(StatusCode.UNKNOWN, "exit code: 1", vertex=vertex)
        assert report.failed_on_another_machine(failure) is judged


@pytest.mark.parametrize(
    "platform",
    ["linux/amd64", "linux/arm64/v8", "linux/s390x", "linux", "arm64", "linux/aarch64", "x86_64"],
)
async def test_what_some_buildkit_runs_is_not_even_asked_about(platform):
    buildkit = BuildKit()
    await refuse_impossible(buildkit, [platform])
    assert buildkit.asked == 0


async def test_what_none_runs_is_refused_with_what_this_one_does():
    with pytest.raises(UnsupportedPlatform) as refusal:
        await refuse_impossible(BuildKit(), ["linux/arm64", "windows/amd64", "amiga"])
    assert str(refusal.value) == (
        "this builder cannot run the steps of windows/amd64, amiga: "
        "it can build for linux/amd64, linux/amd64/v2, and no emulator adds these"
    )


async def test_names_of_one_machine_are_one():
    await refuse_unlisted(BuildKit(), ["linux/x86_64", "amd64", "linux", "linux/amd64/v3"])
    with pytest.raises(UnsupportedPlatform, match=r"of aarch64:.*QEMU beside BuildKit adds"):
        await refuse_unlisted(BuildKit(), ["aarch64", "linux/amd64"])


async def test_a_buildkit_that_is_away_refuses_nothing_here():
    await refuse_impossible(BuildKit(away=True), ["windows/amd64"])
