"""The builder's image: built by a builder from bases made here, and run as a cluster would."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import pytest_asyncio
import yaml

from function_builder import __version__
from function_builder.client import AsyncClient, BuildStatus, File
from function_builder.engine import find_tool
from tests.support import free_address, served, until
from tests.support.builders import RunningBuilder, answers, plain_get
from tests.support.compose import Composition, ServiceImage, docker_run, lay_out, rootless_buildkit
from tests.support.emulation import emulated_arm64
from tests.support.images import Image, manifest, pull, push_base, push_index, unpack
from tests.support.requests import SECRET, headers, make_tar

# Three times it compiles the modules of a whole Python.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="root alone makes a Debian with debootstrap"),
]

REPOSITORY = Path(__file__).parents[2]
NAME = "image-test/function-builder"
APP = 1000


PYTHON, PYTHON_TAG = "image-test/python", "3.13"


def make_image(
    builder: RunningBuilder, registry: str, parts: Path, tag: str, *options: str, **variables: str
) -> dict[str, str]:
    """Build the image as `make image` does; the digest of each architecture's."""
    with served(parts / "wheels") as wheels:
        arguments = {
            "PYTHON_IMAGE": f"{registry}/{PYTHON}:{PYTHON_TAG}",
            "HELPERS": "none",
            "NATS": "none",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": wheels,
            "SOURCE_DATE_EPOCH": "0",
        }
        flags = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        # BuildKit would take long to compress it, and the tests would undo it twice.
        flags += ["--compression=uncompressed", *options]
        said = subprocess.run(
            [REPOSITORY / "scripts/image", f"{registry}/{NAME}:{tag}", *flags],
            check=False,
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "VENV": sys.prefix,
                "OPENFAAS_REMOTE_BUILDER": builder.url,
                "OPENFAAS_PAYLOAD_SECRET": str(builder.secrets / "payload-secret"),
                **variables,
            },
        )
    assert said.returncode == 0, said.stderr
    return {
        each["platform"]["architecture"]: each["digest"]
        for each in manifest(registry, NAME, tag)["manifests"]
    }


@pytest.fixture(scope="module")
def parts() -> Path:
    """Debians with Python, and the wheels of the locks, all from this machine."""
    made = subprocess.run(
        [REPOSITORY / "scripts/image-parts"], check=True, stdout=subprocess.PIPE, text=True
    )
    return Path(made.stdout.strip())


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def digests(builder: RunningBuilder, registry: str, parts: Path) -> dict[str, str]:
    """The images, built at once: the digest of each architecture's."""
    pushed = [
        push_base(registry, PYTHON, f"{PYTHON_TAG}-{one}", parts / f"{one}.tar", architecture=one)
        for one in ("amd64", "arm64")
    ]
    push_index(registry, PYTHON, PYTHON_TAG, pushed)
    return make_image(builder, registry, parts, "1")


@pytest.fixture(scope="module")
def image(digests: dict[str, str], registry: str) -> Image:
    """The image that this machine runs."""
    return pull(registry, NAME, digests["amd64"])


def on_disk(registry: str, digest: str, directory: Path) -> Path:
    """An image's files, which its containers can only read."""
    root = directory / "root"
    root.mkdir()  # others may enter it, unlike its parent
    unpack(registry, NAME, digest, root)
    return root


@pytest.fixture(scope="module")
def root(image: Image, registry: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return on_disk(registry, image.digest, tmp_path_factory.mktemp("amd64"))


@pytest.fixture(scope="module")
def arm64_root(
    digests: dict[str, str], registry: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return on_disk(registry, digests["arm64"], tmp_path_factory.mktemp("arm64"))


def container(image: Image, root: Path, mounts: Mapping[str, tuple[Path, str]], **env: str) -> Any:
    """What runc is told: the image's own words, under what the chart allows it.

    Source: OCI runtime specification, `config.md`.
    """
    said = image.config["config"]
    user, group = said["User"].split(":")
    bound = [
        {"destination": where, "type": "bind", "source": str(source), "options": ["rbind", access]}
        for where, (source, access) in mounts.items()
    ]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": int(user), "gid": int(group)},
            "args": [*said["Entrypoint"], "-license-file=/var/openfaas/secrets/license"],
            "env": [*said["Env"], *(f"{name}={value}" for name, value in env.items())],
            "cwd": said["WorkingDir"],
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "root": {"path": str(root), "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
            *bound,
        ],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}]},
    }


