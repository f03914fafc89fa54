"""Images for other platforms: what can be built, what is said of it, and what cannot."""

import json
import subprocess
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from function_builder.engine import find_tool
from tests.support.builders import RunningBuilder, running_builder
from tests.support.emulation import emulated_arm64
from tests.support.images import Image, pull
from tests.support.requests import headers, make_tar

pytestmark = pytest.mark.integration

BOTH = ["linux/amd64", "linux/arm64"]
INDEX = (
    "application/vnd.oci.image.index.v1+json,"
    "application/vnd.docker.distribution.manifest.list.v2+json"
)
"""BuildKit's own by default, and that of the older ones."""

BASE = "FROM scratch\nARG TARGETARCH\nCOPY --chmod=755 probe-$TARGETARCH /probe\n"
FUNCTION = 'FROM {}\nRUN ["/probe", "/machine"]\n'

NOT_HERE = "linux/ppc64"
"""A platform that BuildKit knows, and of which no emulator is set up here."""


def post(
    builder: RunningBuilder,
    files: Mapping[str, bytes | str],
    config: Mapping[str, Any],
    *,
    stream: bool = False,
):
    body = make_tar(files, config)
    sent = headers(body, stream=stream)
    return httpx2.post(
        f"{builder.url}/build", content=body, headers=sent, timeout=110, verify=False
    )


def built(builder: RunningBuilder, files: Mapping[str, bytes | str], **config) -> dict[str, Any]:
    """Build, hold it to success, and give the reply."""
    answer = post(builder, files, config)
    assert answer.status_code == 200, answer.text
    reply = answer.json()
    assert isinstance(reply, dict)
    return reply


@pytest.fixture
async def arm64_builder(fresh_buildkitd, tmp_path) -> AsyncIterator[RunningBuilder]:
    """A builder whose BuildKit runs arm64's programs too."""
    with emulated_arm64():
        daemon = await fresh_buildkitd()
        async with running_builder(tmp_path / "builder", daemon.address) as builder:
            yield builder


@pytest.fixture
def repository() -> str:
    """A repository of the test's own: the registry takes no index in the place of one that another
    BuildKit wrote in the older format."""
    return f"platforms/{uuid.uuid4().hex}"


@pytest.fixture
def base(arm64_builder, registry, repository) -> str:
    """An index, for both platforms, with a program that says on what machine it runs."""
    name = f"{registry}/{repository}/base:1"
    files = {
        f"probe-{arch}": find_tool(f"probe-{arch}").read_bytes() for arch in ("amd64", "arm64")
    }
    built(arm64_builder, {**files, "Dockerfile": BASE}, image=name, platforms=BOTH)
    return name


def machine_of(image: Image, root: Path) -> str:
    """Run an image's program, in a root directory made of its files."""
    root.mkdir()
    program = root / "probe"
    program.write_bytes(image.files["probe"].content)
    program.chmod(0o755)
    ran = subprocess.run(["chroot", root, "/probe"], check=True, capture_output=True, text=True)
    return ran.stdout.strip()


def test_an_index_is_built_pushed_and_run(arm64_builder, base, registry, repository, tmp_path):
    reply = built(
        arm64_builder,
        {"Dockerfile": FUNCTION.format(base)},
        image=f"{registry}/{repository}:1",
        platforms=BOTH,
    )
    url = f"http://{registry}/v2/{repository}/manifests/1"
    pulled = httpx2.get(url, headers={"Accept": INDEX}, timeout=60, verify=False)
    assert pulled.headers["docker-content-digest"] == reply["digest"]
    index = {
        f"{each['platform']['os']}/{each['platform']['architecture']}": each["digest"]
        for each in pulled.json()["manifests"]
    }
    assert reply["digests"] == index
    assert list(index) == BOTH
    for platform, machine in zip(BOTH, ["x86_64", "aarch64"], strict=True):
        image = pull(registry, repository, index[platform])
        assert image.config["architecture"] == platform.removeprefix("linux/")
        # Its step ran on that machine, and what was built runs on it.
        assert image.text("machine").strip() == machine
        assert machine_of(image, tmp_path / machine) == machine


