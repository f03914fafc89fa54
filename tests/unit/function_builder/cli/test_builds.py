"""The commands about builds that the builder keeps."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from function_builder.cli import keeping, main
from tests.support import free_address
from tests.unit.function_builder.client.fake_builds import SECRET, FakeBuilds, serving_builds


@dataclass
class Run:
    code: int
    out: str
    err: str


@pytest.fixture
def builder() -> Iterator[FakeBuilds]:
    with serving_builds() as fake:
        yield fake


@pytest.fixture
def run(
    builder: FakeBuilds,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Callable[..., Run]:
    """Run `function-builder` with these arguments on the builder."""
    (tmp_path / "secret").write_bytes(SECRET)
    monkeypatch.setenv("OPENFAAS_REMOTE_BUILDER", builder.url)
    monkeypatch.setenv("OPENFAAS_PAYLOAD_SECRET", str(tmp_path / "secret"))
    monkeypatch.setenv("COLUMNS", "120")

    def command(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["function-builder", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Run(int(ended.value.code or 0), captured.out, captured.err)

    return command


def test_a_detached_build_is_its_id(run, builder: FakeBuilds, hello: Path) -> None:
    done = run("build", hello, "--image", "r/a:1", "--detach")
    (build,) = builder.builds.values()
    assert (done.code, done.out) == (0, f"{build.id}\n")
    assert f"function-builder logs -f {build.id}" in done.err


def test_a_builder_without_a_queue_is_told(run, builder: FakeBuilds, hello: Path) -> None:
    builder.submission_refusal = 501, "this builder keeps no builds: its setting nats_url is empty"
    done = run("build", hello, "--image", "r/a:1", "-d")
    assert (done.code, done.out) == (3, "")
    assert "the builder refused (501): this builder keeps no builds" in done.err


def test_the_table(run, builder: FakeBuilds) -> None:
    failed = builder.add("failed", image="r/b:1\x1b[31m")
    queued = builder.add("queued")
    done = run("builds")
    assert done.code == 0
    head, *rows = done.out.splitlines()
    assert head.split() == ["ID", "STATUS", "AGE", "TOOK", "IMAGE"]
    assert [row.split()[:2] for row in rows] == [[queued.id, "queued"], [failed.id, "failed"]]
    assert "\x1b" not in done.out
    assert [row.split()[0] for row in run("builds", "--limit", 1).out.splitlines()[1:]] == [
        queued.id
    ]


def test_json_is_a_document_a_line(run, builder: FakeBuilds) -> None:
    added = [builder.add("failed").id for _ in range(3)]
    builder.add("queued")
    done = run("builds", "--json", "--status", "failed")
    documents = [json.loads(line) for line in done.out.splitlines()]
    assert [each["buildId"] for each in documents] == added[::-1]
    assert {each["status"] for each in documents} == {"failed"}


def test_an_unknown_status_is_a_usage_error(run) -> None:
    done = run("builds", "--status", "broken")
    assert done.code == 2
    assert "queued, running, success, failed, cancelled" in done.err


def test_watching_shows_what_changes_until_an_interrupt(
    run, builder: FakeBuilds, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = builder.add("queued")
    looks = 0

    async def pause(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            signal.raise_signal(signal.SIGINT)
        build.status = "running"

    monkeypatch.setattr(keeping, "_pause", pause)
    done = run("builds", "--watch")
    assert done.code == 130
    assert "running" in done.out


@pytest.mark.parametrize("status", ["success", "failed"])
def test_following_resumes_and_ends_like_a_build(
    run, builder: FakeBuilds, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("function_builder.client.answers._FIRST_BACK_OFF", 0.001)
    build = builder.add("running", *(f"line {number}" for number in range(6)))
    build.end(status, "" if status == "success" else "no")
    # Also before the first line.
    builder.log_cuts += [0, 2, 0, 3]
    done = run("logs", "-f", build.id)
    lines = [line.strip() for line in done.err.splitlines()]
    assert [line for line in lines if line.startswith("line")] == build.lines
    assert sum("connection was lost" in line for line in lines) == 4
    if status == "success":
        assert (done.code, done.out) == (0, "r/a:1@sha256:1\n")
    else:
        assert (done.code, done.out) == (1, "")
        assert lines[-2].endswith(": no")


def test_a_log_is_printed_as_far_as_it_has_come(run, builder: FakeBuilds) -> None:
    running = builder.add("running", "one\x1b[2J", "two")
    ended = builder.add("running", "three")
    ended.end("failed", "no")
    assert run("logs", running.id) == Run(0, "one\ntwo\n", "")
    assert run("logs", ended.id) == Run(0, "three\n", "")


def test_cancel_and_retry(run, builder: FakeBuilds) -> None:
    build = builder.add()
    assert run("cancel", build.id) == Run(0, "", f"{build.id} is cancelled\n")
    assert build.status == "cancelled"
    build.status = "failed"
    done = run("cancel", build.id)
    assert done.code == 3
    assert "already ended" in done.err
    again = run("retry", build.id)
    assert (again.code, again.out.strip()) == (0, list(builder.builds)[-1])


@pytest.mark.parametrize("command", [["logs"], ["logs", "-f"], ["cancel"], ["retry"]])
def test_an_unknown_build_is_refused_in_words(run, command: list[str]) -> None:
    done = run(*command, "0" * 24)
    assert (done.code, done.out) == (3, "")
    assert "there is no such build" in done.err


@pytest.mark.parametrize("command", [["builds"], ["logs", "0"], ["cancel", "0"], ["retry", "0"]])
def test_without_a_builder_there_is_one_line(run, command: list[str]) -> None:
    done = run(*command, "--url", f"http://{free_address()}")
    assert (done.code, done.out) == (3, "")
    assert len(done.err.splitlines()) == 1
    assert "refused" in done.err


def test_no_color_and_no_escapes_in_a_pipe(builder: FakeBuilds, tmp_path: Path) -> None:
    builder.add("failed")
    (tmp_path / "secret").write_bytes(SECRET)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "function_builder", "builds", "--url", builder.url),
            *("--payload-secret", str(tmp_path / "secret")),
        ],
        capture_output=True,
        text=True,
        check=True,
        env={"NO_COLOR": "1", "PATH": "/usr/bin"},
    )
    assert "failed" in done.stdout
    assert "\x1b" not in done.stdout


def test_usage_is_a_table_or_json(run, builder: FakeBuilds) -> None:
    done = run("usage", "--from", "2026-11-01", "--tenant", "acme")
    assert [line.split() for line in done.out.splitlines()] == [
        ["DAY", "TENANT", "BUILDS", "SUCCEEDED", "SECONDS", "RECEIVED"],
        ["2026-11-29", "acme", "3", "2", "12.5", "1.5", "kB"],
    ]
    assert "since its start, 2026-11-29T00:00:00Z" in done.err
    asked = json.loads(run("usage", "--json").out)
    assert asked["usage"][0]["builds"] == {"failed": 1, "success": 2}
