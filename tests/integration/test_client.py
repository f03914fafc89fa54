"""`function-builder build` and the client's library against a real builder."""

import asyncio
import os
import re
import signal
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from function_builder.client import AsyncClient, BuildConfig, BuildStatus
from function_builder.contract.secrets import SecretsKey, seal
from tests.support import running, until
from tests.support.builders import running_builder
from tests.support.images import pull
from tests.support.requests import SECRET

pytestmark = pytest.mark.integration


@dataclass
class Ended:
    code: int
    out: str
    err: str


@pytest.fixture
def command(builder):
    """Start `function-builder build` with these arguments."""

    async def start(*arguments: object) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "function_builder", "build", *map(str, arguments)),
            *("--url", builder.url, "--payload-secret", builder.secrets / "payload-secret"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    return start


async def ended(process: asyncio.subprocess.Process) -> Ended:
    async with asyncio.timeout(100):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def test_the_directory_is_what_the_image_holds(command, registry, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY tree /tree\nRUN echo from a step\n")
    tree = tmp_path / "tree"
    (tree / "empty").mkdir(parents=True, mode=0o750)
    (tree / "run.sh").write_text("#!/bin/sh\n")
    (tree / "run.sh").chmod(0o4711)
    os.utime(tree / "run.sh", (0, 1_600_000_000))
    (tree / "zz-same.sh").hardlink_to(tree / "run.sh")
    (tree / "link").symlink_to("../elsewhere")
    (tree / "naïve name").write_text("é")
    (tree / "naïve name").chmod(0o640)
    (tmp_path / ".dockerignore").write_text("tree/ignored\n")
    (tree / "ignored").write_text("no")

    done = await ended(await command(tmp_path, "--image", f"{registry}/client/tree:1"))
    image = pull(registry, "client/tree", "1")
    assert (done.code, done.out) == (0, f"{registry}/client/tree:1@{image.digest}\n")
    assert re.search(r"^#\d+ from a step$", done.err, re.MULTILINE)
    files = {path: file for path, file in image.files.items() if path.startswith("tree/")}
    assert {path: (file.kind, file.mode, file.content) for path, file in files.items()} == {
        "tree/empty": ("dir", 0o750, b""),
        "tree/link": ("symlink", 0o777, b"../elsewhere"),
        "tree/naïve name": ("file", 0o640, "é".encode()),
        "tree/run.sh": ("file", 0o4711, b"#!/bin/sh\n"),
        "tree/zz-same.sh": ("file", 0o4711, b"#!/bin/sh\n"),
    }
    assert files["tree/run.sh"].mtime == 1_600_000_000
    assert files["tree/zz-same.sh"].same_as == "tree/run.sh"


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
async def test_a_failed_step_fails_the_command(command, registry, tmp_path, stream):
    (tmp_path / "Dockerfile").write_text(
        f"FROM busybox\nRUN echo {stream} no such package; exit 3\n"
    )
    done = await ended(await command(tmp_path, "--image", f"{registry}/client/bad:1", stream))
    assert (done.code, done.out) == (1, "")
    step = r"#\d+" if stream == "--stream" else " "
    assert re.search(rf"^{step} {stream} no such package$", done.err, re.MULTILINE)
    assert re.search(r"did not complete successfully: exit code: 3\nBuild id: \S+\n\Z", done.err)


async def test_build_arguments_and_a_build_without_a_push(command, tmp_path):
    (tmp_path / "Dockerfile").write_text(
        'FROM busybox\nARG WORD\nARG EMPTY=full\nRUN test "$WORD" = "a=b c" && test -z "$EMPTY"\n'
    )
    arguments = ["--skip-push", "--build-arg", "WORD=a=b c", "--build-arg", "EMPTY="]
    done = await ended(await command(tmp_path, *arguments))
    assert done.code == 0, done.err
    assert done.out.startswith("sha256:")


async def test_sealed_secrets_reach_the_step_that_mounts_them(buildkitd, tmp_path):
    key = SecretsKey.generate()
    (tmp_path / "key").write_bytes(key.to_text())
    hello = tmp_path / "hello"
    hello.mkdir()
    (hello / "Dockerfile").write_text(
        "FROM busybox\n"
        'RUN --mount=type=secret,id=token test "$(cat /run/secrets/token)" = "a value"\n'
    )
    settings = {"build_secrets_private_key_path": str(tmp_path / "key")}
    async with (
        running_builder(tmp_path / "builder", buildkitd, **settings) as builder,
        AsyncClient(builder.url, payload_secret=SECRET.encode()) as client,
    ):
        config = BuildConfig(skip_push=True)
        sealed = seal({"token": b"a value"}, key.public)
        assert (await client.build(hello, config, secrets=sealed)).status is BuildStatus.SUCCESS


async def test_an_interrupt_stops_the_step(command, registry, tmp_path):
    marker = f"sleep 98765.{uuid.uuid4().int}"
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN echo going; {marker}\n")
    process = await command(tmp_path, "--image", f"{registry}/client/slow:1")
    while b"going" not in (line := await process.stderr.readline()) or b"RUN" in line:
        assert line, "the build has ended"
    process.send_signal(signal.SIGINT)
    done = await ended(process)
    assert done.code == 130
    await until(lambda: not running(marker.replace(" ", "\0")))


async def test_memory_does_not_grow_with_the_context(command, tmp_path):
    with (tmp_path / "large").open("wb") as large:
        large.truncate(200 << 20)
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nRUN --mount=type=bind,target=/c test -s /c/large\n"
    )
    process = await command(tmp_path, "--skip-push")
    highest = 0
    while process.returncode is None:
        highest = max(highest, resident_kib(process.pid) or highest)
        await asyncio.sleep(0.02)
    assert (await ended(process)).code == 0
    assert 0 < highest < 100 << 10


def resident_kib(pid: int) -> int | None:
    """The most memory that a process has held; None once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) if found else None


async def test_the_library_follows_a_build(builder, registry, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo hello from the library\n")
    config = BuildConfig(image=f"{registry}/client/library:1")
    async with (
        AsyncClient(builder.url, payload_secret=SECRET.encode()) as client,
        client.stream(tmp_path, config) as build,
    ):
        log = [line async for progress in build for line in progress.log]
        result = await build.result()
    assert any(line.endswith("Z hello from the library") for line in log)
    assert result.status is BuildStatus.SUCCESS
    assert result.digest == pull(registry, "client/library", "1").digest
    assert result.build_id


async def test_plain_output_says_which_steps_ran_and_which_did_not(command, tmp_path):
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox AS a\nRUN echo of a step; sleep 100\n"
        "FROM busybox\nRUN sleep 1\nCOPY --from=a /x /\nCOPY nothere /\n"
    )
    done = await ended(await command(tmp_path, "--skip-push"))
    assert done.code == 1
    number = {name: step for step, name in re.findall(r"^(#\d+) (\[.*)$", done.err, re.MULTILINE)}
    (missing,) = (number[name] for name in number if "nothere" in name)
    assert f"\n{missing} FAILED after " in done.err
    assert f"{missing} CACHED" not in done.err
    assert len(number) == len(set(number.values()))
