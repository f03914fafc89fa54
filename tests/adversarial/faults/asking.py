"""Requests whose answers must be clear whatever breaks, and builders that must be whole after."""

import contextlib
import json
from pathlib import Path
from typing import Any

import httpx2

from tests.support import until
from tests.support.builders import RunningBuilder
from tests.support.requests import headers, make_tar

GOOD = make_tar({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}, {"skipPush": True})


async def ask(
    http: httpx2.AsyncClient, builder: RunningBuilder, body: bytes = GOOD
) -> dict[str, Any]:
    """Send a request that streams; what its answer ends with, held to be one clear last word."""
    sent = headers(body, stream=True)
    return last_word(builder, await http.post(f"{builder.url}/build", content=body, headers=sent))


def last_word(builder: RunningBuilder, answer: httpx2.Response) -> dict[str, Any]:
    """The end of an answer: one, at its end, that names nothing of the builder's machine."""
    if answer.headers["content-type"] == "application/x-ndjson":
        assert answer.status_code == 200
        *before, last = map(json.loads, answer.text.splitlines())
        assert {line["status"] for line in before} <= {"in_progress"}
    else:
        assert answer.status_code in (503, 507)
        last = answer.json()
    assert last["status"] in ("success", "failed")
    if last["status"] == "failed":
        error = last["error"]
        assert error.isprintable(), error
        for word in ("Traceback", "Error(", str(builder.log.parent), "/home", "asyncio"):
            assert word not in error, error
    assert isinstance(last, dict)
    return last


def is_free(builder: RunningBuilder) -> None:
    """No request holds anything: no slot, no upload, no body in the spool."""
    assert builder.metric("slots_taken") == 0
    assert builder.metric("uploads_in_progress") == 0
    assert spooled(builder.process.pid) == []


def spooled(pid: int) -> list[str]:
    """The files that a builder holds open in its spool; they have no names."""
    return [opened for opened in descriptors(pid) if "(deleted)" in opened]


def descriptors(pid: int) -> list[str]:
    """What a process has open, as proc(5) names it."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return found


async def is_whole(http: httpx2.AsyncClient, builder: RunningBuilder) -> None:
    """Nothing is held, the builder says that it is ready, and the next build is built."""
    is_free(builder)
    await until(lambda: builder.get("/ready").status_code == 200)
    reply = await ask(http, builder)
    assert reply["status"] == "success", reply
