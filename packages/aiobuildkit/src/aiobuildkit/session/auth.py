"""Registry credentials, which BuildKit requests from the session when it pulls and pushes."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

from aiobuildkit.errors import RPCError, StatusCode
from aiobuildkit.protos import session_pb2 as pb
from aiobuildkit.session.session import Handler, unary
from aiobuildkit.session.token_messages import Credentials, TokenRequest
from aiobuildkit.session.tokens import Tokens

__all__ = ["Auth", "Credentials", "Lookup", "ScopedLookup"]

Lookup: TypeAlias = Callable[[str], "Credentials | Awaitable[Credentials | None] | None"]
"""Credentials for a registry's host, such as `ghcr.io` or `registry:5000`; None: none.

Docker Hub's host is `registry-1.docker.io`.
"""

ScopedLookup: TypeAlias = Callable[
    [str, Sequence[str]], "Credentials | Awaitable[Credentials | None] | None"
]
"""The same for a token's scopes, such as `repository:a/b:pull,push`."""


class Auth:
    """Serves BuildKit's `Auth`: tokens instead of passwords, or credentials.

    With `tokens`, BuildKit only gets a registry's password if the registry itself asks for one
    (HTTP Basic), or if its token service cannot be reached from here.

    Args:
        lookup: called for each request, so changed credentials take effect at once. It must not
            block the event loop. An RPCError from it fails the pull or push.
        tokens: fetches tokens, and remembers token services that earlier sessions could not reach;
            None: BuildKit fetches its tokens itself.
        scoped_lookup: the credentials for a token's scopes; None: `lookup`.
        describe: the beginning of the error if no token can be fetched for a push to these scopes,
            such as `failed to push a/b:1`, because BuildKit drops its own text for an error from
            a session.

    Attributes:
        failures: hosts for which no token could be fetched, and why: their token service could not
            be reached, or refused a token for a pull. The solve has failed. Another one with this
            object may succeed, because BuildKit then gets these hosts' credentials.
    """

    def __init__(
        self,
        lookup: Lookup,
        *,
        tokens: Tokens | None = None,
        scoped_lookup: ScopedLookup | None = None,
        describe: Callable[[str, Sequence[str]], str] | None = None,
    ) -> None:
        self._lookup = lookup
        self._tokens = tokens or Tokens()
        self._scoped_lookup = scoped_lookup
        self._describe = describe
        self._left: set[str] = set()
        self.failures: dict[str, str] = {}

    def handlers(self) -> Mapping[str, Handler]:
        """All four methods of the service."""
        service = "/moby.filesync.v1.Auth"
        return {
            f"{service}/Credentials": unary(pb.CredentialsRequest, self._credentials),
            f"{service}/FetchToken": unary(pb.FetchTokenRequest, self._fetch_token),
            f"{service}/GetTokenAuthority": unary(
                pb.GetTokenAuthorityRequest, self._get_token_authority
            ),
            f"{service}/VerifyTokenAuthority": unary(
                pb.VerifyTokenAuthorityRequest, self._verify_token_authority
            ),
        }

    async def _credentials(self, request: pb.CredentialsRequest) -> pb.CredentialsResponse:
        found = await self._find(request.host)
        if found is None:
            return pb.CredentialsResponse()
        return pb.CredentialsResponse(username=found.username, secret=found.secret)

    async def _fetch_token(self, request: pb.FetchTokenRequest) -> pb.FetchTokenResponse:
        host, scopes = request.host, tuple(request.scopes)
        credentials = await self._find(host, scopes)
        wanted = TokenRequest(host, request.realm, request.service, scopes, request.client_id)
        try:
            token = await self._tokens.fetch(wanted, credentials)
        except OSError as error:
            self._tokens.leave(host)
            self._leave(host, str(error) or "no answer in time")
            raise RPCError(
                StatusCode.UNKNOWN, f"the token service of {host} cannot be reached from here"
            ) from error
        except RPCError as error:
            if not any("push" in scope.rpartition(":")[2].split(",") for scope in scopes):
                self._leave(host, error.message)
            elif self._describe is not None and (words := self._describe(host, scopes)):
                text = f"{words}: failed to authorize: {error.message}"
                raise RPCError(error.code, text) from error
            raise
        return pb.FetchTokenResponse(token=token.value, expires_in=token.expires_in)

    async def _get_token_authority(
        self, request: pb.GetTokenAuthorityRequest
    ) -> pb.GetTokenAuthorityResponse:
        credentials = await self._authority(request.host)
        key = self._tokens.authority(request.host, request.salt, credentials)
        return pb.GetTokenAuthorityResponse(public_key=bytes(key.verify_key))

    async def _verify_token_authority(
        self, request: pb.VerifyTokenAuthorityRequest
    ) -> pb.VerifyTokenAuthorityResponse:
        credentials = await self._authority(request.host)
        key = self._tokens.authority(request.host, request.salt, credentials)
        return pb.VerifyTokenAuthorityResponse(signed=bytes(key.sign(request.payload)))

    def _leave(self, host: str, reason: str) -> None:
        """From the next solve on, let BuildKit fetch a host's tokens."""
        self._left.add(host)
        self.failures[host] = reason

    async def _authority(self, host: str) -> Credentials:
        credentials = await self._find(host)
        served = host not in self._left and self._tokens.serves(host, credentials)
        if credentials is None or not served:
            # After this code BuildKit asks for credentials (session/auth/auth.go).
            raise RPCError(StatusCode.UNIMPLEMENTED, f"no tokens for {host} here")
        return credentials

    async def _find(self, host: str, scopes: Sequence[str] | None = None) -> Credentials | None:
        if scopes is None or self._scoped_lookup is None:
            found = self._lookup(host)
        else:
            found = self._scoped_lookup(host, scopes)
        return await found if inspect.isawaitable(found) else found
