"""The session: BuildKit calls back, and we are the server.

An attachable offers gRPC methods, each served by a handler, one call a stream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

__all__ = ["Attachable", "Handler", "ServerStream"]


class ServerStream(Protocol):
    """One call that BuildKit makes to us."""

    @property
    def metadata(self) -> Mapping[str, Sequence[str]]:
        """Request headers: lower-case keys, one value for each occurrence, order kept."""
        ...

    async def receive(self) -> bytes | None:
        """Take the next message; None when BuildKit has half-closed.

        Raises:
            ConnectionLost: the call was reset, or the session or its connection ended.
        """
        ...

    async def send(self, message: bytes) -> None:
        """Send a message; waits while BuildKit's flow-control window is shut.

        Raises:
            ConnectionLost: as receive.
        """
        ...


Handler: TypeAlias = Callable[[ServerStream], Awaitable[None]]
"""Serves one call: returning is grpc-status 0; an RPCError is sent as its status."""


class Attachable(Protocol):
    """Something that a session offers to BuildKit."""

    def handlers(self) -> Mapping[str, Handler]:
        """The methods served, such as ``/moby.filesync.v1.FileSync/DiffCopy``."""
        ...
