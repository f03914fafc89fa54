"""The lines of `build` that are read without Typer mean what they mean to Typer."""

from pathlib import Path

import pytest
import typer
from typer.core import TyperOption

from function_builder.cli import building, quick
from function_builder.cli.build import build
from function_builder.cli.given import Given

APP = typer.Typer(add_completion=False)
APP.command()(build)
COMMAND = typer.main.get_command(APP)
OPTIONS = [each for each in COMMAND.params if isinstance(each, TyperOption)]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "file").write_bytes(b"")
    return tmp_path


def by_typer(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Given]:
    seen = []
    monkeypatch.setattr(building, "build", lambda *given: seen.append(given))
    COMMAND.main(words, standalone_mode=False)
    ((directory, given),) = seen
    return directory, given


def test_every_option_of_typers_is_known() -> None:
    """But --help; and no other one, with the same parameter and the same number of values."""
    flags, values, lists = {}, {}, {}
    for option in OPTIONS:
        assert option.name is not None
        if option.name == "help":
            continue
        for word in option.opts:
            if option.is_flag:
                flags[word] = option.name, True
            elif option.multiple:
                lists[word] = option.name
            else:
                values[word] = option.name
        flags |= dict.fromkeys(option.secondary_opts, (option.name, False))
    assert flags == dict(quick.FLAGS)
    assert lists == dict(quick.LISTS)
    assert values == {word: name for word, (name, _) in quick.VALUES.items()}
    variables = {option.envvar: option.opts[0] for option in OPTIONS if option.envvar}
    assert variables == dict(quick.VARIABLES)


def test_all_that_building_reads_is_an_option() -> None:
    assert {option.name for option in OPTIONS} == set(Given.__annotations__)


@pytest.mark.parametrize(
    "line",
    [
        "a",
        "a --image r/i:1",
        "--image=r/i:1 a",
        "-t r/i:1 -t r/i:2 a -q",
        "a --tag a --tag=b --label k=v --label= --no-stream --stream",
        "a --wait 1.5 --compression-level 3 --progress json --payload-secret file --file b/c",
        "a --image -t",
        "a --docker-mediatypes --allow-unsigned-answers --header @file",
    ],
)
def test_a_line_means_the_same_to_both(
    files: Path, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, given = quick.read(line.split(), {})
    expected = by_typer(line.split(), monkeypatch)
    defaults = by_typer(["a"], monkeypatch)[1]
    assert (directory, {**defaults, **given}) == expected


@pytest.mark.parametrize(
    "line",
    [
        "",
        "a a",
        "absent",
        "file",
        "a --help",
        "a -h",
        "a --frob",
        "a --image",
        "a -- ",
        "a -qd",
        "a -tr/i:1",
        "a --quiet=1",
        "a --wait -1",
        "a --wait nan",
        "a --wait soon",
        "a --compression-level high",
        "a --progress loud",
        "a --payload-secret absent",
    ],
)
def test_any_other_line_is_typers(files: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "build", None)
    quick.build(line.split(), {})


def test_the_environment_stands_for_options(files: Path) -> None:
    environment = {"OPENFAAS_REMOTE_BUILDER": "http://b", "OPENFAAS_PAYLOAD_SECRET": ""}
    assert quick.read(["a"], environment)[1] == {"url": "http://b"}
    assert quick.read(["a", "--url", "http://c"], environment)[1] == {"url": "http://c"}
