"""The package for Node.js, packed by npm and installed into an empty directory."""

import asyncio
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.clients.programs import run, run_while_busy
from tests.support import until
from tests.support.builders import RunningBuilder
from tests.support.images import pull
from tests.unit.function_builder.client.fake_builds import SECRET, FakeBuilds, serving_builds

pytestmark = pytest.mark.integration

PACKAGE = Path(__file__).parents[3] / "packages" / "node"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A directory with the package in its `node_modules`, and nothing else there."""
    root: Path = tmp_path_factory.mktemp("node")
    npm = ("npm", "--silent", "--offline", "--ignore-scripts", "--no-audit", "--no-fund")
    subprocess.run([*npm, "pack", str(PACKAGE), "--pack-destination", root], cwd=root, check=True)
    (archive,) = root.glob("*.tgz")
    (root / "package.json").write_text('{"private": true, "type": "module"}')
    subprocess.run([*npm, "install", archive], cwd=root, check=True)
    program = Path(__file__).parent / "node_program.mjs"
    (root / "program.mjs").write_text(program.read_text())
    return root


@pytest.fixture
def fake() -> Iterator[FakeBuilds]:
    with serving_builds() as builds:
        yield builds


async def call(installed: Path, function: str, argument: object, **options: Any) -> list[str]:
    """The lines that a call of the package prints; the last one is its result or its error."""
    command = ("node", "program.mjs", function, str(argument), json.dumps(options))
    outcome = await run(command, directory=installed)
    assert outcome.code == 0, outcome.output
    return outcome.output.splitlines()


async def test_its_own_tests_pass() -> None:
    outcome = await run(("node", "--test", "test/"), directory=PACKAGE)
    assert outcome.code == 0, outcome.output


def test_the_package_has_types_and_no_dependencies(installed: Path) -> None:
    assert [each.name for each in (installed / "node_modules").glob("[!.]*")] == [
        "function-builder"
    ]
    (installed / "use.ts").write_text(
        'import { build, type BuildResult } from "function-builder";\n'
        'const result: BuildResult = await build({ Dockerfile: "FROM scratch" }, {\n'
        '  url: "http://127.0.0.1:8080", image: "r/a:1", onLog: (line) => line.trim(),\n'
        "});\n"
        "// @ts-expect-error a misspelled option\n"
        'await build(".", { url: result.digest ?? "", imag: "r/a:1" });\n'
    )
    compiler = PACKAGE / "node_modules" / "typescript" / "bin" / "tsc"
    flags = ("--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022")
    types = ("--typeRoots", str(PACKAGE / "node_modules" / "@types"), "--types", "node")
    checked = subprocess.run(
        ["node", str(compiler), *flags, *types, "use.ts"],
        cwd=installed,
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


async def test_a_directory_is_built_as_it_is(
    installed, builder: RunningBuilder, registry, function: Path, image
) -> None:
    (function / ".dockerignore").write_text("left-out\nhandler\n!handler/**\n")
    (function / "left-out").mkdir()
    (function / "left-out" / "unreadable").symlink_to("/nonexistent")
    (function / "handler" / "link").symlink_to("deep")
    (function / "handler" / ("é" * 70)).write_text("a long name")
    lines = await call(
        installed,
        "build",
        function,
        url=f"{builder.url}/build",
        payloadSecret=(builder.secrets / "payload-secret").read_text(),
        image=image,
    )
    result = json.loads(lines[-1])
    assert result["status"] == "success", result
    assert any("RUN echo built" in line for line in lines)
    pushed = pull(registry, image.removeprefix(f"{registry}/")[:-2], "1")
    assert pushed.digest == result["digest"]
    assert pushed.text("said") == "hello\n"
    assert pushed.files["home/app/run"].mode == 0o755
    assert pushed.text("home/app/" + "é" * 70) == "a long name"
    assert pushed.files["home/app/link"].kind == "symlink"


async def test_files_without_a_directory_have_their_modes(
    installed, builder: RunningBuilder, registry, image
) -> None:
    files = {
        "Dockerfile": "FROM busybox\nCOPY . /f/\nRUN /f/run >/said\n",
        "run": {"content": "#!/bin/sh\necho hello\n", "mode": 0o755},
    }
    sent = {
        "url": builder.url,
        "payloadSecret": (builder.secrets / "payload-secret").read_text(),
        "image": image,
    }
    result = json.loads((await call(installed, "build", json.dumps(files), **sent))[-1])
    assert result["status"] == "success", result
    pushed = pull(registry, image.removeprefix(f"{registry}/")[:-2], "1")
    assert pushed.text("said") == "hello\n"
    assert pushed.files["f/Dockerfile"].mode == 0o644
    # ZIP archives can hold no earlier time.
    assert pushed.files["f/run"].mtime == 315_619_200


async def test_only_what_changed_is_sent(
    installed, builder: RunningBuilder, registry, image, tmp_path: Path
) -> None:
    """The second request has no content but the Dockerfile's; the image has all files."""
    context = tmp_path / "context"
    context.mkdir()
    large = os.urandom(5_000_000)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /f/\n")
    (context / "large").write_bytes(large)
    (context / "link").symlink_to("large")
    (context / "same").hardlink_to(context / "large")
    sent = {
        "url": builder.url,
        "payloadSecret": (builder.secrets / "payload-secret").read_text(),
        "image": image,
    }
    sizes = []
    for _ in range(2):
        before = builder.metric("received_bytes_total")
        result = json.loads((await call(installed, "build", context, **sent))[-1])
        assert result["status"] == "success", result
        sizes.append(builder.metric("received_bytes_total") - before)
    assert len(large) < sizes[0] < 2 * len(large)
    assert sizes[1] < 20_000
    files = pull(registry, image.removeprefix(f"{registry}/")[:-2], "1").files
    assert files["f/large"].content == large
    assert files["f/link"].kind == "symlink"


