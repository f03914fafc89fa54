"""Requests about builds that outlive their connection."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2

from function_builder.contract.reads import sign_read
from tests.support.requests import SECRET, headers, make_tar

ENDS = ("success", "failed", "cancelled")


def tiny(name: str = "x") -> bytes:
    """A body whose build takes a moment."""
    return make_tar({"Dockerfile": f"FROM scratch\nCOPY Dockerfile /{name}\n"}, {"skipPush": True})


def slow(seconds: float = 60, name: str = "x") -> bytes:
    """A body whose build takes some seconds, after a line of output."""
    # The name of the step does not have the words of its output.
    step = f"RUN echo be''gun {name} && sleep {seconds:g}"
    return make_tar({"Dockerfile": f"FROM busybox\n{step}\n"}, {"skipPush": True})


@dataclass
class QueueClient:
    """A client of one builder."""

    http: httpx2.AsyncClient
    url: str

    async def submit(self, body: bytes, **extra: str) -> httpx2.Response:
        """Send a body to be built later; `extra` are headers, with _ for -."""
        named = {name.replace("_", "-"): value for name, value in extra.items()}
        sent = headers(body) | {"Prefer": "respond-async"} | named
        return await self.http.post(f"{self.url}/build", content=body, headers=sent)

    async def submitted(self, body: bytes, **extra: str) -> str:
        """The id of a build that was accepted."""
        answer = await self.submit(body, **extra)
        assert answer.status_code == 202, answer.text
        build_id: str = answer.json()["buildId"]
        return build_id

    async def ask(self, method: str, target: str) -> httpx2.Response:
        """A signed request without a body."""
        signed = sign_read(SECRET.encode(), method, target, time.time())
        return await self.http.request(method, self.url + target, headers=signed)

    async def get(self, build_id: str) -> dict[str, Any]:
        """A build's document."""
        answer = await self.ask("GET", f"/builds/{build_id}")
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def until(self, build_id: str, *states: str, seconds: float = 60) -> dict[str, Any]:
        """A build's document when it has one of these states."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    document = await self.get(build_id)
                except (httpx2.TransportError, AssertionError):
                    document = {}
                if document.get("status") in states:
                    return document
                await asyncio.sleep(0.05)

    async def log(self, build_id: str) -> list[str]:
        """The lines of a build's log, read to the end."""
        target = f"/builds/{build_id}/log"
        answer = await self.ask("GET", target)
        assert answer.status_code == 200, answer.text
        objects = [json.loads(line) for line in answer.text.splitlines()]
        return [line for each in objects for line in each.get("log", ())]

    async def until_logged(self, build_id: str, words: str) -> None:
        """Wait until a line of a running build's log has these words."""
        async for line in self.lines(build_id):
            if words in line:
                return
        raise AssertionError(f"the log ended without {words!r}")

    async def lines(self, build_id: str) -> AsyncIterator[str]:
        """The lines of a build's log as they come."""
        target = f"/builds/{build_id}/log"
        signed = sign_read(SECRET.encode(), "GET", target, time.time())
        async with self.http.stream("GET", self.url + target, headers=signed) as answer:
            async for part in answer.aiter_lines():
                for line in json.loads(part).get("log", ()):
                    yield line

    async def all(self) -> list[dict[str, Any]]:
        """All builds, over all pages."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            answer = await self.ask("GET", f"/builds?limit=200{cursor and '&cursor=' + cursor}")
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += page["builds"]
            cursor = page.get("cursor") or page.get("next") or ""
            if not cursor:
                return found
