import json
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from function_builder.cli import main
from function_builder.contract.secrets import SecretsKey
from tests.support import VECTORS
from tests.unit.function_builder.scripted_builder import SECRET, ScriptedBuilder, whole

BuilderThat = Callable[..., ScriptedBuilder]


@dataclass
class Run:
    code: int
    out: bytes
    err: str


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> Callable[..., Run]:
    """Run `function-builder secret` with these arguments, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["function-builder", "secret", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capfdbinary.readouterr()
        assert b"Traceback" not in captured.err
        return Run(int(ended.value.code or 0), captured.out, captured.err.decode())

    return command


def mode(file: str) -> int:
    return stat.S_IMODE(os.stat(file).st_mode)  # noqa: PTH116 (as short as it gets)


def test_what_is_sealed_opens(run) -> None:
    assert run("keygen").code == 0
    Path("ca.crt").write_bytes(b"line one\n\xff\x00")
    done = run("seal", "key.pub", "--from-literal", "token=a=b", "--from-file", "ca=ca.crt")
    assert done.code == 0
    assert done.out.startswith(b"Sealed 2 secret(s) to com.openfaas.secrets (key ID: ")
    assert run("unseal", "key").out == b"ca=line one\n\xff\x00\ntoken=a=b\n"
    assert run("unseal", "key", "--key", "ca").out == b"line one\n\xff\x00"
    assert json.loads(run("unseal", "key", "--json", "--key", "token").out) == {"token": "a=b"}
    assert json.loads(run("unseal", "key", "-j").out) == {
        "ca": "line one\n\ufffd\0",
        "token": "a=b",
    }


def test_who_may_read_the_files(run) -> None:
    assert run("keygen", "-o", "deep/er/mine").code == 0
    run("seal", "deep/er/mine.pub", "--from-literal", "a=b", "-o", "sealed")
    modes = [mode(file) for file in ("deep/er", "deep/er/mine", "deep/er/mine.pub", "sealed")]
    assert modes == [0o700, 0o600, 0o644, 0o600]


def test_a_key_is_never_overwritten(run) -> None:
    run("keygen")
    before = Path("key").read_bytes(), Path("key.pub").read_bytes()
    done = run("keygen")
    assert (done.code, done.out) == (1, b"")
    assert "key exists" in done.err
    assert (Path("key").read_bytes(), Path("key.pub").read_bytes()) == before


def test_the_answer_of_publickey_is_a_public_key(run) -> None:
    public = (VECTORS / "build-secrets.key.pub").read_text()
    Path("answer").write_text(json.dumps({"key_id": "ZDBir4Ug", "public_key": public}))
    done = run("seal", "answer", "--from-literal", "token=s3cr3t")
    assert done.out == b"Sealed 1 secret(s) to com.openfaas.secrets (key ID: ZDBir4Ug)\n"
    opened = run("unseal", VECTORS / "build-secrets.key", "--key", "token")
    assert opened.out == b"s3cr3t"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["seal", "key.pub"], "--from-literal or --from-file"),
        (["seal", "key.pub", "--from-literal", "canary"], "write NAME, an equals sign"),
        (["seal", "key.pub", "--from-literal", "=canary"], "write NAME, an equals sign"),
        (["seal", "key.pub", "--from-file", "name="], "write NAME, an equals sign"),
        (["seal", "key.pub", "--from-file", "name=absent"], "cannot read absent: No such file"),
        (["seal", "absent", "--from-literal", "a=canary"], "cannot read absent: No such file"),
        (["seal", "sealed", "--from-literal", "a=canary"], "a key must be base64 of 32 bytes"),
        (["seal", "list.json", "--from-literal", "a=canary"], "it holds no public_key"),
        (["seal", "key.pub", "--from-literal", "a=canary", "-o", "no/x"], "cannot write no/x"),
        (["unseal", "sealed", "--in", "sealed"], "sealed: a key must be base64 of 32 bytes"),
        (["unseal", "key", "--in", "absent"], "cannot read absent"),
        (["unseal", "key", "--in", "key"], "must be a YAML mapping"),
        (["unseal", "key", "--in", "sealed", "--key", "b"], "sealed holds no secret b"),
        (["keygen", "-o", "key/mine"], "cannot write"),
    ],
)
def test_what_is_wrong_is_said(run, arguments: list[str], said: str) -> None:
    run("keygen")
    Path("list.json").write_text("[]")
    run("seal", "key.pub", "--from-literal", "a=1", "-o", "sealed")
    done = run(*arguments)
    assert done.code > 0
    assert done.out == b""
    # Help and errors are set in frames, which break lines.
    words = " ".join(word for word in done.err.split() if word not in "│╭╰─╮╯")
    assert said in words
    assert "canary" not in words


def test_another_key_is_told_by_its_id(run) -> None:
    run("keygen", "-o", "old")
    run("keygen", "-o", "new")
    run("seal", "old.pub", "--from-literal", "token=s3cr3t")
    done = run("unseal", "new")
    assert done.code == 1
    assert Path("old.pub").read_text()[:8] in done.err
    assert Path("new.pub").read_text()[:8] in done.err
    assert '"token"' in done.err


def test_a_builders_key_is_written_only_if_the_payload_secret_signed_it(
    run, builder_that: BuilderThat
) -> None:
    builder = builder_that(whole(status="success"))
    builder.public_key = SecretsKey.generate().public
    Path("payload").write_bytes(SECRET + b"\n")
    arguments = ["public-key", "--url", builder.url, "--payload-secret", "payload"]
    assert run(*arguments).out.decode() == builder.public_key + "\n"
    assert run(*arguments, "-o", "key.pub").code == 0
    assert Path("key.pub").read_text() == builder.public_key
    builder.signs = False
    refused = run(*arguments, "-o", "other.pub")
    assert refused.code == 1
    assert "the payload secret did not sign the public key" in refused.err
    assert not Path("other.pub").exists()