@asynccontextmanager
async def running(
    image: Image, root: Path, buildkit: Path, tmp_path: Path
) -> AsyncIterator[RunningBuilder]:
    """The image's container, in the test's network; hold it to a clean end."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "payload-secret").write_text(SECRET)
    listen, metrics = free_address(), free_address()
    mounts = {
        "/var/openfaas/secrets": (secrets, "ro"),
        "/home/app/.local/run/buildkit": (buildkit.parent, "rw"),
    }
    told = {
        "listen": listen,
        "metrics_listen": metrics,
        "drain_delay": "0",
        "buildkit_url": f"unix:///home/app/.local/run/buildkit/{buildkit.name}",
    }
    spec = container(image, root, mounts, **told)
    (tmp_path / "config.json").write_text(json.dumps(spec))
    log = tmp_path / "log"
    runc = ["runc", "--root", str(tmp_path / "runc")]
    name = f"image-{os.getpid()}"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(*runc, "run", "--bundle", str(tmp_path), name), stdout=output, stderr=output
        )
        one = RunningBuilder(f"http://{listen}", f"http://{metrics}", process, log, secrets)
        try:
            await until(lambda: answers(one))
            yield one
            # runc passes signals on.
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 30) == 0, log.read_text()
        finally:
            end = await asyncio.create_subprocess_exec(*runc, "delete", "--force", name)
            assert await end.wait() == 0
            await process.wait()


async def test_it_is_an_ordinary_users_and_holds_no_tool_for_an_intruder(image):
    said = image.config["config"]
    assert said["User"] == f"{APP}:{APP}"
    assert said["WorkingDir"] == "/home/app"
    assert image.files["home/app/pro-builder"].mode == 0o755
    programs = {
        path
        for path, file in image.files.items()
        if file.kind == "file" and "/bin/" in f"/{path}" and file.mode & 0o111
    }
    assert programs == {"usr/bin/python3.13", "opt/function-builder/bin/function-builder"}
    assert not [path for path, file in image.files.items() if file.mode & 0o6000]
    writable = {
        path for path, file in image.files.items() if file.kind != "symlink" and file.mode & 0o022
    }
    assert writable == {"tmp"}


async def test_the_same_sources_give_the_same_digest(builder, registry, parts, digests):
    again = make_image(builder, registry, parts, "again", "--no-cache", PLATFORMS="linux/amd64")
    assert again["amd64"] == digests["amd64"]


def test_its_modules_are_compiled_whatever_the_times_of_their_sources(image):
    compiled = [file.content for path, file in image.files.items() if path.endswith(".pyc")]
    assert compiled
    assert {content[4] for content in compiled} == {1}  # PEP 552: by an unchecked hash


async def test_it_builds_with_a_read_only_root_and_no_rights(
    image, root, registry, fresh_buildkitd, tmp_path
):
    daemon = await fresh_buildkitd()
    socket = Path(daemon.address.removeprefix("unix://"))
    for path in (socket.parent, socket):
        os.chown(path, APP, APP)
    async with running(image, root, socket, tmp_path) as builder:
        name = f"{registry}/image-test/built:1"
        body = make_tar({"Dockerfile": "FROM busybox\nRUN echo made > /made\n"}, {"image": name})
        answer = httpx2.post(
            f"{builder.url}/build", content=body, headers=headers(body), timeout=100, verify=False
        )
        assert answer.json()["status"] == "success", answer.text
        assert pull(registry, "image-test/built", "1").text("made") == "made\n"
        assert "builds_total" in builder.metrics()


LOAD = """
import sys
from ctypes import CDLL
for path in sys.argv[1:]:
    CDLL(path)
