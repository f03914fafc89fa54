"""A build that the client follows: the reply's objects, then the result."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import replace
from http import HTTPStatus
from typing import Final

from function_builder.client.answers import cut_short, read_whole
from function_builder.client.errors import Refused
from function_builder.client.runtime import Answer, BrokenExchange, SilentPeer
from function_builder.client.verifier import Verifier
from function_builder.contract.errors import BUSY
from function_builder.contract.result import BuildResult, BuildStatus, parse_result

STREAM_TYPE: Final = "application/x-ndjson"
_LONGEST_LINE: Final = 1024 * 1024


class BuildStream:
    """An asynchronous iterator over a build's progress; made by `AsyncClient.stream`.

    It yields the reply's objects with `status` `in_progress`, each with the log's next lines
    (none in a heartbeat). `result` gives the last object, which has no log.
    """

    def __init__(
        self,
        response: Answer,
        verifier: Verifier,
        again: Callable[[], Awaitable[tuple[Answer, Verifier]]] | None = None,
    ) -> None:
        self._response = response
        self._verifier = verifier
        self._again = again
        self._first_step = 0
        self._last_step = 0
        self._result: BuildResult | None = None
        self._progress = self._read()

    def __aiter__(self) -> AsyncIterator[BuildResult]:
        """Continue after the last iteration."""
        return self._progress

    async def result(self) -> BuildResult:
        """Wait for the build's end, skipping progress not yet read.

        If the reply ends, breaks or times out without a result, the build has failed. The builder
        cancels a build whose client disconnects, so it may not have pushed the image.

        Raises:
            Refused: the reply is not that of a build, or the build waited for a slot and got none.
        """
        async for _ in self._progress:
            pass
        return self._result or cut_short("the stream was left before the build ended")

    async def aclose(self) -> None:
        """Stop following; the builder cancels the build if it still runs."""
        await self._progress.aclose()
        await self._response.aclose()

    async def _read(self) -> AsyncGenerator[BuildResult]:
        try:
            if self._response.headers.get("content-type", "").startswith(STREAM_TYPE):
                async for event in self._events():
                    yield event
            else:
                yield await self._whole()
        except SilentPeer:
            self._result = cut_short("the builder fell silent before the build ended")
        except BrokenExchange:
            self._result = cut_short("the connection was lost before the build ended")

    async def _events(self) -> AsyncGenerator[BuildResult]:
        self._result = cut_short("the stream ended without saying how the build did")
        async for line in stream_lines(self._response):
            try:
                event = parse_result(line)
            except ValueError:
                self._result = cut_short("the stream has a line that is not a build's progress")
                return
            if event.ended:
                if event.error.startswith(BUSY):
                    raise Refused(HTTPStatus.TOO_MANY_REQUESTS, event.error)
                if event.missing and self._again is not None:
                    await self._repeat(self._again)
                    async for repeated in self._read():
                        yield repeated
                    return
                self._result = self._verifier.checked(line, event)
                return
            self._verifier.update(line + b"\n")
            yield self._renumbered(event)

    async def _repeat(self, again: Callable[[], Awaitable[tuple[Answer, Verifier]]]) -> None:
        """Send all of the request: BuildKit lost what it had, after the stream had begun."""
        await self._response.aclose()
        self._again, self._first_step = None, self._last_step
        self._response, self._verifier = await again()

    def _renumbered(self, event: BuildResult) -> BuildResult:
        """The steps of a repeated build follow those of the first attempt."""
        steps = []
        for step in event.steps:
            number, space, state = step.partition(" ")
            if number.isdecimal():
                self._last_step = max(self._last_step, self._first_step + int(number))
                number = str(self._first_step + int(number))
            steps.append(number + space + state)
        return replace(event, steps=tuple(steps)) if self._first_step else event

    async def _whole(self) -> BuildResult:
        """A reply in one piece, from a builder that does not stream; its log is the progress."""
        response = self._response
        body = await response.aread()
        result = read_whole(response.status_code, response.headers, body)
        self._result = self._verifier.checked(body, result)
        return BuildResult(status=BuildStatus.IN_PROGRESS, log=result.log)


async def stream_lines(response: Answer) -> AsyncGenerator[bytes]:
    """Lines that end in LF only, because `str.splitlines` would also split inside JSON strings.

    The last line may have no newline, and may be incomplete.
    """
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > _LONGEST_LINE:
            return
    if rest:
        yield rest
