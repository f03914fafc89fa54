"""What a build costs in what no machine changes: calls, entries, requests, frames, bytes.

Times tell little on a machine that others use. These counts are the same on each; one that grew is
work that every build does from now on. If it is worth it, write the new figure here, and in the
commit what it buys.
"""

import random
from collections.abc import Mapping

import httpx2
import pytest

from aiobuildkit import Client
from function_builder.context.digests import content_digests
from function_builder.contract.archive import open_archive
from function_builder.contract.context import read_context
from tests.support.builders import running_builder
from tests.support.contexts import contexts_released
from tests.support.requests import headers, make_tar
from tests.support.wiretap import Tap, wiretap

pytestmark = pytest.mark.integration

_TINY = {
    "Dockerfile": "FROM busybox\nCOPY deps.txt /\nRUN cp deps.txt installed.txt\nCOPY . /\n",
    "deps.txt": "one\ntwo\n",
    "handler.sh": "#!/bin/sh\necho hello\n",
}
_GENERATOR = random.Random(5)
_MANY = {
    "Dockerfile": "FROM busybox\nCOPY . /app/\n",
    "handler.sh": "#!/bin/sh\necho hello\n",
} | {f"lib/part{n // 20:02d}/file{n:03d}.js": _GENERATOR.randbytes(2000).hex() for n in range(198)}


# BuildKit has the context of the session before; the additional call is that session.
_TINY_CACHED = {
    "calls": 4,
    "called back": 0,
    "DiffCopy": 0,
    "STAT": 0,
    "REQ": 0,
    "content bytes": 0,
}
# BuildKit takes the Dockerfile and the ignore file beside it anew: two REQs.
_ONE_OF_200_CHANGED = {
    "calls": 3,
    "called back": 2,
    "DiffCopy": 2,
    "STAT": 215,
    "REQ": 3,
    "content bytes": 47,
}

# The most, with room: how many messages share a frame depends a little on who is quicker.
_TINY_CACHED_AT_MOST = {"data frames": 10, "bytes to BuildKit": 3000}
_ONE_OF_200_CHANGED_AT_MOST = {"data frames": 30, "bytes to BuildKit": 13_000}


async def measured(
    buildkitd: str, registry: str, tmp_path, first: Mapping[str, str], second: Mapping[str, str]
) -> Tap:
    """What went to BuildKit for the second of two builds of a function."""
    async with (
        wiretap(buildkitd, tmp_path / "tap") as (address, taps),
        running_builder(tmp_path / "builder", address, insecure="true") as builder,
        httpx2.AsyncClient(trust_env=False, timeout=100, verify=False) as http,
        Client(buildkitd) as client,
    ):
        for number, files in enumerate((first, second)):
            image = f"{registry}/counts/{tmp_path.name}:{number}"
            body = make_tar(files, {"image": image}, mtime=1_700_000_000 + number)
            async with contexts_released(client):
                answer = await http.post(
                    f"{builder.url}/build", content=body, headers=headers(body)
                )
            assert answer.json()["status"] == "success", answer.text
    builds = [tap for tap in taps if tap.is_build]
    # The first one has a second connection, to ask the registry for what was pushed.
    assert len(builds) == 3, "a build has one connection to BuildKit"
    return builds[-1]


def check(tap: Tap, exact: Mapping[str, int], at_most: Mapping[str, int]) -> None:
    """Hold a build to its figures, and name those that it broke."""
    found = {
        "calls": tap.calls.total(),
        "called back": tap.called_back.total(),
        "DiffCopy": tap.called_back["DiffCopy"],
        "STAT": tap.packets["STAT"],
        "REQ": tap.packets["REQ"],
        "content bytes": tap.content,
        "data frames": tap.frames,
        "bytes to BuildKit": tap.sent,
    }
    wrong = [
        f"{name}: {found[name]}, not {value}"
        for name, value in exact.items()
        if found[name] != value
    ]
    wrong += [
        f"{name}: {found[name]}, not {value} at most"
        for name, value in at_most.items()
        if found[name] > value
    ]
    assert not wrong, (
        f"a build takes something else than before: {'; '.join(wrong)}. If that is worth it, write "
        f"the new figure at the top of {__file__}. (It asked for {dict(tap.calls)}, BuildKit for "
        f"{dict(tap.called_back)}.)"
    )


async def test_what_a_tiny_cached_build_takes(buildkitd, registry, tmp_path):
    tap = await measured(buildkitd, registry, tmp_path, _TINY, _TINY)
    check(tap, _TINY_CACHED, _TINY_CACHED_AT_MOST)


async def test_what_a_build_of_200_files_takes_of_which_one_changed(buildkitd, registry, tmp_path):
    edited = _MANY | {"handler.sh": "#!/bin/sh\necho HELLO\n"}
    tap = await measured(buildkitd, registry, tmp_path, _MANY, edited)
    check(tap, _ONE_OF_200_CHANGED, _ONE_OF_200_CHANGED_AT_MOST)


class _Counting:
    """A request's archive that counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self.reads = 0
        self.bytes_read = 0
        self._data = data

    def read(self, offset: int, size: int) -> bytes:
        data = self._data[offset : offset + size]
        self.reads += 1
        self.bytes_read += len(data)
        return data


def test_an_archive_is_read_once_for_its_index_and_once_for_its_digests():
    body = make_tar(_MANY, {"image": "registry.example/counts:1"}, mtime=1)
    spool = _Counting(body)
    context = read_context(open_archive(spool, max_entries=1000))
    content_digests(spool, context.entries)
    # Small files are read along with the headers between them: twice the bytes, a tenth of the
    # reads that a header and a file each would take, which cost more (docs/performance.md).
    assert spool.bytes_read <= 2 * spool.size + 80_000, "more is read of an archive than before"
    assert spool.reads <= len(_MANY) // 4, "an archive is read in more pieces than before"
