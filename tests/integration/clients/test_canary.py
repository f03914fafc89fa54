"""A build secret is looked for wherever it must not be.

Beside it goes a marker that is no secret: where the marker is not found, the search has not looked.
"""

import base64
import gzip
import json
import os
import random
import re
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from function_builder.contract.secrets import SecretsKey, seal
from tests.integration.clients.programs import run
from tests.support import until
from tests.support.builders import RunningBuilder, running_builder
from tests.support.images import pull
from tests.support.requests import headers, make_tar

pytestmark = pytest.mark.integration


class Search:
    """Looks for a canary, in the clear or as base64, whole or half, and for a marker."""

    def __init__(self) -> None:
        self.canary, self.marker = uuid.uuid4().hex, uuid.uuid4().hex
        halves = self.canary[:16].encode(), self.canary[16:].encode()
        self._needles = [*halves, *(_base64(half, shift) for half in halves for shift in range(3))]
        self.marked: set[str] = set()

    def look(self, place: str, what: bytes) -> None:
        """Look through what was found at a place."""
        found = [needle for needle in self._needles if needle in what]
        assert not found, f"the secret is in {place}: {_around(what, found[0])!r}"
        if self.marker.encode() in what:
            self.marked.add(place)


def _base64(data: bytes, shift: int) -> bytes:
    """What of `data` shows in the base64 of bytes that hold it, so many bytes after a border."""
    encoded = base64.b64encode(bytes(shift) + data)
    return encoded[-(-shift * 4 // 3) + (shift > 0) : -4]


def _around(what: bytes, needle: bytes) -> bytes:
    at = what.index(needle)
    return what[max(at - 100, 0) : at + 100]


def test_the_search_finds_base64_wherever_it_begins():
    for lead in range(6):
        search = Search()
        hidden = base64.b64encode(b"x" * lead + search.canary.encode() + b"tail")
        with pytest.raises(AssertionError, match="the secret is in here"):
            search.look("here", b"before " + hidden)


OCCURRENCES = 5
"""How often the Dockerfile below shows a secret; each line of many counts."""


def dockerfile(marker: str, pause: str) -> str:
    """Show the secrets, at once and in bits; then wait to be looked at."""
    return rf"""
FROM busybox
ARG MARKER
RUN --mount=type=secret,id=token --mount=type=secret,id=many \
    echo {marker} | tee /marker; \
    cd /run/secrets; echo this is $(cat token), is it; cat many; \
    sed 's/./&\n/g' token | while read -r letter; do printf %s $letter; sleep 0.01; done; echo; \
    printf 'without an end: %s' $(cat token) >&2; sleep 0.1; echo >&2; \
    echo all is said; sleep {pause} || true
"""


@pytest.fixture
async def stack(fresh_buildkitd, tmp_path):
    """A builder, a BuildKit that has built nothing yet, and the public key."""
    daemon = await fresh_buildkitd()
    key = SecretsKey.generate()
    (tmp_path / "key").write_bytes(key.to_text())
    async with running_builder(
        tmp_path / "b", daemon.address, build_secrets_private_key_path=str(tmp_path / "key")
    ) as builder:
        yield builder, daemon, key.public


async def test_a_secret_is_nowhere_to_be_found(stack, registry, tmp_path):
    builder, daemon, public_key = stack
    search = Search()
    values = {
        "token": search.canary.encode(),
        "many": f"one {search.canary}\ntwo {search.canary}\r\n\n".encode(),
    }
    envelope = seal(values, public_key)
    await build_with_history(daemon.address, tmp_path, search)
    roots = {
        "the builder's files": builder.log.parent,
        "BuildKit's files": Path(daemon.address.removeprefix("unix://")).parent,
    }

    def look_meanwhile() -> None:
        look_at_processes(search)
        for place, root in roots.items():
            look_at_files(f"{place} meanwhile", root, search)

    image = f"{registry}/canary/{search.marker}:1"
    reply = await build(builder, image, search.marker, envelope, look_meanwhile)
    assert b'"status":"success"' in reply
    assert reply.count(b"***") == OCCURRENCES, reply.decode()
    search.look("a reply", reply)
    search.look("a failed build's reply", failing_build(builder, search, envelope))
    look_at_image(registry, search)
    await look_at_history(daemon.address, search)
    for place, root in roots.items():
        look_at_files(place, root, search)
    assert search.marked == {
        "a reply",
        "a failed build's reply",
        "command lines",
        "environments",
        "the image's config",
        "the image's files",
        "BuildKit's records",
        "BuildKit's logs",
        "the builder's files",
        "BuildKit's files",
        "the builder's files meanwhile",
        "BuildKit's files meanwhile",
    }


async def build_with_history(address: str, tmp_path: Path, search: Search) -> None:
    """Leave something in BuildKit's history for the search to find: the builder leaves nothing."""
    directory = tmp_path / "with-history"
    directory.mkdir()
    (directory / "Dockerfile").write_text(f"FROM busybox\nRUN echo {search.marker}\n")
    built = await run(
        (
            *("buildctl", "--addr", address, "build", "--frontend=dockerfile.v0"),
            *(f"--local=context={directory}", f"--local=dockerfile={directory}"),
        )
    )
    assert built.code == 0, built.output


def failing_build(builder: RunningBuilder, search: Search, envelope: bytes) -> bytes:
    commands = f"echo {search.marker}; cat /run/secrets/token; cat /run/secrets/token >&2; exit 7"
    body = make_tar(
        {"Dockerfile": f"FROM busybox\nRUN --mount=type=secret,id=token {commands}\n"},
        {"skipPush": True},
        secrets=envelope,
    )
    answer = httpx2.post(
        builder.url + "/build", content=body, headers=headers(body), timeout=60, verify=False
    )
    assert answer.status_code == 500
    assert "***" in answer.text
    return answer.content


async def build(
    builder: RunningBuilder, image: str, marker: str, envelope: bytes, meanwhile: Callable[[], None]
) -> bytes:
    """Build, and call `meanwhile` while the secrets are mounted; returns the reply."""
    pause = str(random.randint(10**8, 10**9))
    config = {"image": image, "buildArgs": {"MARKER": marker}}
    body = make_tar({"Dockerfile": dockerfile(marker, pause)}, config, secrets=envelope)
    reply, looked = b"", False
    async with (
        httpx2.AsyncClient(timeout=60, verify=False) as client,
        client.stream(
            "POST", builder.url + "/build", content=body, headers=headers(body, stream=True)
        ) as stream,
    ):
        async for piece in stream.aiter_bytes():
            reply += piece
            if not looked and re.search(rb'"l: \S+ all is said"', reply):
                looked = True
                await until(lambda: pausing(pause) is not None)
                meanwhile()
                resume(pause)
    return reply


def processes() -> Iterator[Path]:
    return (path for path in Path("/proc").iterdir() if path.name.isdigit())


def pausing(pause: str) -> int | None:
    """The process that the Dockerfile waits for."""
    for process in processes():
        with suppress(OSError):
            if (process / "cmdline").read_bytes() == f"sleep\0{pause}\0".encode():
                return int(process.name)
    return None


def resume(pause: str) -> None:
    process = pausing(pause)
    assert process is not None
    os.kill(process, signal.SIGTERM)


def look_at_processes(search: Search) -> None:
    """All that this user may look at: the builder, BuildKit, and everything below them."""
    for process in processes():
        if process.name != str(os.getpid()):
            with suppress(OSError):
                search.look("command lines", (process / "cmdline").read_bytes())
            with suppress(OSError):
                search.look("environments", (process / "environ").read_bytes())


def look_at_image(registry: str, search: Search) -> None:
    image = pull(registry, f"canary/{search.marker}", "1")
    search.look("the image's config", json.dumps(image.config).encode())
    for path, file in image.files.items():
        search.look("the image's files", path.encode() + b"\0" + file.content)


async def look_at_history(address: str, search: Search) -> None:
    """What BuildKit's API tells of past builds."""
    debug = ("buildctl", "--addr", address, "debug")
    listed = await run((*debug, "histories", "--format", "{{json .}}"))
    assert listed.code == 0, listed.output
    search.look("BuildKit's records", listed.output.encode())
    references = re.findall(r'"Ref":"([^"]+)"', listed.output)
    assert len(references) == 1, listed.output
    for reference in references:
        log = await run((*debug, "logs", "--progress", "rawjson", reference))
        for line in log.output.splitlines():
            for entry in json.loads(line).get("logs") or ():
                search.look("BuildKit's logs", base64.b64decode(entry["data"]))


def look_at_files(place: str, root: Path, search: Search) -> None:
    # BuildKit tidies up meanwhile: unlike rglob, walk passes over directories that have gone.
    for path in (Path(folder, name) for folder, _, names in os.walk(root) for name in names):
        with suppress(FileNotFoundError):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                search.look(place, content)
                if content.startswith(b"\x1f\x8b"):
                    search.look(place, gzip.decompress(content))
