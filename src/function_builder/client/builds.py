"""A build that does not need the client's connection: the client finds it by its id."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

from function_builder.client.answers import cut_short, lost_delay, read_accepted, read_document
from function_builder.client.errors import ClientError, Refused, Unreachable
from function_builder.client.request import SignedBody
from function_builder.client.runtime import BrokenExchange
from function_builder.client.stream import STREAM_TYPE, stream_lines
from function_builder.client.transport import Transport
from function_builder.contract.builds import (
    IDEMPOTENCY_HEADER,
    RESPOND_ASYNC,
    BuildInfo,
    BuildState,
    parse_build_info,
)
from function_builder.contract.result import BuildResult, parse_result

_BEHIND_ALL: Final = 10**15 - 1
"""More lines than a log can have: a reader that starts there only gets the end."""

_MAX_KEY: Final = 255

_AFTER: Final = re.compile(rb'"after":(\d{1,15})\}')
"""The number of the last line, in each object of a log."""


class BuildHandle:
    """One build on the builder, queued, running or ended; made by `AsyncClient`.

    Attributes:
        id: the build's id.
        token: allows reading and cancelling this one build without the payload secret; None if it
            is unknown.
        info: the build in the last answer; None before the first answer.
    """

    def __init__(
        self,
        transport: Transport,
        build_id: str,
        *,
        token: str | None = None,
        info: BuildInfo | None = None,
    ) -> None:
        self.id = build_id
        self.token = token
        self.info = info
        self._path = f"/builds/{quote(build_id, safe='')}"
        self._transport = transport
        self._result: BuildResult | None = None
        # Before the first answer, an address that does not answer is probably wrong.
        self._answered = info is not None

    @classmethod
    def accepted(cls, transport: Transport, document: Mapping[str, Any]) -> BuildHandle:
        """The build of a 202 answer."""
        token = document.get("token")
        info = parse_build_info(document)
        return cls(transport, info.id, token=str(token) if token else None, info=info)

    async def status(self) -> BuildInfo:
        """Request the state of the build.

        Raises:
            Unreachable: no answer.
            Refused: the builder does not have the build, or does not accept the proof.
        """
        self.info = await self._ask("GET")
        self._answered = True
        return self.info

    async def log(self, *, after: int = 0) -> AsyncGenerator[BuildResult]:
        """Yield the log from its beginning until the build ends, as `BuildStream` yields it.

        After a lost connection, the client reconnects and continues after the last line. Leaving
        the iteration does not stop the build.

        Args:
            after: how many lines to skip.

        Raises:
            Unreachable: no answer for `retry_timeout` seconds.
            Refused: the builder does not have the build, or does not accept the proof.
        """
        read, left, attempt = after, self._transport.retry_timeout, 0
        while True:
            try:
                async with aclosing(self._connected(read)) as connected:
                    async for reached, progress in connected:
                        self._answered = True
                        read, left, attempt = reached, self._transport.retry_timeout, 0
                        if progress.log:
                            yield progress
            except ClientError as error:
                delay = lost_delay(error, attempt)
                if not self._answered or delay is None or delay > left:
                    raise
                await self._transport.pause(error, delay)
                left, attempt = left - delay, attempt + 1
            else:
                return

    async def wait(self) -> BuildResult:
        """Wait for the build's end; a failed or cancelled build is a result too, without its log.

        Errors are those of `log`.
        """
        if self._result is None:
            async for _ in self.log(after=_BEHIND_ALL):
                pass
        return self._result or cut_short("the log ended without the build's result")

    async def cancel(self) -> BuildInfo:
        """Cancel the build, queued or running.

        Raises:
            Refused: 409: it has ended; or as `status`.
        """
        self.info = await self._ask("DELETE")
        return self.info

    async def retry(self) -> BuildHandle:
        """Build the same body again, as a new build.

        Raises:
            Refused: 409: the build has not ended; 410: the body was deleted; or as `status`.
        """
        headers = {IDEMPOTENCY_HEADER: new_key(), "Prefer": RESPOND_ASYNC}
        async with self._transport.asked(
            "POST", f"{self._path}/retry", headers=headers
        ) as response:
            document = read_accepted(response.status_code, await self._transport.proven(response))
        return BuildHandle.accepted(self._transport, document)

    async def _ask(self, method: str) -> BuildInfo:
        async with self._transport.asked(method, self._path, token=self.token) as response:
            return read_info(await self._transport.proven(response))

    async def _connected(self, after: int) -> AsyncGenerator[tuple[int, BuildResult]]:
        """One connection's part of the log, with the number of the last line so far.

        Raises:
            Unreachable: the connection was lost, or the builder stopped before the end.
        """
        async with self._transport.asked(
            "GET",
            f"{self._path}/log",
            params={"after": str(after)} if after else None,
            headers={"Accept": STREAM_TYPE},
            token=self.token,
        ) as response:
            verifier = self._transport.verifier(response)
            try:
                async for line in stream_lines(response):
                    progress = parse_result(line)
                    if progress.ended:
                        self._result = verifier.checked(line, progress)
                        return
                    verifier.update(line + b"\n")
                    told = _AFTER.search(line, max(0, len(line) - 32))
                    after = int(told[1]) if told else after + len(progress.log)
                    yield after, progress
            except BrokenExchange as error:
                # In the middle of an answer.
                self._answered = True
                raise Unreachable("the connection was lost; the build still runs") from error
            except ValueError as error:
                raise Unreachable("the log was cut off; the build still runs") from error
        raise Unreachable("the builder stopped sending the log; the build still runs")


async def list_builds(
    transport: Transport, *, status: tuple[BuildState, ...], repository: str, page: int
) -> AsyncGenerator[BuildInfo]:
    """Yield builds, newest first, with `page` builds per request."""
    params = {"limit": str(page)}
    if status:
        params["status"] = ",".join(status)
    if repository:
        params["repository"] = repository
    while True:
        async with transport.asked("GET", "/builds", params=params) as response:
            document = read_document(await transport.proven(response))
        for each in document.get("builds") or ():
            yield read_info(each)
        if not (cursor := document.get("cursor")):
            return
        params["cursor"] = str(cursor)


async def queued(transport: Transport, body: SignedBody, headers: Mapping[str, str]) -> BuildHandle:
    """Send a body to be built later; retry if the connection was lost before the answer.

    `Idempotency-Key` makes all attempts one build. A request without an answer is not retried,
    because the server may be a builder that does not know this header and builds at once.
    """
    left, attempt = transport.retry_timeout, 0
    while True:
        try:
            async with transport.posted(body, headers, accepted=range(200, 300)) as response:
                document = read_accepted(response.status_code, await transport.proven(response))
        except Unreachable as error:
            delay = lost_delay(error, attempt)
            # Before the first answer, an address that does not answer is probably wrong.
            if not (error.lost or attempt) or delay is None or delay > left:
                raise
            await transport.pause(error, delay)
            left, attempt = left - delay, attempt + 1
        else:
            return BuildHandle.accepted(transport, document)


def quoted_key(key: str) -> str:
    """The value of the header `Idempotency-Key`, a String of RFC 9651.

    Raises:
        ValueError: the header cannot contain it.
    """
    if not 0 < len(key) <= _MAX_KEY or not key.isascii() or not key.isprintable():
        raise ValueError(f"an idempotency key has 1 to {_MAX_KEY} printable ASCII characters")
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def new_key() -> str:
    """An `Idempotency-Key` that no other request has."""
    return f'"{uuid4()}"'


def read_info(data: bytes | Mapping[str, Any]) -> BuildInfo:
    """Read a build's document.

    Raises:
        Refused: it is another.
    """
    try:
        return parse_build_info(data)
    except ValueError as error:
        raise Refused(200, str(error), from_builder=False) from error
