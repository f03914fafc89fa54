"""Build secrets, sealed by faas-cli and by us, opened by either and by a builder."""

import re
import shutil
import sys
from pathlib import Path

import httpx2
import pytest
import yaml

from tests.integration.clients.programs import run
from tests.support import VECTORS, until
from tests.support.builders import RunningBuilder
from tests.support.images import pull
from tests.support.requests import headers, make_tar

pytestmark = pytest.mark.integration

FAAS_CLI = ("faas-cli", "secret")
OURS = (sys.executable, "-m", "function_builder", "secret")

NAMES = ("pip_token", "ca.crt", "with-dash", "yes", "1", "UPPER")
BOTH_WAYS = pytest.mark.parametrize(
    ("one", "other"), [(FAAS_CLI, OURS), (OURS, FAAS_CLI)], ids=["theirs-ours", "ours-theirs"]
)


async def succeed(*command: str, directory: Path) -> str:
    outcome = await run(command, directory=directory)
    assert outcome.code == 0, outcome.output
    return outcome.output


@BOTH_WAYS
async def test_what_one_seals_the_other_opens(one, other, tmp_path):
    (tmp_path / "ca").write_bytes(b"line one\nline two\n")
    await succeed(*one, "keygen", "-o", "keys/mine", directory=tmp_path)
    sealing = ("seal", "keys/mine.pub", "--from-literal", "token=a=b", "--from-file", "ca=ca")
    await succeed(*other, *sealing, directory=tmp_path)
    opening = ("unseal", "keys/mine")
    for words in ((), ("--json",), ("--key", "ca"), ("--key", "token", "--json")):
        theirs = await succeed(*one, *opening, *words, directory=tmp_path)
        ours = await succeed(*other, *opening, *words, directory=tmp_path)
        # faas-cli prints secrets in any order.
        assert sorted(theirs.splitlines()) == sorted(ours.splitlines())
        assert "a=b" in theirs or "line two" in theirs


async def test_the_files_are_alike_to_the_byte(tmp_path):
    """But for what chance decides, which has the same length in both."""
    files = []
    values = [word for name in NAMES for word in ("--from-literal", f"{name}=value-of-{name}")]
    for folder, command in (("theirs", FAAS_CLI), ("ours", OURS)):
        directory = tmp_path / folder
        directory.mkdir()
        said = await succeed(*command, "keygen", directory=directory)
        said += await succeed(*command, "seal", "key.pub", *values, directory=directory)
        contents = {path.name: path.read_text() for path in sorted(directory.iterdir())}
        modes = {path.name: path.stat().st_mode for path in sorted(directory.iterdir())}
        files.append((without_chance(said), list(map(without_chance, contents.values())), modes))
        assert contents["key.pub"].startswith(key_id(said))
    assert files[0] == files[1]


def without_chance(text: str) -> str:
    text = re.sub(r"[A-Za-z0-9+/]{43,}={0,2}", lambda found: f"<{len(found[0])} of base64>", text)
    # A key's id may look like a number, and is quoted then.
    return re.sub(r'(key ID: |Key ID: +|key_id: )"?[A-Za-z0-9+/]{8}"?', r"\1<id>", text)


def key_id(said: str) -> str:
    found = re.search(r"Key ID: +(\S+)", said)
    assert found is not None
    return found[1]


@BOTH_WAYS
async def test_another_key_does_not_open(one, other, tmp_path):
    await succeed(*one, "keygen", "-o", "old", directory=tmp_path)
    await succeed(*other, "keygen", "-o", "new", directory=tmp_path)
    await succeed(*one, "seal", "old.pub", "--from-literal", "a=canary", directory=tmp_path)
    outcome = await run((*other, "unseal", "new"), directory=tmp_path)
    assert outcome.code == 1
    assert "canary" not in outcome.output


@pytest.fixture
def project(tmp_path: Path, image: str) -> Path:
    """A function whose build needs a secret, and tells its length and a digest."""
    root = tmp_path / "project"
    (root / "template" / "shell").mkdir(parents=True)
    (root / "template" / "shell" / "template.yml").write_text("language: shell\nfprocess: sh\n")
    (root / "template" / "shell" / "Dockerfile").write_text(
        f"FROM busybox\nRUN --mount=type=secret,id=token : {image};"
        " sha256sum </run/secrets/token >/digest; cat /run/secrets/token\n"
    )
    (root / "fn").mkdir()
    (root / "fn" / "handler.sh").write_text(":\n")
    (root / "token").write_text("tok-123-canary")
    function = {
        "lang": "shell",
        "handler": "./fn",
        "image": image,
        "build_secrets": {"token": "./token"},
    }
    (root / "stack.yaml").write_text(
        yaml.safe_dump(
            {"version": 1.0, "provider": {"name": "openfaas"}, "functions": {"fn": function}}
        )
    )
    return root


