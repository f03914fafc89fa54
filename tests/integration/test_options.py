"""The config's keys that come from `docker build`: what is in the registry afterwards."""

import asyncio
import io
import json
import re
import tarfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio

from function_builder.builds import cache_mounts
from function_builder.server.keys import trust_domain
from tests.support.builders import RunningBuilder, running_builder
from tests.support.images import blob, manifest, pull
from tests.support.requests import headers

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def builder(buildkitd: str, tmp_path_factory, registry: str) -> AsyncIterator[RunningBuilder]:
    """A builder that allows caches and images as contexts."""
    root: Path = tmp_path_factory.mktemp("options")
    async with running_builder(
        root,
        buildkitd,
        insecure="true",
        allowed_caches=f"{registry}/options/caches",
        allowed_context_images=f"{registry}/options/contexts",
        cache_registry=f"{registry}/kept",
    ) as running:
        yield running


@pytest.fixture
def name() -> str:
    """A repository of the test's own."""
    return f"options/{uuid4().hex[:12]}"


def tar(files: Mapping[str, str], config: Mapping[str, Any], mtime: int = 1_700_000_000) -> bytes:
    """A request's body; files by their path in the archive."""
    entries = {**files, "com.openfaas.docker.config": json.dumps(config)}
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for path, content in entries.items():
                info = tarfile.TarInfo(path)
                info.size, info.mtime = len(content.encode()), mtime
                archive.addfile(info, io.BytesIO(content.encode()))
        return buffer.getvalue()


def build(builder: RunningBuilder, files: Mapping[str, str], **config: Any) -> dict[str, Any]:
    """Build, and hold the build to success."""
    status, answer = send(builder, files, config)
    assert (status, answer["status"]) == (200, "success"), answer
    return answer


def send(
    builder: RunningBuilder, files: Mapping[str, str], config: Mapping[str, Any]
) -> tuple[int, dict[str, Any]]:
    body = tar(files, config)
    answer = httpx2.post(
        f"{builder.url}/build",
        content=body,
        headers=headers(body),
        timeout=110,
        trust_env=False,
        verify=False,
    )
    return answer.status_code, answer.json()


def refused(builder: RunningBuilder, config: Mapping[str, Any], dockerfile: str = "FROM scratch"):
    """The reason of a refusal."""
    files = {"context/Dockerfile": dockerfile, "lib/Dockerfile": "FROM scratch"}
    status, answer = send(builder, files, {"image": "r.invalid/a:1", **config})
    assert status == 400, answer
    assert "log" not in answer
    return answer["error"]


def test_a_stage_of_a_named_dockerfile_is_built_labelled_and_pushed_under_several_names(
    builder, registry, name
):
    files = {
        "context/docker/My Containerfile.ü": "FROM scratch AS test\nCOPY . /\n"
        "FROM scratch\nCOPY Dockerfile /final\n",
        "context/docker/My Containerfile.ü.dockerignore": "secret\n",
        "context/.dockerignore": "kept\n",
        "context/secret": "1",
        "context/kept": "2",
        "context/Dockerfile": "FROM nowhere.invalid/image",
    }
    answer = build(
        builder,
        files,
        image=f"{registry}/{name}:1",
        TAGS=[f"{registry}/{name}:2", f"{registry}/{name}/Other:3", f"{registry}/{name}:1"],
        dockerfile="./docker//My Containerfile.ü",
        Target="TEST",
        labels={"org.example.team": "x, y", "lines": "a\nb"},
        annotations={"org.example.note": "one", "manifest:org.example.more": "two, three"},
    )
    for repository, tag in ((name, "1"), (name, "2"), (f"{name}/other", "3")):
        image = pull(registry, repository, tag)
        assert image.digest == answer["digest"]
    assert "kept" in image.files
    assert "secret" not in image.files
    assert "final" not in image.files
    assert image.config["config"]["Labels"] == {"org.example.team": "x, y", "lines": "a\nb"}
    assert manifest(registry, name, "1")["annotations"] == {
        "org.example.note": "one",
        "org.example.more": "two, three",
    }


@pytest.mark.parametrize("ignored", [True, False])
def test_the_one_ignore_file_counts_where_the_dockerfile_has_none_of_its_own(
    builder, registry, name, ignored
):
    files = {
        "context/docker/Containerfile": "FROM scratch\nCOPY . /\n",
        "context/secret": "1",
        "context/Dockerfile.dockerignore": "docker\n",
    } | ({"context/.dockerignore": "secret\n"} if ignored else {})
    build(builder, files, image=f"{registry}/{name}:1", dockerfile="docker/Containerfile")
    image = pull(registry, name, "1")
    assert ("secret" in image.files) is not ignored
    assert "docker/Containerfile" in image.files


