"""Requests that carry only what the builder lacks, until one is complete for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from http import HTTPStatus
from pathlib import Path
from threading import Event
from typing import Final

from function_builder.client.answers import read_document, read_refusal
from function_builder.client.context import OnLeftOut
from function_builder.client.errors import ClientError
from function_builder.client.known_builder import KnownBuilder
from function_builder.client.manifest import Listing, find_directories, list_found, pack_listed
from function_builder.client.request import SignedBody
from function_builder.client.runtime import Answer
from function_builder.client.stat_cache import default_folder
from function_builder.client.transport import Transport
from function_builder.contract.config import BuildConfig
from function_builder.contract.manifest import MANIFEST_HEADER
from function_builder.contract.result import parse_ranges

_ATTEMPTS: Final = 2
"""After these attempts, all files are sent: another build may change what BuildKit has."""

_ANSWERS: Final = (
    HTTPStatus.OK,
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.CONFLICT,
    HTTPStatus.INTERNAL_SERVER_ERROR,
)


class Delta:
    """One request, with the attempts that it needs.

    Args:
        transport: to the builder.
        context: the build context.
        config: the build's.
        folders: the folder of the tar -> a directory.
        secrets: sealed build secrets.
        on_manifest: called with the bytes of a request and the bytes of all files.
        on_left_out: as for `find_entries`.
    """

    def __init__(
        self,
        transport: Transport,
        context: Path,
        config: BuildConfig,
        folders: Mapping[str, Path],
        *,
        secrets: bytes | None,
        on_manifest: Callable[[int, int], None] | None,
        on_left_out: OnLeftOut | None,
    ) -> None:
        self._transport = transport
        self._builder = KnownBuilder(transport.address.shown, default_folder("builders"))
        self._context = context
        self._config = config
        self._folders = folders
        self._secrets = secrets
        self._on_manifest = on_manifest
        self._on_left_out = on_left_out

    async def post(
        self, held: AsyncExitStack, headers: Mapping[str, str], *, limited: bool
    ) -> Answer | None:
        """Send the request; None if all of it has to be sent.

        Args:
            held: holds the answer open.
            headers: of the request.
            limited: as for `Transport.posted`.

        Raises:
            ContextError: the context cannot be sent.
            Unreachable: no answer.
            Refused: an answer that starts no build.
        """
        abandoned = Event()
        held.callback(abandoned.set)
        call = self._transport.runtime.call
        find = partial(find_directories, self._context, self._folders, self._config)
        found = await call(partial(find, self._on_left_out))
        # Before files are read, because a builder that needs all of them makes that useless.
        if found is None or not await self._understood():
            return None
        listing = await call(
            partial(list_found, found, abandoned=abandoned, caches=default_folder("contexts"))
        )
        send = listing.first(self._config.dockerfile)
        for _ in range(_ATTEMPTS):
            body = held.enter_context(await self._pack(listing, send, abandoned))
            if self._on_manifest is not None:
                self._on_manifest(body.size, listing.size)
            attempt = AsyncExitStack()
            response = await attempt.enter_async_context(
                self._transport.posted(body, headers, accepted=_ANSWERS, limited=limited)
            )
            missing = await self._missing(response)
            if missing is None:
                held.push_async_exit(attempt)
                return response
            await attempt.aclose()
            if not missing:
                return None
            send |= listing.named(missing)
        return None

    async def _pack(self, listing: Listing, send: Collection[int], abandoned: Event) -> SignedBody:
        return await self._transport.runtime.call(
            partial(
                pack_listed,
                *(listing, send, self._config, self._transport.payload_secret),
                secrets=self._secrets,
                abandoned=abandoned,
            )
        )

    async def _understood(self) -> bool:
        """Whether the builder understands manifests; a refusal means that it does not."""
        if self._builder.understands:
            return True
        try:
            async with self._transport.asked("GET", "/healthz") as response:
                understands = MANIFEST_HEADER.lower() in response.headers
        except ClientError:
            return False
        self._builder.note(understands=understands)
        return understands

    async def _missing(self, response: Answer) -> Sequence[Sequence[int]] | None:
        """The rows that the builder lacks; none: all; None: the answer is that of the build."""
        status = response.status_code
        self._builder.note(understands=MANIFEST_HEADER.lower() in response.headers)
        if status == HTTPStatus.OK or MANIFEST_HEADER.lower() not in response.headers:
            # Without the header, another builder has answered, which could not build this.
            return None if status == HTTPStatus.OK else ()
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            return None
        body = await self._transport.read(response)
        if status == HTTPStatus.CONFLICT:
            return parse_ranges(read_document(body).get("missing"))
        raise read_refusal(status, response.headers, body)
