"""The distributions as users install them: wheels in an environment without this clone.

An environment sees what a set of extras asks for, and nothing else: the libraries that it needs are
linked from the tests' own environment, so that no index is asked.
"""

import asyncio
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import venv
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

import aiobuildkit
import function_builder
from function_builder.cli.commands import COMMANDS
from function_builder.engine.tools import search_path
from tests.support import free_address
from tests.support.builders import RunningBuilder

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).parents[2]
OURS = ("aiobuildkit", "function-builder")
SERVER = ("serve", "up", "doctor", "setup", "tenants", "policy")
"""The commands that need the extra `server`."""
CLIENT = {
    *("aiobuildkit", "hpack", "protobuf", "pynacl", "cffi", "pycparser"),
    *("httpx2", "httpcore2", "anyio", "h11", "idna", "truststore", "typing-extensions", "pyyaml"),
}
"""What the bare install asks for, and what that asks for in turn."""


def requirements(distribution: Message, extras: set[str]) -> list[Requirement]:
    """What a distribution asks for with these extras, on this machine."""
    found = [Requirement(line) for line in distribution.get_all("Requires-Dist", [])]
    wanted = extras or {""}
    return [
        each
        for each in found
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in wanted)
    ]


@dataclass(frozen=True)
class Wheels:
    """Both wheels, and a virtual environment with nothing else in it."""

    files: dict[str, Path]
    bin: Path
    root: Path

    def metadata(self, name: str) -> Message:
        with ZipFile(self.files[name]) as wheel:
            (path,) = (each for each in wheel.namelist() if each.endswith(".dist-info/METADATA"))
            return Parser().parsestr(wheel.read(path).decode())

    def needed(self, extras: set[str]) -> set[str]:
        """The names of all distributions that an install with these extras brings."""
        names = set[str]()
        left = requirements(self.metadata("function-builder"), extras)
        while left:
            one = left.pop()
            name = re.sub(r"[-_.]+", "-", one.name).lower()
            if name not in names:
                names.add(name)
                ours = name in OURS
                asks = self.metadata(name) if ours else importlib.metadata.metadata(name)
                assert isinstance(asks, Message)
                left += requirements(asks, one.extras)
        return names

    def libraries(self, extras: set[str]) -> Path:
        """A directory with links to those of other people."""
        directory = self.root / ("-".join(sorted(extras)) or "bare")
        if not directory.exists():
            directory.mkdir()
            for name in self.needed(extras) - {*OURS}:
                distribution = importlib.metadata.distribution(name)
                tops = {path.parts[0] for path in distribution.files or ()} - {"..", "__pycache__"}
                for top in tops:
                    link = directory / top
                    if not link.exists():
                        link.symlink_to(str(distribution.locate_file(top)))
        return directory

    def environment(self, extras: set[str]) -> dict[str, str]:
        """What a program is given that is to find these extras' libraries."""
        return {
            "HOME": str(self.root),
            "PATH": search_path(),
            "PYTHONPATH": str(self.libraries(extras)),
        }

    def run(
        self, extras: set[str], program: str, *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.bin / program, *arguments],
            cwd=self.root,
            env=self.environment(extras),
            check=False,
            capture_output=True,
            text=True,
        )


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    """The wheels of `scripts/dist`, installed by pip."""
    root = tmp_path_factory.mktemp("wheels")
    subprocess.run([REPOSITORY / "scripts/dist", root], check=True, capture_output=True)
    files = {name: next(root.glob(f"{name.replace('-', '_')}-*.whl")) for name in OURS}
    venv.create(root / "venv", symlinks=True)
    pip = (sys.executable, "-m", "pip", "--quiet", "--python", root / "venv" / "bin" / "python")
    offline = ("--no-index", "--no-deps", "--disable-pip-version-check")
    subprocess.run([*pip, "install", *offline, *files.values()], check=True)
    return Wheels(files, root / "venv" / "bin", root)


@pytest.mark.parametrize("name", OURS)
def test_a_wheel_tells_what_it_is(wheels, name):
    told = wheels.metadata(name)
    assert told["License-Expression"] == "Apache-2.0"
    assert {line.partition(",")[0] for line in told.get_all("Project-URL", [])} >= {
        "Homepage",
        "Documentation",
    }
    targets = re.findall(r"\]\(([^)]+)\)", told.get_payload())
    assert targets
    # PyPI shows the page alone.
    assert [each for each in targets if not each.startswith(("https://", "#"))] == []
    with ZipFile(wheels.files[name]) as wheel:
        inside = set(wheel.namelist())
    assert f"{name.replace('-', '_')}/py.typed" in inside
    assert any(path.endswith("licenses/LICENSE") for path in inside)
    assert {path.partition("/")[0].partition("-")[0] for path in inside} == {name.replace("-", "_")}


def test_both_have_one_version(wheels):
    assert aiobuildkit.__version__ == function_builder.__version__
    for name in OURS:
        assert wheels.metadata(name)["Version"] == function_builder.__version__
    pins = requirements(wheels.metadata("function-builder"), set())
    assert f"aiobuildkit=={aiobuildkit.__version__}" in map(str, pins)


