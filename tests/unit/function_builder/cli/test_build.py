import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from function_builder.cli import main
from tests.support import free_address
from tests.unit.function_builder.scripted_builder import (
    SECRET,
    ScriptedBuilder,
    busy,
    last,
    progress,
    refusing,
    streamed,
    whole,
)

BuilderThat = Callable[..., ScriptedBuilder]
IMAGE = "127.0.0.1:5000/hello:1"
DIGEST = "sha256:" + "ab" * 32
LOG = ("v: 2025-06-13T20:16:16Z RUN echo hello", "l: 2025-06-13T20:16:16Z hello")
SUCCESS = streamed(progress(*LOG), last("success", image=IMAGE, digest=DIGEST))


@dataclass
class Run:
    code: int
    out: str
    err: str


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_bytes(SECRET + b"\n")
    return file


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Run]:
    """Run `function-builder build` with these arguments, in a directory without a `.run`."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENFAAS_REMOTE_BUILDER", "OPENFAAS_PAYLOAD_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def command(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["function-builder", "build", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Run(int(ended.value.code or 0), captured.out, captured.err)

    return command


def entry_of(body: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        file = archive.extractfile(name)
        assert file is not None
        return file.read()


def test_the_image_is_all_of_standard_output(
    run, builder_that: BuilderThat, hello: Path, secret: Path
) -> None:
    builder = builder_that(SUCCESS)
    done = run(hello, "--image", IMAGE, "--url", builder.url, "--payload-secret", secret)
    assert (done.code, done.out) == (0, f"{IMAGE}@{DIGEST}\n")
    assert done.err.splitlines() == ["RUN echo hello", "  hello", "Built in 1.5s"]


def test_what_is_not_sent_is_told_once(
    run, builder_that: BuilderThat, hello: Path, secret: Path
) -> None:
    """A context of this size is looked through twice: for its manifest, and to send all of it."""
    (hello / ".dockerignore").write_text("node_modules\n.git\n*.log\n")
    for name in (".git/a", "node_modules/b", "c.log", "large"):
        (hello / name).parent.mkdir(exist_ok=True)
        (hello / name).write_bytes(bytes(300_000))
    url = builder_that(SUCCESS).url
    done = run(hello, "--image", IMAGE, "--url", url, "--payload-secret", secret)
    assert done.err.splitlines()[0] == ".dockerignore leaves out 1 file and 2 directories"
    assert done.err.count("leaves out") == 1


def test_the_options_become_the_config(
    run, builder_that: BuilderThat, hello: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_ENVIRONMENT", "here")
    builder = builder_that(SUCCESS)
    options = ["--build-arg", "A=b=c", "--build-arg", "FROM_ENVIRONMENT", "--build-arg", "EMPTY="]
    options += ["--platform", "linux/amd64", "--platform", "linux/arm64", "--skip-push"]
    arguments = [hello, "--url", builder.url, "--payload-secret", secret, "-t", "HOST/Fn:V1"]
    assert run(*arguments, *options).code == 0
    assert json.loads(entry_of(builder.bodies[0], "com.openfaas.docker.config")) == {
        "image": "host/fn:V1",
        "buildArgs": {"A": "b=c", "FROM_ENVIRONMENT": "here", "EMPTY": ""},
        "platforms": ["linux/amd64", "linux/arm64"],
        "skipPush": True,
    }


def test_docker_buildxs_options_become_the_config(
    run, builder_that: BuilderThat, hello: Path, secret: Path, tmp_path: Path
) -> None:
    builder = builder_that(SUCCESS)
    library = tmp_path / "library"
    library.mkdir()
    for name in ("kept", "left-out"):
        (library / name).write_text(name)
    (library / ".dockerignore").write_text("left-out\n")
    (hello / "docker").mkdir()
    (hello / "docker/Containerfile").write_text("FROM scratch")
    arguments = [hello, "--url", builder.url, "--payload-secret", secret, "-t", IMAGE]
    options = [
        *("-f", "docker/Containerfile", "--target", "release", "--tag", "r/a:2", "--tag", "r/a:3"),
        *("--label", "a=b=c", "--label", "d", "--pull"),
        *("--no-cache-filter", "one", "--no-cache-filter", "two", "--add-host", "db:10.0.0.5"),
        *("--build-context", f"lib={library}", "--build-context", "base=docker-image://r/base:1"),
        *("--shm-size", "1m", "--ulimit", "nofile=1024", "--docker-mediatypes"),
        *("--cache-from", "r/c:1", "--cache-to", "type=registry,ref=r/c:1,mode=max"),
        *("--build-arg", "SOURCE_DATE_EPOCH=1", "--rewrite-timestamp"),
    ]
    assert run(*arguments, *options).code == 0
    assert json.loads(entry_of(builder.bodies[0], "com.openfaas.docker.config")) == {
        "image": IMAGE,
        "buildArgs": {"SOURCE_DATE_EPOCH": "1"},
        "dockerfile": "docker/Containerfile",
        "target": "release",
        "tags": ["r/a:2", "r/a:3"],
        "labels": {"a": "b=c", "d": ""},
        "pull": True,
        "noCache": ["one", "two"],
        "addHosts": ["db=10.0.0.5"],
        "contexts": {"lib": "named-context-0", "base": "docker-image://r/base:1"},
        "shmSize": 1 << 20,
        "ulimits": ["nofile=1024:1024"],
        "ociMediaTypes": False,
        "cacheFrom": ["r/c:1"],
        "cacheTo": ["type=registry,ref=r/c:1,mode=max"],
        "rewriteTimestamp": True,
    }
    assert entry_of(builder.bodies[0], "named-context-0/kept") == b"kept"
    with pytest.raises(KeyError):
        entry_of(builder.bodies[0], "named-context-0/left-out")


@pytest.mark.parametrize(
    ("options", "written"),
    [
        (["--no-cache"], {"noCache": True}),
        (["--provenance", "max", "--sbom"], {"attest": {"provenance": "max", "sbom": True}}),
        (["--provenance=true"], {"attest": {"provenance": "min", "sbom": False}}),
        (["--oci-mediatypes"], {"ociMediaTypes": True}),
        (
            ["--compression", "gzip", "--compression-level", "1"],
            {"compression": "gzip", "compressionLevel": 1},
        ),
        (["--annotation", "manifest:e=f"], {"annotations": {"manifest:e": "f"}}),
    ],
)
def test_other_options_become_the_config(
    run, builder_that: BuilderThat, hello: Path, *, secret: Path, options, written
) -> None:
    builder = builder_that(SUCCESS)
    arguments = [hello, "--url", builder.url, "--payload-secret", secret, "-t", IMAGE]
    assert run(*arguments, *options).code == 0
    config = json.loads(entry_of(builder.bodies[0], "com.openfaas.docker.config"))
    assert config == {"image": IMAGE, "buildArgs": {}, **written}


@pytest.mark.parametrize("file", ["hello/Dockerfile", "Dockerfile", "hello/../hello/Dockerfile"])
def test_a_dockerfile_is_named_from_here_or_from_the_context(
    run, builder_that: BuilderThat, hello: Path, secret: Path, file: str
) -> None:
    builder = builder_that(SUCCESS)
    arguments = [hello, "--url", builder.url, "--payload-secret", secret, "-t", IMAGE]
    assert run(*arguments, "--file", file).code == 0
    config = json.loads(entry_of(builder.bodies[0], "com.openfaas.docker.config"))
    assert config["dockerfile"] == "Dockerfile"


def test_sealed_secrets_travel_as_they_are(
    run, builder_that: BuilderThat, hello: Path, secret: Path, tmp_path: Path
) -> None:
    sealed = tmp_path / "sealed"
    sealed.write_bytes(b"version: v1\n")
    builder = builder_that(SUCCESS)
    arguments = [hello, "-t", IMAGE, "--url", builder.url, "--payload-secret", secret]
    assert run(*arguments, "--secrets", sealed).code == 0
    assert run(*arguments).code == 0
    assert entry_of(builder.bodies[0], "com.openfaas.secrets") == b"version: v1\n"
    assert b"com.openfaas.secrets" not in builder.bodies[1]


def test_faas_clis_variables_are_defaults(
    run, builder_that: BuilderThat, hello: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = builder_that(SUCCESS)
    monkeypatch.setenv("OPENFAAS_REMOTE_BUILDER", builder.url)
    monkeypatch.setenv("OPENFAAS_PAYLOAD_SECRET", str(secret))
    assert run(hello, "--image", IMAGE).code == 0


def test_the_secret_that_up_wrote_is_the_default(
    run, builder_that: BuilderThat, hello: Path, tmp_path: Path
) -> None:
    (tmp_path / ".run").mkdir()
    (tmp_path / ".run" / "payload-secret").write_bytes(SECRET)
    assert run(hello, "--image", IMAGE, "--url", builder_that(SUCCESS).url).code == 0


def test_without_streaming_the_log_comes_at_the_end(
    run, builder_that: BuilderThat, hello: Path, secret: Path
) -> None:
    builder = builder_that(whole(status="success", log=LOG, image=IMAGE, duration=1.5))
    done = run(hello, "--no-stream", "-t", IMAGE, "--url", builder.url, "--payload-secret", secret)
    assert (done.code, done.out) == (0, f"{IMAGE}\n")
    assert done.err.splitlines() == ["RUN echo hello", "  hello", "Built in 1.5s"]
    assert builder.headers[0]["accept"] == "application/json"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (streamed(progress(*LOG), last("failed", error="failed to solve: no")), "to solve: no"),
        (streamed(progress(*LOG)), "the stream ended without saying how the build did"),
        (streamed(progress(), RuntimeError("broken")), "the connection was lost"),
    ],
)
def test_a_failed_build(
    run, builder_that: BuilderThat, hello: Path, *, secret: Path, answer, error: str
) -> None:
    url = builder_that(answer).url
    done = run(hello, "--image", IMAGE, "--url", url, "--payload-secret", secret)
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[-1].startswith("Build failed after ")
    assert error in done.err


def test_a_busy_builder_is_waited_for_aloud(
    run, builder_that: BuilderThat, hello: Path, secret: Path
) -> None:
    url = builder_that(busy(), SUCCESS).url
    done = run(hello, "--image", IMAGE, "--url", url, "--payload-secret", secret)
    assert done.code == 0
    words = r"\(429\): .* Max concurrent requests: 1; trying again in [12] s\n"
    assert re.search(words, done.err)


@pytest.mark.parametrize(
    ("answer", "arguments", "words"),
    [
        (busy(), ["--wait", "0"], "or wait longer with --wait"),
        (refusing(400, "no"), [], "error: the builder refused (400): no"),
        (refusing(401, "wrong"), [], "is the payload secret the one that this builder has?"),
    ],
)
def test_a_refusal(
    run, builder_that: BuilderThat, hello: Path, *, secret: Path, answer, arguments, words: str
) -> None:
    url = builder_that(answer).url
    done = run(hello, "-t", IMAGE, "--url", url, "--payload-secret", secret, *arguments)
    assert (done.code, done.out) == (3, "")
    assert len(done.err.splitlines()) == 1
    assert words in done.err


def test_an_unsigned_request_is_told_how_to_sign(
    run, builder_that: BuilderThat, hello: Path
) -> None:
    done = run(hello, "-t", IMAGE, "--url", builder_that(SUCCESS).url)
    assert done.code == 3
    assert "sign with the builder's secret: --payload-secret FILE" in done.err


def test_nobody_listens(run, hello: Path) -> None:
    url = f"http://{free_address()}"
    done = run(hello, "-t", IMAGE, "--url", url)
    assert (done.code, done.out) == (3, "")
    assert done.err == f"error: cannot connect to {url}/build: Connection refused\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent", "-t", IMAGE], "'absent'"),
        (["."], "name the image to push, or give --skip-push"),
        ([".", "-t", "a,b"], "one image is built by a request"),
        ([".", "-t", "a b"], "not a valid reference"),
        ([".", "-t", IMAGE, "--platform", "all of them"], "must look like linux/amd64"),
        ([".", "-t", IMAGE, "--build-arg", "NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE is not in the"),
        ([".", "-t", IMAGE, "--build-arg", "=x"], "the name is empty"),
        ([".", "-t", IMAGE, "--url", "builder:8080"], "'builder:8080' is not an address"),
        ([".", "-t", IMAGE, "--payload-secret", "absent"], "'absent'"),
        ([".", "-t", IMAGE, "--payload-secret", "/dev/null"], "is empty"),
        ([".", "-t", IMAGE], "has no Dockerfile"),
        ([".", "-t", IMAGE, "--frob"], "No such option"),
        ([".", "-t", IMAGE, "--file", "absent"], "absent is not a file in"),
        ([".", "-t", IMAGE, "--file", "/etc/passwd"], "is not a file in"),
        ([".", "-t", IMAGE, "--label", "=b"], "write KEY=VALUE"),
        ([".", "-t", IMAGE, "--tag", "latest"], "whole reference"),
        ([".", "-t", IMAGE, "--shm-size", "lots"], "--shm-size must be a number of bytes"),
        ([".", "-t", IMAGE, "--build-context", "a=https://x.invalid"], "is not offered"),
        ([".", "-t", IMAGE, "--provenance", "all"], "provenance must be"),
    ],
)
def test_what_the_user_can_put_right(run, arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_an_interrupt_hangs_up_and_says_so(
    builder_that: BuilderThat, hello: Path, secret: Path
) -> None:
    builder: ScriptedBuilder

    async def until_abandoned() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            builder.abandoned.set()

    builder = builder_that(streamed(progress(*LOG), then=until_abandoned))
    arguments = [hello, "-t", IMAGE, "--url", builder.url, "--payload-secret", secret]
    with subprocess.Popen(
        [sys.executable, "-m", "function_builder", "build", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stderr is not None
        while process.stderr.readline() != "  hello\n":
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "error: interrupted; the builder stops the build\n"
    assert builder.abandoned.wait(60)


def test_what_an_answer_holds_steers_no_terminal(
    run, builder_that: BuilderThat, hello: Path, secret: Path
) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b2J"
    answers = [
        refusing(400, f"{evil}no"),
        refusing(307, "", location="http://there/%1b[2J"),
        whole(500, status="failed", error=f"{evil}no", log=[f"l: {evil}", evil]),
        whole(status="success", image=f"{evil}i\n{evil}j", digest=f"d {evil}"),
        busy("400"),
    ]
    for answer in answers:
        url = builder_that(answer).url
        done = run(hello, "-t", IMAGE, "--url", url, "--payload-secret", secret, "--no-stream")
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.out + done.err), done
        assert len(done.out.splitlines()) <= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--header", "hunter2"], "write NAME:VALUE"),
        (["--header", "a b: hunter2"], "'a b' cannot be sent"),
        (["--header", "@absent"], "cannot read absent"),
        (["--key", "absent"], "absent is a key without its certificate"),
        (["--cacert", "absent"], "cannot read absent: No such file"),
        (["--cacert", "/dev/null"], "/dev/null: no certificate in PEM form"),
        (["--cert", "/dev/null"], "/dev/null: not a certificate and its unencrypted key"),
        (["--cert", "absent"], "cannot read absent: No such file"),
        (["--url", "ftp://ci:hunter2@x"], "is not an address"),
    ],
)
def test_what_is_wrong_with_the_way_to_the_builder(
    run, hello: Path, arguments: list[str], words: str
) -> None:
    done = run(hello, "-t", IMAGE, *arguments)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert "hunter2" not in done.err


def test_headers_come_from_the_command_or_a_file(
    run, builder_that: BuilderThat, hello: Path, secret: Path, tmp_path: Path
) -> None:
    builder = builder_that(SUCCESS)
    file = tmp_path / "headers"
    file.write_text("Authorization: Bearer a:b\n\nX-Two:2\n")
    headers = ["--header", "X-One: 1", "--header", f"@{file}"]
    done = run(hello, "-t", IMAGE, "--url", builder.url, "--payload-secret", secret, *headers)
    assert done.code == 0
    sent = builder.headers[0]
    assert (sent["authorization"], sent["x-one"], sent["x-two"]) == ("Bearer a:b", "1", "2")