def test_no_cache_runs_all_stages_or_those_named_anew(builder, registry, name):
    step = "cat /proc/sys/kernel/random/uuid"
    dockerfile = (
        f"FROM busybox AS one\nARG N\nRUN {step} >/one\n"
        f"FROM busybox AS two\nARG N\nRUN {step} >/two\n"
        "FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n"
    )

    def built(**config: Any) -> tuple[str, str]:
        files = {"context/Dockerfile": dockerfile}
        args = {"N": name}
        build(builder, files, image=f"{registry}/{name}:1", buildArgs=args, **config)
        image = pull(registry, name, "1")
        return image.text("one"), image.text("two")

    first = built()
    assert built(noCache=False, pull=True) == first
    second = built(noCache=["TWO"])
    assert (second[0] == first[0], second[1] == first[1]) == (True, False)
    third = built(noCache=True)
    assert third[0] != first[0]
    assert third[1] != second[1]


def test_steps_have_the_hosts_the_memory_and_the_limits_asked_for(builder, registry, name):
    run = "RUN cat /etc/hosts >/hosts; df -k /dev/shm >/shm; ulimit -n >/soft; ulimit -Hn >/hard"
    build(
        builder,
        {"context/Dockerfile": f"FROM busybox\nENV N={name}\n{run}\n"},
        image=f"{registry}/{name}:1",
        addHosts=["db.internal=10.1.2.3", "six:fd00::1"],
        shmSize="20m",
        ulimits=["nofile=1000:1001"],
    )
    image = pull(registry, name, "1")
    hosts = [line.split() for line in image.text("hosts").splitlines()]
    assert ["10.1.2.3", "db.internal"] in hosts
    assert ["fd00::1", "six"] in hosts
    assert "20480" in image.text("shm")
    assert (image.text("soft"), image.text("hard")) == ("1000\n", "1001\n")


@pytest.mark.parametrize(("oci", "kind"), [(True, "vnd.oci.image"), (False, "vnd.docker")])
def test_media_types_are_those_asked_for(builder, registry, name, oci, kind):
    files = {"context/Dockerfile": "FROM scratch\nCOPY f /f\n", "context/f": "1"}
    build(builder, files, image=f"{registry}/{name}:1", ociMediaTypes=oci)
    found = manifest(registry, name, "1")
    kinds = [found["mediaType"], found["config"]["mediaType"], found["layers"][0]["mediaType"]]
    assert all(kind in each for each in kinds), kinds


