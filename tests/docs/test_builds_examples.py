"""The commands of docs/api.md about kept builds work as they are written."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from function_builder.contract.builds import parse_build_info
from function_builder.contract.result import BuildStatus, parse_result
from function_builder.contract.sse import EventParser
from function_builder.server.app import create_app
from tests.support.memory_builds import EndedBuilds
from tests.support.requests import SECRET, make_tar
from tests.support.servers import serving_app
from tests.support.services import idle_service

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
SECTION = PAGE.partition("## Builds that outlive their connection\n")[2].partition("\n## ")[0]
FUNCTIONS, SUBMIT, *BLOCKS = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
READS = [line for block in BLOCKS for line in block.splitlines()]


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("builder")
    (root / "payload-secret").write_text(SECRET)
    service = idle_service(root, disable_hmac=False, secret_mount_path=root)
    service.builds = EndedBuilds()
    with serving_app(create_app(service)) as url:
        yield url


@pytest.fixture(scope="module")
def build(builder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("client")
    (folder / "request.tar").write_bytes(
        make_tar({"Dockerfile": "FROM scratch\n"}, {"image": "r/f:1"})
    )
    answer = run(SUBMIT, builder, folder)
    again = run(SUBMIT, builder, folder)
    info = parse_build_info(answer)
    assert parse_build_info(again).id == info.id
    return info.id


def run(command: str, builder: str, folder: Path, build: str = "") -> str:
    done = subprocess.run(
        ["sh", "-euc", FUNCTIONS + command],
        env={"PATH": "/usr/bin:/bin", "BUILDER": builder, "SECRET": SECRET, "ID": build},
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout


@pytest.mark.parametrize("command", READS)
def test_a_command_is_answered_as_the_page_says(command, builder, build, tmp_path):
    answer = run(command, builder, tmp_path, build)
    if "event-stream" in command:
        *events, end = EventParser().receive_data(answer.encode())
        assert [(event.id, event.data) for event in events] == [("1", "one"), ("2", "two")]
        assert (end.name, parse_build_info(end.data).id) == ("end", build)
    elif "/log" in command:
        *progress, last = answer.splitlines()
        lines = [line for each in progress for line in parse_result(each).log]
        assert lines == ([] if "after" in command else ["one", "two"])
        assert parse_result(last).status is BuildStatus.FAILED
    elif "/builds?" in command:
        listed = json.loads(answer)["builds"]
        assert {each["status"] for each in listed} <= {"queued", "running"}
    elif "DELETE" in command:
        assert json.loads(answer)["status"] == 409
    elif "retry" in command:
        assert parse_build_info(answer).retry_of == build
    else:
        assert parse_build_info(answer).id == build


def test_the_page_has_each_of_them():
    assert len(READS) == 7