async def test_errors_are_one_line(
    installed, builder: RunningBuilder, failing: Path, image
) -> None:
    secret = (builder.secrets / "payload-secret").read_text()
    sent = {"url": builder.url, "image": image}
    error = json.loads((await call(installed, "build", failing, **sent, payloadSecret=secret))[-1])
    assert error["name"] == "BuildFailed"
    assert "exit code: 7" in error["message"]
    assert error["result"]["source"]["line"] == 2
    error = json.loads((await call(installed, "build", failing, **sent, payloadSecret="x"))[-1])
    assert error["name"] == "Refused"
    assert error["message"].startswith("401: ")
    error = json.loads((await call(installed, "build", failing.parent / "none", **sent))[-1])
    assert error["message"].endswith("none is not a directory")
    unused = {"url": "http://127.0.0.1:1", "image": image}
    error = json.loads((await call(installed, "build", failing, **unused))[-1])
    assert "cannot reach http://127.0.0.1:1" in error["message"]
    assert "ECONNREFUSED" in error["message"]


async def test_a_busy_builder_is_asked_again(
    installed, builder: RunningBuilder, function: Path, image
) -> None:
    # More than sockets hold: the client is still sending when it is refused.
    (function / "unused").write_bytes(bytes(12 << 20))
    secret = (builder.secrets / "payload-secret").read_text()
    sent = {"url": builder.url, "payloadSecret": secret, "image": image, "manifest": False}
    command = ("node", "program.mjs", "build", str(function), json.dumps(sent))
    outcome = await run_while_busy(command, builder, directory=installed)
    assert json.loads(outcome.output.splitlines()[-1])["status"] == "success", outcome.output


async def test_an_aborted_call_cancels_the_build(
    installed, builder: RunningBuilder, failing: Path
) -> None:
    (failing / "Dockerfile").write_text("FROM busybox\nRUN echo be''gun; sleep 100\n")
    lines = await call(
        installed,
        "build",
        failing,
        url=builder.url,
        payloadSecret=(builder.secrets / "payload-secret").read_text(),
        skipPush=True,
        noCache=True,
        abortAt="begun",
    )
    assert json.loads(lines[-1])["name"] == "AbortError"
    await until(lambda: builder.get("/ready").status_code == 200)


async def test_a_build_outlives_lost_connections(installed, fake, function) -> None:
    connection = {"url": fake.url, "payloadSecret": SECRET.decode()}
    fake.lost_answers = 1
    options = {"image": "r/a:1", "callbackUrl": "https://hooks.example.com/built"}
    (line,) = await call(installed, "submit", function, **connection, **options)
    build = fake.builds[json.loads(line)["buildId"]]
    assert len(fake.builds) == 1
    assert fake.headers[0]["x-callback-url"] == "https://hooks.example.com/built"
    with tarfile.open(fileobj=io.BytesIO(fake.bodies[-1])) as archive:
        config = archive.extractfile("com.openfaas.docker.config")
        assert config is not None
        assert json.load(config)["image"] == "r/a:1"
    build.lines += ["one", "two"]
    fake.log_cuts += [1, 0]
    fake.refusals += [503]
    # Its token opens it without the payload secret; such an answer is not signed.
    opened = {"url": fake.url, "token": json.loads(line)["token"]}
    running = asyncio.create_task(call(installed, "follow", build.id, **opened))
    await until(lambda: not fake.log_cuts and not fake.refusals)
    build.end("success")
    *logged, last = await running
    assert logged == ["log - one", "log - two"]
    assert json.loads(last)["digest"] == "sha256:1"
    other = fake.add("running")
    (line,) = await call(installed, "cancel", other.id, **connection)
    assert json.loads(line)["status"] == "cancelled"


async def test_a_success_that_is_not_signed_is_not_believed(installed, fake) -> None:
    build = fake.add("success", "one")
    fake.signs = False
    connection = {"url": fake.url, "payloadSecret": SECRET.decode(), "retryTimeout": 0}
    error = json.loads((await call(installed, "follow", build.id, **connection))[-1])
    assert error["name"] == "Unreachable"
    assert "did not sign the answer" in error["message"]
