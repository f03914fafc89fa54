"""One solve: a connection that carries its session, its status and the solve itself.

BuildKit has no call that cancels a solve. A reset of the Solve call cancels it, and so does the end
of the connection. A lost session does not: a running step continues. So this module cancels the
solve in that case.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

from aiobuildkit.convert import solve_result, status_event
from aiobuildkit.error_details import solve_error
from aiobuildkit.errors import ConnectionLost, RPCError, SolveError, StatusCode
from aiobuildkit.model import (
    CacheEntry,
    Exporter,
    SolveResult,
    SourceRule,
    StatusEvent,
    Timeouts,
)
from aiobuildkit.protos import control_pb2 as pb
from aiobuildkit.rpc import calls
from aiobuildkit.rpc.channel import Channel
from aiobuildkit.rpc.connection import Connection
from aiobuildkit.rpc.stream import ClientStream
from aiobuildkit.session.session import Session

__all__ = ["CONTROL", "Solve", "solve_request"]

CONTROL = "/moby.buildkit.v1.Control"

_SILENT_SPANS = 3
"""Parts of `Timeouts.silence`, each measured separately, so that a pause of our own process does
not count as silence of the daemon."""


class Solve:
    """A running solve, made by `Client.solve`.

    An asynchronous context manager: entering starts the solve, and leaving early cancels it.
    Iteration yields the status events, and ends with the solve and its status stream. `result`
    returns the result, or raises the solve's error.

    Attributes:
        ref: BuildKit's name for this solve.
        session: the ID of its session.
    """

    def __init__(
        self,
        connection: AbstractAsyncContextManager[Connection],
        sessions: Sequence[Session],
        request: pb.SolveRequest,
        metadata: Mapping[str, str],
        timeouts: Timeouts,
    ) -> None:
        self.ref = request.ref
        self._connecting = connection  # entered, it is `_connection`
        self.session = request.session
        self._sessions = sessions
        self._request = request
        self._metadata = metadata  # of the Solve call, such as a trace's context
        self._timeouts = timeouts
        self._events = 0  # status events that were received
        self._tasks: list[asyncio.Task[None]] = []  # they run until the block ends

    async def __aenter__(self) -> Self:
        # The solve's result or error. It is always done after the block.
        self._outcome: asyncio.Future[SolveResult] = asyncio.get_running_loop().create_future()
        self._connection = await self._connecting.__aenter__()
        try:
            await self._start(self._connection.channel)
        except BaseException as error:
            await self._connecting.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            if not self._outcome.done():
                # A task that is cancelled before its first step never runs.
                self._outcome.set_exception(_cancelled())
                self._outcome.exception()
            await self._connecting.__aexit__(exc_type, exc, traceback)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StatusEvent:
        try:
            message = await self._status.receive()
        except ConnectionLost:
            message = None
        except RPCError:
            # BuildKit has no status for an ended solve, but may report its end a little later.
            await asyncio.wait([self._outcome], timeout=self._timeouts.first_status)
            if not self._outcome.done():
                raise
            message = None
        if message is None:
            await asyncio.wait([self._outcome])
            raise StopAsyncIteration
        self._events += 1
        return status_event(calls.parse(pb.StatusResponse, message))

    async def result(self) -> SolveResult:
        """Wait until the solve has ended. Unread status events do not delay it.

        Raises:
            SolveError: the build failed, or was cancelled (CANCELLED).
            ConnectionLost: the connection was lost, or the daemon dropped the session.
            ProtocolError: the daemon violated the protocol.
        """
        return await asyncio.shield(self._outcome)

    def cancel(self) -> None:
        """Cancel the solve if it still runs. Status events continue until BuildKit ends them."""
        if not self._outcome.done():
            self._call.cancel(_cancelled())

    async def _start(self, channel: Channel) -> None:
        holds = [
            self._hold(session, channel.open(f"{CONTROL}/Session", session.metadata()))
            for session in self._sessions
        ]
        self._call = await calls.request(
            channel, f"{CONTROL}/Solve", self._request, self._metadata.items()
        )
        status = pb.StatusRequest(ref=self.ref)
        self._status = await calls.request(channel, f"{CONTROL}/Status", status)
        roles = (*holds, self._await_end(), self._watch())
        self._tasks = [asyncio.create_task(role) for role in roles]

    async def _hold(self, session: Session, tunnel: ClientStream) -> None:
        lost = ConnectionLost("BuildKit dropped the session in the middle of the solve")
        try:
            await session.run(tunnel)
        except Exception as error:  # noqa: BLE001 (any exception ends the session)
            lost.__cause__ = error
        if not self._outcome.done():
            self._call.cancel(lost)

    async def _await_end(self) -> None:
        try:
            self._outcome.set_result(solve_result(await self._reply()))
        except asyncio.CancelledError:
            self._outcome.set_exception(_cancelled())
            raise
        except Exception as error:  # noqa: BLE001 (without an outcome, a reader would wait forever)
            self._outcome.set_exception(error)
        finally:
            self._outcome.exception()  # a caller who does not ask for the result may do so
        await self._hear_out()

    async def _reply(self) -> pb.SolveResponse:
        try:
            return await calls.reply_to(self._call, pb.SolveResponse)
        except SolveError:
            raise
        except RPCError as error:
            # The details contain the Dockerfile, which may have a megabyte.
            raise await asyncio.to_thread(solve_error, error) from error.__cause__

    async def _hear_out(self) -> None:
        events = -1
        while events != self._events or self._status.waiting:
            events = self._events
            waits = self._timeouts
            await asyncio.sleep(waits.status if events else waits.first_status)
        self._status.cancel()

    async def _watch(self) -> None:
        silent = 0
        seconds = self._timeouts.silence
        while silent < _SILENT_SPANS:
            heard = self._connection.last_heard
            await asyncio.sleep(seconds / _SILENT_SPANS)
            silent = silent + 1 if heard == self._connection.last_heard else 0
        self._connection.abort(ConnectionLost(f"BuildKit has been silent for {seconds:g} s"))


def _cancelled() -> SolveError:
    return SolveError(StatusCode.CANCELLED, "the solve was cancelled")


def solve_request(
    *,
    ref: str,
    session: str,
    frontend: str,
    frontend_attrs: Mapping[str, str],
    exporters: Iterable[Exporter],
    cache_imports: Sequence[CacheEntry],
    cache_exports: Iterable[CacheEntry],
    internal: bool,
    source_policy: Iterable[SourceRule] = (),
    proxy_network: bool = False,
    definition: pb.Definition | None = None,
) -> pb.SolveRequest:
    """The request of a solve, as BuildKit's `client/solve.go` makes it."""
    attrs = dict(frontend_attrs)
    if cache_imports:
        # Frontends read the caches from this attribute, and the solver from the request's field.
        entries = [{"Type": each.type, "Attrs": dict(each.attrs)} for each in cache_imports]
        attrs["cache-imports"] = json.dumps(entries)
    return pb.SolveRequest(
        ref=ref,
        definition=definition,
        session=session,
        frontend=frontend,
        frontend_attrs=attrs,
        exporters=[pb.Exporter(type=each.type, attrs=each.attrs) for each in exporters],
        cache=pb.CacheOptions(
            imports=[pb.CacheOptionsEntry(type=e.type, attrs=e.attrs) for e in cache_imports],
            exports=[pb.CacheOptionsEntry(type=e.type, attrs=e.attrs) for e in cache_exports],
        ),
        internal=internal,
        source_policy=_source_policy(source_policy),
        proxy_network=proxy_network,
    )


def _source_policy(rules: Iterable[SourceRule]) -> pb.SourcePolicy | None:
    messages = [
        pb.SourceRule(
            action=pb.SourceAction.Value(f"SOURCE_{rule.action}"),
            selector=pb.SourceSelector(
                identifier=rule.identifier,
                match_type=pb.SourceMatch.Value(f"SOURCE_{rule.match}"),
                constraints=[
                    pb.SourceConstraint(
                        key=each.key,
                        value=each.value,
                        condition=pb.SourceCondition.Value(f"SOURCE_{each.condition}"),
                    )
                    for each in rule.constraints
                ],
            ),
            updates=None
            if rule.updates is None
            else pb.SourceUpdate(identifier=rule.updates.identifier, attrs=rule.updates.attrs),
        )
        for rule in rules
    ]
    return pb.SourcePolicy(version=1, rules=messages) if messages else None
