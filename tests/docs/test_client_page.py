"""The client's page: its examples run, and its tables have what there is."""

import io
import re
import tarfile
from pathlib import Path

import pytest

from function_builder import client as package
from function_builder.cli.commands import COMMANDS
from tests.unit.function_builder.client.fake_builds import SECRET, serving_builds

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_of_a_submitted_build_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hello").mkdir()
    (tmp_path / "hello" / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / ".run").mkdir()
    (tmp_path / ".run" / "payload-secret").write_bytes(SECRET)
    imports = PYTHON[0].partition("with ")[0]
    with serving_builds() as builder:
        builder.submitted_log = ["one"]
        example = PYTHON[2].replace("http://127.0.0.1:8080", builder.url)
        names: dict[str, object] = {}
        exec(imports + example, names)
        (build,) = builder.builds
    assert capsys.readouterr().out.splitlines() == [build, "one"]
    assert isinstance(names["result"], package.BuildResult)


def test_the_example_of_files_sends_an_executable_file() -> None:
    with serving_builds() as builder, package.Client(builder.url, payload_secret=SECRET) as client:
        # What answers here queues builds, and runs none.
        example = PYTHON[1].replace("client.build(", "client.submit(")
        exec(example, {"client": client})
        (body,) = builder.bodies
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert archive.getmember("context/run.sh").mode == 0o755


@pytest.mark.parametrize("kind", [package.Client, package.AsyncClient])
def test_each_method_of_a_client_is_there(kind: type) -> None:
    table = PAGE.partition("| method |")[2].partition("\n\n")[0]
    listed = re.findall(r"^\| `(\w+)\(", table, re.MULTILINE)
    public = {name for name in vars(kind) if not name.startswith("_")}
    assert set(listed) == public - {"close", "url"}


@pytest.mark.parametrize("kind", [package.Handle, package.BuildHandle])
def test_each_method_of_a_handle_is_there(kind: type) -> None:
    table = PAGE.partition("| handle |")[2].partition("\n\n")[0]
    listed = re.findall(r"^\| `(\w+)\(", table, re.MULTILINE)
    assert set(listed) == {name for name in vars(kind) if not name.startswith("_")} - {"accepted"}


def test_each_command_that_the_page_names_exists() -> None:
    named = set(re.findall(r"function-builder (\w+)", PAGE))
    assert {"build", "builds", "logs", "cancel", "retry"} <= named <= set(COMMANDS)
