"""The clients of a soak: each sends request after request, and holds every answer to its promise.

A build may fail while something is broken on purpose (`Faults`), with an error that says so, and
then alone. Everything else that is not as `Ask` says is kept in `wrong`, and ends as the soak's
failure.
"""

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.adversarial.soak.faults import Window
from tests.adversarial.soak.mix import Ask, Leaves
from tests.support.images import pull

BUSY = "Concurrent request limit exceeded. Max concurrent requests: "
_PATIENCE = 120.0
"""Seconds that an answer may take; builds are allowed half of it."""

_AFTER_BUSY = 0.2


class WrongAnswerError(Exception):
    """An answer, or an image, is not what was promised."""


class _LeftError(Exception):
    """The client hangs up in the middle of its upload."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    text: str
    end: dict[str, Any]


class Clients:
    """Clients of one builder.

    Args:
        builder: its URL.
        registry: `host:port` of the registry itself, to pull from.
        faults: what was broken at some moment since a time of the monotonic clock.

    Attributes:
        tally: how often each kind of request ended how.
        wrong: what was not as promised.
        sent: requests whose headers left, each of which the builder must have counted.
        maybe_sent: requests cancelled while their headers left, which the builder may have counted.
        digests: pushed images that were pulled again and were right.
    """

    def __init__(
        self, builder: str, registry: str, faults: Callable[[float], Sequence[Window]]
    ) -> None:
        self._url = f"{builder}/build"
        self._registry = registry
        self._faults = faults
        self._under_way: set[asyncio.Task[str]] = set()
        self.tally: Counter[tuple[str, str]] = Counter()
        self.wrong: list[str] = []
        self.sent = 0
        self.maybe_sent = 0
        self.digests: set[str] = set()

    async def run(self, number: int, asks: Iterator[Ask]) -> None:
        """Let `number` clients take what to ask for in turn, and wait for their last answers."""
        async with asyncio.TaskGroup() as group:
            for _ in range(number):
                group.create_task(self._client(asks))

    def hang_up(self) -> None:
        """Let every client that waits for an answer go away at once."""
        for task in self._under_way:
            task.cancel()

    async def _client(self, asks: Iterator[Ask]) -> None:
        # A connection a request: one that is kept may be closed just when it is used again.
        limits = httpx2.Limits(max_keepalive_connections=0)
        async with httpx2.AsyncClient(
            trust_env=False, timeout=_PATIENCE, limits=limits, verify=False
        ) as http:
            for ask in asks:
                while await self._once(http, ask) == "busy":
                    await asyncio.sleep(_AFTER_BUSY)

    async def _once(self, http: httpx2.AsyncClient, ask: Ask) -> str:
        task = asyncio.create_task(self._ask(http, ask))
        self._under_way.add(task)
        try:
            outcome = await task
        except asyncio.CancelledError:
            if (current := asyncio.current_task()) and current.cancelling():
                raise
            outcome = "left"
        except (WrongAnswerError, httpx2.HTTPError) as error:
            outcome = "WRONG"
            self.wrong.append(f"{ask.kind}: {type(error).__name__}: {error}")
        finally:
            self._under_way.discard(task)
        self.tally[ask.kind, outcome] += 1
        return outcome

    async def _ask(self, http: httpx2.AsyncClient, ask: Ask) -> str:
        begun = time.monotonic()
        content = _half(ask.body) if ask.leaves is Leaves.UPLOADING else ask.body
        try:
            async with http.stream(
                "POST",
                self._url,
                content=content,
                headers=ask.headers,
                extensions={"trace": self._count},
            ) as response:
                if ask.leaves is Leaves.BUILDING and response.status_code == 200:
                    await anext(response.aiter_lines())
                    return "left"
                await response.aread()
        except _LeftError:
            return "left"
        answer = _read(response, ask)
        if answer.status == 429:
            return "busy"
        if excuse := self._excuse(answer, begun):
            return excuse
        return await self._judge(ask, answer)

    async def _count(self, event: str, _: dict[str, Any]) -> None:
        if event == "http11.send_request_headers.complete":
            self.sent += 1
        elif event == "http11.send_request_headers.failed":
            self.maybe_sent += 1

    def _excuse(self, answer: _Answer, begun: float) -> str:
        """The fault that explains a failure, if one was there and the answer speaks of it."""
        error = str(answer.end.get("error", ""))
        for fault in self._faults(begun):
            if any(words in error for words in fault.words):
                return f"failed: {fault.name}"
        return ""

    async def _judge(self, ask: Ask, answer: _Answer) -> str:
        status = 200 if ask.streamed and ask.status in (200, 500) else ask.status
        if ask.leaves or answer.status != status:
            said = answer.end.get("error") or answer.text[:300]
            raise WrongAnswerError(f"{answer.status} in place of {status}: {said}")
        if ask.error:
            if answer.end["status"] != "failed" or ask.error not in answer.end["error"]:
                raise WrongAnswerError(f"not «{ask.error}»: {answer.end}")
            return "failed" if ask.status == 500 else "refused"
        if answer.end["status"] != "success":
            raise WrongAnswerError(f"no success: {answer.end['error']}")
        assert ask.image is not None
        await asyncio.to_thread(self._check_image, ask, ask.image, answer.end["digest"])
        return "built"

    def _check_image(self, ask: Ask, name: tuple[str, str], digest: str) -> None:
        try:
            image = pull(self._registry, *name)
        except httpx2.HTTPStatusError as error:
            raise WrongAnswerError(f"{name} is not in the registry: {error}") from error
        if image.digest != digest:
            raise WrongAnswerError(f"{name} is {image.digest}, and the answer said {digest}")
        files = {path: file.content for path, file in image.files.items() if file.kind == "file"}
        for path, content in ask.files.items():
            if files.get(path) != content:
                raise WrongAnswerError(f"{name}: {path} holds {_short(files.get(path))}")
        if strays := {path for path in files if path.startswith("f/")} - set(ask.files):
            raise WrongAnswerError(f"{name} holds what no request sent: {_list(strays)}")
        self.digests.add(digest)


def _read(response: httpx2.Response, ask: Ask) -> _Answer:
    """Take an answer apart; a stream must have one last line, and nothing like it before."""
    text = response.text
    if response.status_code == 429:
        if not text.startswith(BUSY):
            raise WrongAnswerError(f"429 says: {text[:300]}")
        return _Answer(429, text, {})
    objects = [json.loads(line) for line in text.splitlines()]
    ends = [each for each in objects if each["status"] in ("success", "failed")]
    if len(ends) != 1 or objects[-1] is not ends[0]:
        raise WrongAnswerError(f"{len(ends)} last lines for {ask.kind}: {text[-300:]}")
    return _Answer(response.status_code, text, ends[0])


async def _half(body: bytes) -> AsyncIterator[bytes]:
    yield body[: len(body) // 2]
    raise _LeftError


def _short(content: bytes | None) -> str:
    if content is None:
        return "nothing"
    return repr(content) if len(content) < 100 else hashlib.sha256(content).hexdigest()


def _list(paths: Iterable[str]) -> str:
    return ", ".join(sorted(paths))