def test_the_bare_install_is_the_client(wheels):
    assert wheels.needed(set()) == CLIENT
    modules = "function_builder.client", "function_builder.contract.secrets", "aiobuildkit"
    done = wheels.run(
        set(), "python", "-c", f"from function_builder import *; import {', '.join(modules)}"
    )
    assert (done.stderr, done.returncode) == ("", 0)


def test_aiobuildkit_needs_nothing_of_function_builder(wheels):
    program = """
import pkgutil, sys, aiobuildkit
for module in pkgutil.walk_packages(aiobuildkit.__path__, "aiobuildkit."):
    __import__(module.name)
assert not any(name.startswith("function_builder") for name in sys.modules)
"""
    done = wheels.run(set(), "python", "-c", program)
    assert (done.stderr, done.returncode) == ("", 0)


def test_the_bare_install_builds(wheels, builder: RunningBuilder, registry: str):
    program = f"""
from pathlib import Path
from function_builder import Client
secret = Path({str(builder.secrets / "payload-secret")!r}).read_bytes().strip()
with Client({builder.url!r}, payload_secret=secret) as client:
    files = {{"Dockerfile": "FROM scratch\\nCOPY . /\\n", ".dockerignore": "*.md", "a": "1"}}
    result = client.build(files=files, image={f"{registry}/wheels/bare:1"!r}).raise_for_status()
print(result.digest)
"""
    done = wheels.run(set(), "python", "-c", program)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", done.stdout), done.stderr


@pytest.mark.parametrize(
    ("extras", "commands"),
    [
        ("cli", tuple(name for name in COMMANDS if name not in ("certs", *SERVER))),
        ("certs", ("certs",)),
        ("server", SERVER),
    ],
)
def test_an_extra_has_all_that_its_commands_load(wheels, extras, commands):
    program = f"""
import sys
from importlib import import_module
for command in {[each for each in commands if each not in ("logs", "cancel", "retry")]}:
    import_module(f"function_builder.cli.{{command}}")
"""
    done = wheels.run({extras}, "python", "-c", program)
    assert (done.stderr, done.returncode) == ("", 0)
    done = wheels.run({extras}, "function-builder", commands[0], "--frob")
    assert "No such option: --frob" in done.stderr


@pytest.mark.parametrize(
    ("extras", "arguments", "extra"),
    [
        ("", ("completion", "bash"), "cli"),
        ("", ("build", "."), "cli"),
        ("", ("serve",), "server"),
        ("cli", ("serve",), "server"),
        ("cli", ("up",), "server"),
        ("cli", ("doctor",), "server"),
        ("cli", ("certs", "."), "certs"),
    ],
)
def test_a_missing_extra_is_named_in_one_line(wheels, extras, arguments, extra):
    done = wheels.run({*filter(None, [extras])}, "function-builder", *arguments)
    assert done.returncode == 1
    advice = re.escape(f"pip install 'function-builder[{extra}]'")
    assert re.fullmatch(rf"error: \w+ is missing: {advice}\n", done.stderr), done.stderr


@pytest.mark.parametrize(
    ("arguments", "begin"),
    [
        (["--version"], f"function-builder {function_builder.__version__}\n"),
        (["tenants", "add", "--help"], "Usage: function-builder tenants add [OPTIONS] NAME\n"),
    ],
)
def test_a_question_needs_no_extra(wheels, arguments, begin):
    done = wheels.run(set(), "function-builder", *arguments)
    assert (done.stdout[: len(begin)], done.returncode) == (begin, 0)


def test_a_queue_without_its_extra_is_named_in_one_line(wheels):
    (wheels.root / "payload-secret").write_text("0123456789abcdef")
    environment = {
        **wheels.environment({"server"}),
        "nats_url": "nats://127.0.0.1:1",
        "buildkit_url": "tcp://127.0.0.1:1",
        "secret_mount_path": str(wheels.root),
        "listen": free_address(),
        "metrics_listen": free_address(),
        "store_url": f"file://{wheels.root}",
    }
    done = subprocess.run(
        [wheels.bin / "function-builder", "serve"],
        env=environment,
        cwd=wheels.root,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert re.fullmatch(r"error: nats_url needs \w+: pip install 'function-builder\[queue\]'", last)


async def test_up_works_outside_a_clone(wheels, tmp_path, engine_root):
    """With the programs that are on PATH; that it compiles those that are not is tested apart."""
    flags = ("--listen", free_address(), "--metrics-listen", free_address())
    state = engine_root / "wheel"
    up = await asyncio.create_subprocess_exec(
        *(wheels.bin / "function-builder", "up", *flags),
        *("--registry-listen", free_address(), "--state-dir", state),
        cwd=tmp_path,
        env={**wheels.environment({"server", "cli"}), "PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert up.stdout is not None
    printed = ""
    try:
        async with asyncio.timeout(120):
            while "Ctrl-C" not in printed:
                line = await up.stdout.readline()
                assert line, printed
                printed += line.decode()
    finally:
        up.send_signal(signal.SIGINT)
        rest, _ = await up.communicate()
    assert "/hello:latest@sha256:" in printed
    assert "queue      none: pip install 'function-builder[queue]'" in printed
    assert rest.decode().endswith("all stopped\n")
    assert up.returncode == 0