DIGEST = "3d1be468e3ad3f92e2ad12dc489947c81046b82d846b55b37ed54174407b7a92"


@pytest.mark.parametrize("key", ["fetched", "a file", "an answer's file", "a literal"])
async def test_faas_cli_brings_its_secrets(key, builder, registry, project: Path, image):
    public = (VECTORS / "build-secrets.key.pub").read_text()
    answer = builder.get("/publickey").text
    file = project / "public"
    file.write_text(answer if key == "an answer's file" else public)
    option = {
        "fetched": (),
        "a file": ("--builder-public-key", str(file)),
        "an answer's file": ("--builder-public-key", str(file)),
        "a literal": ("--builder-public-key", public.strip()),
    }[key]
    outcome = await run(
        ("faas-cli", "publish", "-f", "stack.yaml", *option), builder, directory=project
    )
    assert outcome.code == 0, outcome.output
    assert_secret_was_used(registry, image)
    assert "canary" not in outcome.output
    assert "***" in outcome.output


def assert_secret_was_used(registry: str, image: str) -> None:
    repository, _, tag = image.removeprefix(registry + "/").rpartition(":")
    assert pull(registry, repository, tag).text("digest") == f"{DIGEST}  -\n"


@pytest.mark.parametrize("way", [(), ("-plain",)], ids=["streamed", "plain"])
async def test_the_go_sdk_brings_its_secrets(way, builder, registry, project: Path, image):
    context = project / "template" / "shell"
    outcome = await run(
        ("go-sdk-client", *way, "-secret", f"token={project / 'token'}", str(context), image),
        builder,
    )
    assert outcome.code == 0, outcome.output
    assert_secret_was_used(registry, image)
    assert "canary" not in outcome.output


async def test_another_builders_key_is_told(builder, project: Path):
    await succeed(*OURS, "keygen", "-o", "other", directory=project)
    outcome = await run(
        ("faas-cli", "publish", "-f", "stack.yaml", "--builder-public-key", "other.pub"),
        builder,
        directory=project,
    )
    # faas-cli 0.18 panics on any refusal of a build with secrets; the builder's log tells why.
    assert outcome.code != 0
    other = (project / "other.pub").read_text()[:8]
    await until(lambda: f'sealed for key \\"{other}\\"' in builder.log.read_text())


async def test_a_builder_without_a_key_says_so(wide_builder, project: Path):
    outcome = await run(
        ("faas-cli", "publish", "-f", "stack.yaml"), wide_builder, directory=project
    )
    assert outcome.code != 0
    assert "status code 404: " in outcome.output
    assert "this builder has no key for build secrets" in outcome.output


def send(builder: RunningBuilder, envelope: bytes) -> httpx2.Response:
    body = make_tar(
        {"Dockerfile": "FROM busybox\nRUN --mount=type=secret,id=token cat /run/secrets/token\n"},
        {"skipPush": True},
        secrets=envelope,
    )
    return httpx2.post(
        builder.url + "/build", content=body, headers=headers(body), timeout=60, verify=False
    )


async def test_the_key_rotates_without_a_restart(builder, tmp_path: Path):
    """What was sealed to the old key is refused, with both keys' ids; the new one is served."""
    await succeed(*OURS, "keygen", "-o", "new", directory=tmp_path)
    shutil.copy(VECTORS / "build-secrets.key.pub", tmp_path / "old.pub")
    for name in ("old", "new"):
        command = ("seal", f"{name}.pub", "--from-literal", "token=canary", "-o", f"{name}.sealed")
        await succeed(*FAAS_CLI, *command, directory=tmp_path)
    old, new = ((tmp_path / f"{name}.sealed").read_bytes() for name in ("old", "new"))
    public = (tmp_path / "new.pub").read_text()

    assert send(builder, old).status_code == 200
    key = builder.secrets.parent.parent / "key"
    before = key.read_bytes()
    key.write_bytes((tmp_path / "new").read_bytes())
    try:
        for path in ("/publickey", "/public-key"):
            assert builder.get(path).json() == {
                "key_id": public[:8],
                "algorithm": "nacl/box",
                "public_key": public,
            }
        refused = send(builder, old)
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert "ZDBir4Ug" in error
        assert public[:8] in error
        assert '"token"' in error
        assert "canary" not in error
        assert send(builder, new).status_code == 200
    finally:
        key.write_bytes(before)