@pytest.mark.parametrize("stream", [False, True])
def test_one_platform_has_the_images_own_digest(arm64_builder, base, registry, repository, stream):
    answer = post(
        arm64_builder,
        {"Dockerfile": FUNCTION.format(base)},
        {"image": f"{registry}/{repository}:1", "platforms": ["linux/arm64"]},
        stream=stream,
    )
    reply = json.loads(answer.content.splitlines()[-1])
    assert reply["status"] == "success"
    assert reply["digests"] == {"linux/arm64": reply["digest"]}
    image = pull(registry, repository, reply["digest"])
    assert image.text("machine").strip() == "aarch64"


def test_without_platforms_it_is_buildkits_own(builder, registry):
    reply = built(builder, {"Dockerfile": "FROM busybox\n"}, image=f"{registry}/platforms/own:1")
    config = pull(registry, "platforms/own", "1").config
    assert reply["digests"] == {f"linux/{config['architecture']}": reply["digest"]}


@pytest.mark.parametrize("platforms", [[], ["linux/amd64"], BOTH])
def test_an_image_with_attestations_has_its_own_digest(builder, registry, repository, platforms):
    reply = built(
        builder,
        {"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"},
        image=f"{registry}/{repository}:1",
        platforms=platforms,
        buildArgs={"BUILDKIT_ATTEST_PROVENANCE": "mode=max"},
    )
    url = f"http://{registry}/v2/{repository}/manifests/1"
    pulled = httpx2.get(url, headers={"Accept": INDEX}, timeout=60, verify=False)
    assert pulled.headers["docker-content-digest"] == reply["digest"]
    images = {
        f"{each['platform']['os']}/{each['platform']['architecture']}": each["digest"]
        for each in pulled.json()["manifests"]
    }
    # Each image has an attestation beside it, of a platform that there is not.
    assert images.pop("unknown/unknown")
    assert len(images) == max(len(platforms), 1)
    # BuildKit says of no index whose it is, so that its own platform's name is not known.
    assert reply.get("digests") == (images if platforms else None)


def test_what_runs_nothing_on_the_target_is_built_for_any(builder, registry):
    dockerfile = """
FROM --platform=$BUILDPLATFORM busybox AS compiler
ARG TARGETARCH
RUN echo for $TARGETARCH > /program
FROM scratch
COPY --from=compiler /program /
"""
    reply = built(
        builder,
        {"Dockerfile": dockerfile},
        image=f"{registry}/platforms/cross:1",
        platforms=["linux/riscv64", NOT_HERE],
    )
    for platform, digest in reply["digests"].items():
        architecture = platform.removeprefix("linux/")
        image = pull(registry, "platforms/cross", digest)
        assert image.config["architecture"] == architecture
        assert image.text("program") == f"for {architecture}\n"


FOREIGN: Mapping[str, bytes | str] = {
    "Dockerfile": 'FROM scratch\nCOPY --chmod=755 program /\nRUN ["/program"]\n',
    "program": b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xff\xff" + bytes(100),
}
"""A step whose program is of no machine that there is."""


@pytest.mark.parametrize("stream", [False, True])
def test_a_platform_whose_steps_cannot_be_run_is_named_with_those_that_can(builder, stream):
    config = {"skipPush": True, "platforms": ["linux/amd64", NOT_HERE]}
    answer = post(builder, FOREIGN, config, stream=stream)
    assert answer.status_code == (200 if stream else 400)
    reply = json.loads(answer.content.splitlines()[-1])
    assert reply["status"] == "failed"
    assert reply["error"].startswith(
        f"this builder cannot run the steps of {NOT_HERE}: it can build for linux/"
    )
    assert "exec format error" in answer.text


def test_a_wrong_program_for_a_platform_that_can_be_built_is_the_builds_own_failure(builder):
    answer = post(builder, FOREIGN, {"skipPush": True})
    assert answer.status_code == 500
    assert answer.json()["error"].startswith('failed to solve: process "/program" did not')


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("platform", ["windows/amd64", "linux/vax", "amiga"])
def test_what_no_buildkit_runs_is_refused_before_the_build(builder, platform, stream):
    answer = post(
        builder,
        {"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"},
        {"skipPush": True, "platforms": ["linux/amd64", platform]},
        stream=stream,
    )
    assert answer.status_code == 400
    reply = answer.json()
    assert reply["status"] == "failed"
    assert reply["error"].startswith(
        f"this builder cannot run the steps of {platform}: it can build for linux/"
    )
    assert "log" not in reply