print(len(sys.argv[1:]))
"""


def test_its_other_architecture_is_complete_though_nothing_of_it_ran(arm64_root):
    """The loader of arm64 finds each library that the interpreter and an extension need."""
    files = [path for path in arm64_root.rglob("*") if path.is_file() and not path.is_symlink()]
    programs = [path for path in files if path.read_bytes().startswith(b"\x7fELF")]
    machines = {path.read_bytes()[18:20] for path in programs}
    assert machines == {b"\xb7\0"}  # EM_AARCH64
    extensions = [f"/{path.relative_to(arm64_root)}" for path in programs if ".so" in path.name]
    assert len(extensions) > 50
    with emulated_arm64():
        for arguments, said in (
            (["function-builder", "--version"], f"function-builder {__version__}"),
            (["python3", "-c", LOAD, *extensions], str(len(extensions))),
        ):
            program = f"/opt/function-builder/bin/{arguments[0]}"
            command = ["chroot", arm64_root, program, *arguments[1:]]
            ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=100)
            assert ran.stdout.strip() == said


def _is_ready() -> bool:
    try:
        return plain_get("http://127.0.0.1:8080/ready").status_code == 200
    except httpx2.TransportError:
        return False


@pytest.fixture
def images(image: Image, root: Path, tmp_path: Path) -> dict[str, ServiceImage]:
    """The builder's image; programs of this machine stand for the others."""
    said = image.config["config"]
    stored = lay_out(tmp_path / "registry", "registry")
    (stored / "config.json").write_text(
        json.dumps(
            {
                "version": 0.1,
                "storage": {"filesystem": {"rootdirectory": "/var/lib/registry"}},
                "http": {"addr": ":5000"},
            }
        )
    )
    registries = ServiceImage(stored, ("registry",), ("serve", "/config.json"))
    return {
        "builder": ServiceImage(
            root, said["Entrypoint"], user=said["User"], env=said["Env"], cwd=said["WorkingDir"]
        ),
        "buildkit": rootless_buildkit(tmp_path / "buildkit"),
        **dict.fromkeys(("registry", "store", "socket"), registries),
        "nats": ServiceImage(lay_out(tmp_path / "nats", "nats-server"), ("nats-server",)),
    }


@pytest.fixture
def payload_secret(tmp_path: Path) -> Path:
    path = tmp_path / "payload-secret"
    path.write_text(SECRET + "\n")
    return path


COMPOSE = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
HELLO: dict[str, str | bytes | File] = {
    "Dockerfile": "FROM scratch\nCOPY sh /bin/sh\nRUN echo hello >/said\n",
    "sh": File(find_tool("busybox").read_bytes(), 0o755),
}


async def test_compose_yaml_builds_pushes_and_builds_on_what_it_pushed(
    images, payload_secret, tmp_path
):
    async with (
        Composition(COMPOSE, images, tmp_path / "work", tmp_path).up(),
        AsyncClient("http://127.0.0.1:8080", payload_secret=SECRET.encode()) as client,
    ):
        await until(_is_ready)
        build = await client.submit(files=HELLO, image="registry:5000/hello:1")
        result = await build.wait()
        assert result.status is BuildStatus.SUCCESS, result.error
        pushed = await asyncio.to_thread(pull, "127.0.0.1:5000", "hello", "1")
        assert pushed.text("said") == "hello\n"
        assert pushed.digest == result.digest
        files = {"Dockerfile": "FROM registry:5000/hello:1\nRUN echo again >>/said\n"}
        result = await client.build(files=files, image="registry:5000/again:1")
        assert result.status is BuildStatus.SUCCESS, result.error
        pushed = await asyncio.to_thread(pull, "127.0.0.1:5000", "again", "1")
        assert pushed.text("said") == "hello\nagain\n"


async def test_the_line_of_docker_run_builds_and_pushes(images, payload_secret, tmp_path):
    """As docs/install.md has it; a BuildKit is at its address."""
    page = (REPOSITORY / "docs" / "install.md").read_text()
    (line,) = re.findall(r"^docker run --detach (?:.*\\\n)*.*$", page, re.MULTILINE)
    name, service = docker_run(line.replace("\\\n", " ").replace("$PWD", str(tmp_path)))
    address = urlsplit(service["environment"]["buildkit_url"])
    buildkit = COMPOSE["services"]["buildkit"]
    listen = [f"--addr=tcp://127.0.0.1:{address.port}", *buildkit["command"][1:]]
    services = {
        name: service,
        address.hostname: {**buildkit, "command": listen},
        **{other: COMPOSE["services"][other] for other in ("socket", "registry")},
    }
    ours = {name: images["builder"], address.hostname: images["buildkit"], **images}
    async with (
        Composition(COMPOSE | {"services": services}, ours, tmp_path / "work", tmp_path).up(),
        AsyncClient("http://127.0.0.1:8080", payload_secret=SECRET.encode()) as client,
    ):
        await until(_is_ready)
        result = await client.build(files=HELLO, image="registry:5000/hello:1")
        assert result.status is BuildStatus.SUCCESS, result.error
        pushed = await asyncio.to_thread(pull, "127.0.0.1:5000", "hello", "1")
        assert pushed.text("said") == "hello\n"
