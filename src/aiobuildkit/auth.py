"""Registry credentials, which BuildKit asks of the session when it pulls and pushes."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from aiobuildkit.protos.session_pb2 import CredentialsRequest, CredentialsResponse
from aiobuildkit.session import unary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiobuildkit.session import Handler

__all__ = ["Auth", "Credentials", "Lookup"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of a registry. With an empty username, ``secret`` is an identity token."""

    username: str
    secret: str = field(repr=False)


Lookup: TypeAlias = Callable[[str], "Credentials | Awaitable[Credentials | None] | None"]
"""Credentials for a registry's host, such as ``ghcr.io`` or ``registry:5000``; None: none.

Docker Hub's host is ``registry-1.docker.io``.
"""


class Auth:
    """Serves BuildKit's ``Auth``: credentials alone, so that BuildKit fetches tokens itself.

    Args:
        lookup: called for each request, so that changed credentials count at once. It must
            not block the event loop; an RPCError from it fails the pull or push.
    """

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def handlers(self) -> Mapping[str, Handler]:
        """``Credentials``. That ``GetTokenAuthority`` is not there is what BuildKit goes by."""
        method = "/moby.filesync.v1.Auth/Credentials"
        return {method: unary(CredentialsRequest, self._credentials)}

    async def _credentials(self, request: CredentialsRequest) -> CredentialsResponse:
        found = self._lookup(request.host)
        if inspect.isawaitable(found):
            found = await found
        if found is None:
            return CredentialsResponse()
        return CredentialsResponse(username=found.username, secret=found.secret)