def test_layers_are_compressed_as_asked(builder, registry, name):
    def layers(tag: str, **asked: Any) -> Any:
        # A layer that BuildKit has compressed before keeps its compression.
        files = {"context/Dockerfile": "FROM busybox\nCOPY f /f\n", "context/f": name + tag}
        build(builder, files, image=f"{registry}/{name}:{tag}", **asked)
        return manifest(registry, name, tag)["layers"]

    default = layers("1")
    faster = layers("2", compression="zstd", compressionLevel=3)
    assert default[1]["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    assert faster[1]["mediaType"] == "application/vnd.oci.image.layer.v1.tar+zstd"
    assert faster[0] == default[0], "the base image's layer was changed"
    whole = layers("3", compression="uncompressed", ociMediaTypes=False)
    assert whole[1]["mediaType"] == "application/vnd.docker.image.rootfs.diff.tar"
    seekable = layers("4", compression="estargz")
    assert "containerd.io/snapshot/stargz/toc.digest" in seekable[1]["annotations"]


def test_times_are_rewritten_where_that_is_asked_for(builder, registry, name):
    files = {"context/Dockerfile": "FROM scratch\nCOPY f /f\n", "context/f": name}
    args = {"SOURCE_DATE_EPOCH": "1000000000"}
    image = f"{registry}/{name}"
    build(builder, files, image=f"{image}:1", buildArgs=args)
    build(builder, files, image=f"{image}:2", buildArgs=args, rewriteTimestamp=True)
    assert pull(registry, name, "1").files["f"].mtime == 1_700_000_000
    assert pull(registry, name, "2").files["f"].mtime == 1_000_000_000


def test_annotations_go_to_the_index_and_to_one_platform(builder, registry, name):
    build(
        builder,
        {"context/Dockerfile": "FROM scratch\nCOPY f /f\n", "context/f": "1"},
        image=f"{registry}/{name}:1",
        platforms=["linux/amd64", "linux/arm64"],
        annotations={
            "index:a": "on the index",
            "manifest[linux/arm64]:b": "on arm64",
            "c": "on both",
            "manifest-descriptor[linux/amd64]:d": "beside amd64",
        },
    )
    index = manifest(registry, name, "1")
    assert index["annotations"] == {"a": "on the index"}
    amd64, arm64 = index["manifests"]
    assert amd64["annotations"] == {"d": "beside amd64"}
    assert manifest(registry, name, amd64["digest"])["annotations"] == {"c": "on both"}
    assert manifest(registry, name, arm64["digest"])["annotations"] == {
        "b": "on arm64",
        "c": "on both",
    }


def statements(registry: str, name: str, tag: str = "1") -> dict[str, Any]:
    """What is attested of an image, by its kind."""
    (attested,) = (
        each
        for each in manifest(registry, name, tag)["manifests"]
        if each["platform"]["architecture"] == "unknown"
    )
    layers = manifest(registry, name, attested["digest"])["layers"]
    found = [json.loads(blob(registry, name, layer["digest"])) for layer in layers]
    return {each["predicateType"]: each["predicate"] for each in found}


@pytest.mark.parametrize("level", ["min", "max"])
def test_provenance_tells_of_build_arguments_at_its_most_alone(builder, registry, name, level):
    files = {"context/Dockerfile": "FROM scratch\nARG A\nCOPY f /f\n", "context/f": "1"}
    build(
        builder,
        files,
        image=f"{registry}/{name}:1",
        buildArgs={"A": f"value-{name}"},
        attest={"provenance": level},
    )
    (found,) = statements(registry, name).values()
    assert (f"value-{name}" in json.dumps(found)) is (level == "max")


async def test_provenance_does_not_name_what_opens_cache_mounts(
    tmp_path, buildkitd, registry, name
):
    """It is pushed with the image; a namespace that is in it is not used again."""
    files = {
        "context/Dockerfile": f"FROM busybox\nRUN --mount=type=cache,id={name},target=/c "
        "echo made >> /c/f; cat /c/f >> /seen\n"
    }
    proxies = {"http_proxy": "http://user:proxy-password@127.0.0.1:9", "no_proxy": "127.0.0.1"}

    def namespace(number: int) -> str:
        (found,) = statements(registry, name, str(number)).values()
        (of,) = re.findall(r'"build-arg:BUILDKIT_CACHE_MOUNT_NS": "(\w+)"', json.dumps(found))
        return str(of)

    async with running_builder(tmp_path / "b", buildkitd, insecure="true") as builder:
        for number in (1, 2):
            attest = {"provenance": "max"}
            await asyncio.to_thread(
                build, builder, files, image=f"{registry}/{name}:{number}", attest=attest
            )
    assert namespace(1) != namespace(2)
    image = manifest(registry, name, "2")["manifests"][0]["digest"]
    assert pull(registry, name, image).text("seen") == "made\n"
    async with running_builder(tmp_path / "p", buildkitd, insecure="true", **proxies) as builder:
        image = f"{registry}/{name}:3"
        body = tar(files, {"image": image, "attest": {"provenance": "max"}})
        refused = await asyncio.to_thread(
            httpx2.post, f"{builder.url}/build", content=body, headers=headers(body), timeout=60
        )
        assert (refused.status_code, "proxy-password" in refused.text) == (400, False)
        await asyncio.to_thread(build, builder, files, image=image, attest={"provenance": "min"})
    assert "proxy-password" not in json.dumps(statements(registry, name, "3"))


def test_an_image_does_not_name_what_opens_cache_mounts(builder, registry, name):
    """Its history has the arguments that a Dockerfile or a base image declares."""

    def pushed(tag: str, dockerfile: str) -> str:
        files = {"context/Dockerfile": f"# {uuid4()}\n{dockerfile}"}
        build(builder, files, image=f"{registry}/{name}:{tag}", attest={"provenance": "min"})
        index = manifest(registry, name, tag)
        image = pull(registry, name, index["manifests"][0]["digest"])
        return json.dumps([image.config, statements(registry, name, tag)])

    mount = f"RUN --mount=type=cache,id={name},target=/c echo made >> /c/f\n"
    domain = trust_domain((builder.secrets / "payload-secret").read_bytes())
    kept = cache_mounts.namespace(domain, kept=True)
    pushed("base", "FROM busybox\nONBUILD ARG BUILDKIT_CACHE_MOUNT_NS\n")
    published = set()
    for number, dockerfile in enumerate(
        [
            f"FROM busybox\nARG BUILDKIT_CACHE_MOUNT_NS\n{mount}",
            f"FROM busybox\nARG BUILDKIT_CACHE_MOUNT_NS\n{mount}",
            f"FROM {registry}/{name}:base\nRUN : > /f\n",
            f"FROM {registry}/{name}:base\nRUN : > /f\n",
        ]
    ):
        said = pushed(str(number), dockerfile)
        assert kept not in said
        published |= set(re.findall(r"ARG BUILDKIT_CACHE_MOUNT_NS=(\w+)", said))
    assert len(published) == 4
    assert kept not in pushed("mount", f"FROM busybox\n{mount}")


def test_a_folder_of_the_tar_is_a_context_whose_content_is_always_the_requests(
    builder, registry, name
):
    dockerfile = (
        "FROM scratch\nCOPY f /f\nCOPY --from=lib . /lib\nCOPY --from=docker.io/other:1 f /other\n"
    )
    # Of equal size and time: content alone tells one from the other.
    for content in ("one", "two", "one", "six"):
        build(
            builder,
            {
                "context/Dockerfile": dockerfile,
                "context/f": f"{content}-main",
                "shared/f": f"{content}-lib-",
                "shared/left-out": "",
                "shared/.dockerignore": "left-out\n",
                "z/f": f"{content}-othr",
                "unused/f": "",
            },
            image=f"{registry}/{name}:1",
            contexts={"lib": "shared", "index.docker.io/library/other:1": "z"},
        )
        image = pull(registry, name, "1")
        assert image.text("f") == f"{content}-main"
        assert image.text("lib/f") == f"{content}-lib-"
        assert image.text("other") == f"{content}-othr"
        assert "lib/left-out" not in image.files


def test_of_a_folder_only_changed_files_travel_again(builder, registry, name):
    def requested(*changed: str) -> float:
        """How many files BuildKit asks for, Dockerfiles and ignore files included."""
        before: float = builder.metric("context_requested_files_total")
        files = {f"shared/{number}": name for number in range(50)}
        build(
            builder,
            {
                "context/Dockerfile": "FROM scratch\nCOPY --from=lib . /\n",
                **files,
                **dict.fromkeys(changed, "changed"),
            },
            image=f"{registry}/{name}:1",
            contexts={"lib": "shared"},
        )
        after: float = builder.metric("context_requested_files_total")
        return after - before

    assert requested() >= 50
    assert requested() < 10
    assert requested("shared/7", "shared/8") < 10
    assert pull(registry, name, "1").text("7") == "changed"


def test_an_image_takes_the_place_of_a_base(builder, registry, name):
    context = f"{registry}/options/contexts/base:1"
    base = {"context/Dockerfile": "FROM scratch\nCOPY f /f\n", "context/f": name}
    digest = build(builder, base, image=context)["digest"]
    for source in (context, f"{context}@{digest}"):
        files = {"context/Dockerfile": "FROM alpine:3\nLABEL a=b\n"}
        build(
            builder,
            files,
            image=f"{registry}/{name}:1",
            contexts={"docker.io/library/alpine:3": f"docker-image://{source}"},
        )
        assert pull(registry, name, "1").text("f") == name


async def test_a_cache_is_left_and_taken(builder, registry, name, fresh_buildkitd, tmp_path):
    cache = f"{registry}/options/caches/{name}:1"
    step = "cat /proc/sys/kernel/random/uuid >/id"
    files = {
        "context/Dockerfile": f"FROM busybox AS one\nARG N\nRUN {step}\n"
        "FROM scratch\nCOPY --from=one /id /\n"
    }
    request = {"buildArgs": {"N": name}}
    build(
        builder,
        files,
        image=f"{registry}/{name}:1",
        cacheTo=[f"type=registry,ref={cache},mode=max"],
        **request,
    )
    daemon = await fresh_buildkitd()
    async with running_builder(
        tmp_path / "other", daemon.address, insecure="true", allowed_caches=registry
    ) as other:
        build(other, files, image=f"{registry}/{name}:2", cacheFrom=[cache], **request)
    assert pull(registry, name, "2").text("id") == pull(registry, name, "1").text("id")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"cacheFrom": ["r.invalid/other:1"]}, "allowed_caches"),
        ({"cacheTo": ["type=registry,ref=r.invalid/other:1"]}, "allowed_caches"),
        ({"cacheFrom": ["{registry}/options/caches-of-others/a:1"]}, "allowed_caches"),
        ({"cacheFrom": ["{registry}/kept/0123456789:cache"]}, "allowed_caches"),
        ({"contexts": {"a": "docker-image://r.invalid/other:1"}}, "allowed_context_images"),
        ({"contexts": {"docker/dockerfile:1": "lib"}}, "reads Dockerfiles"),
        ({"contexts": {"docker.io/docker/dockerfile": "lib"}}, "reads Dockerfiles"),
        ({"contexts": {"index.docker.io/docker/dockerfile:1": "lib"}}, "reads Dockerfiles"),
        ({"contexts": {"a": "nowhere"}}, "has no"),
        ({"dockerfile": "nowhere"}, 'has no "nowhere"'),
        ({"dockerfile": "../lib/Dockerfile"}, "inside the context"),
    ],
)
def test_what_may_not_be_named_is_refused(builder, registry, config, reason):
    text = json.dumps(config).replace("{registry}", registry)
    assert reason in refused(
        builder, json.loads(text), "# syntax=docker/dockerfile:1\nFROM scratch"
    )
