"""The asyncio client: one POST, with one whole answer or a stream.

Use a stream if a build may take long. The builder sends data every few seconds, so the client
notices a lost connection, and no proxy closes a quiet one.

Modules are loaded where they are used: sealing secrets, queued builds, and the event loop would
double what a build of an unchanged directory loads.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple, Self, Unpack

from function_builder.client.address import DEFAULT_URL
from function_builder.client.answers import read_document, read_whole
from function_builder.client.context import OnLeftOut
from function_builder.client.errors import ClientError
from function_builder.client.options import BuildOptions, Files, build_config, chosen_context
from function_builder.client.request import SignedBody, pack
from function_builder.client.runtime import Answer, Runtime
from function_builder.client.stream import STREAM_TYPE, BuildStream
from function_builder.client.transport import Transport
from function_builder.contract.config import BuildConfig
from function_builder.contract.result import BuildResult

if TYPE_CHECKING:
    import ssl

    from function_builder.client.builds import BuildHandle
    from function_builder.client.verifier import Verifier
    from function_builder.contract.builds import BuildInfo, BuildState


class _Sending(NamedTuple):
    """What a request is made of.

    Attributes:
        context: the build context.
        config: the build's.
        folders: the folder of the tar -> a directory.
        secrets: sealed build secrets, which were checked.
        on_left_out: as for `find_entries`.
    """

    context: Path | Files
    config: BuildConfig
    folders: Mapping[str, Path]
    secrets: bytes | None
    on_left_out: OnLeftOut | None


class AsyncClient:
    """A client of one builder; an asynchronous context manager.

    Args:
        url: the builder's address; `/build` is added if it has no path. A user and a password in it
            are sent as basic authentication, and never shown.
        payload_secret: the secret that signs requests, without surrounding white space; None for a
            builder with `disable_hmac`.
        headers: sent with each request, for a proxy in front of the builder.
        ssl_context: for https, such as from `tls_context`; None trusts the system's authorities.
        retry_timeout: seconds, over all attempts, to spend waiting for a busy builder (429, or 503
            with `Retry-After`) before its refusal is raised.
        on_retry: called before each such wait with the refusal and the seconds.
        on_upload: called while a build's request is sent, with the bytes sent and all bytes.
        connect_timeout: seconds in which a connection must be made.
        read_timeout: seconds without a byte after which a stream is lost; builders send at least
            a heartbeat every 15.
        require_signed_answers: whether the payload secret must have signed the answer.
            pro-builder does not sign answers. None: with a payload secret, unless the URL is https.
            A signature in an answer must always be valid.
        builder_public_key: the builder's key for build secrets, as `seal_secrets` accepts it:
            secrets that were sealed for another key are not sent. None: the builder is asked for
            its key, if `require_signed_answers` is true.
        manifest: whether to send only what changed, where the builder understands that. Digests of
            files are kept in `$XDG_CACHE_HOME/function-builder`.
        on_manifest: called before a request that leaves unchanged files out, with its bytes and the
            bytes of all files.
        on_left_out: called before a directory is sent, with the numbers of files and directories
            that its ignore file leaves out. What is below such a directory is not counted.

    Raises:
        ValueError: the URL, or the environment's proxy, is not an http or https address, a header
            cannot be sent, or what `SSL_CERT_FILE` names cannot be read.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        payload_secret: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        retry_timeout: float = 300,
        on_retry: Callable[[ClientError, float], None] | None = None,
        on_upload: Callable[[int, int], None] | None = None,
        connect_timeout: float = 10,
        read_timeout: float = 60,
        require_signed_answers: bool | None = None,
        builder_public_key: str | bytes | None = None,
        manifest: bool = True,
        on_manifest: Callable[[int, int], None] | None = None,
        on_left_out: Callable[[int, int], None] | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self._on_left_out = on_left_out
        self._manifest = manifest
        self._on_manifest = on_manifest
        self._builder_key = _public_key(builder_public_key) if builder_public_key else None
        self._transport = Transport(
            url,
            payload_secret=payload_secret,
            headers=headers or {},
            ssl_context=ssl_context,
            retry_timeout=retry_timeout,
            on_retry=on_retry,
            on_upload=on_upload,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            require_signed_answers=require_signed_answers,
            runtime=runtime or _on_asyncio(),
        )

    @property
    def url(self) -> str:
        """The builder's address, without credentials."""
        return self._transport.address.shown

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; builds that still run are cancelled by their builder."""
        await self._transport.close()

    async def public_key(self) -> str:
        """Ask for the builder's key for build secrets, in base64, for `seal_secrets`.

        Raises:
            Unreachable: no answer.
            Refused: the builder has no key, or the payload secret did not sign the answer although
                `require_signed_answers` is true.
        """
        from function_builder.client.builder_key import KeyQuestion

        transport = self._transport
        question = KeyQuestion(transport.payload_secret, required=transport.signing_required)
        async with transport.asked("GET", question.path, params=question.params) as response:
            return question.key(response.status_code, await transport.read(response))

    async def build(
        self,
        directory: str | Path | None = None,
        config: BuildConfig | None = None,
        *,
        files: Files | None = None,
        secrets: bytes | None = None,
        **options: Unpack[BuildOptions],
    ) -> BuildResult:
        """Build, and wait for the whole answer. A failed build returns a result, too.

        Args:
            directory: the build context, sent without the files that its ignore file excludes.
            config: the build's options; or give them as `options`: `image=…`, `build_args=…`.
            files: the build context instead of a directory: contents by name; `File` has a mode.
            secrets: sealed build secrets, as `seal_secrets` makes them.
            options: the fields of `BuildConfig`. In `contexts` a `Path` is a directory to send.

        Raises:
            ContextError: the context cannot be sent.
            Unreachable: no answer.
            Refused: the answer started no build.
        """
        sending = await self._sending(directory, files, config, options, secrets)
        headers = {"Accept": "application/json"}
        async with self._posted(sending, headers, limited=False) as response:
            reply = await self._transport.read(response)
            result = read_whole(response.status_code, response.headers, reply)
            return self._transport.verifier(response).checked(reply, result)

    @asynccontextmanager
    async def stream(
        self,
        directory: str | Path | None = None,
        config: BuildConfig | None = None,
        *,
        files: Files | None = None,
        secrets: bytes | None = None,
        **options: Unpack[BuildOptions],
    ) -> AsyncIterator[BuildStream]:
        """Build, and follow the build; leaving the block early cancels it.

        Arguments and errors are those of `build`.
        """
        sending = await self._sending(directory, files, config, options, secrets)
        headers = {"Accept": STREAM_TYPE}
        async with AsyncExitStack() as held:
            response = await held.enter_async_context(self._posted(sending, headers))

            async def again() -> tuple[Answer, Verifier]:
                other = await held.enter_async_context(self._posted_whole(sending, headers))
                return other, self._transport.verifier(other)

            stream = BuildStream(response, self._transport.verifier(response), again)
            try:
                yield stream
            finally:
                await stream.aclose()

    async def submit(
        self,
        directory: str | Path | None = None,
        config: BuildConfig | None = None,
        *,
        files: Files | None = None,
        secrets: bytes | None = None,
        idempotency_key: str | None = None,
        callback_url: str | None = None,
        callback_events: Sequence[str] = (),
        **options: Unpack[BuildOptions],
    ) -> BuildHandle:
        """Queue a build, and return when the builder has stored it.

        From then on, the build needs neither this client nor a certain replica of the builder. If
        the connection is lost, the request is sent again, without a second build.

        Args:
            directory: as for `build`.
            config: as for `build`.
            files: as for `build`.
            secrets: as for `build`.
            idempotency_key: two requests with one key and one body are one build, for 24 hours.
                None: a new key for each call.
            callback_url: the receiver of the build's end, if the operator allows its host.
            callback_events: the events to send, such as `build.started`; none:
                `build.finished`.
            options: as for `build`.

        Raises:
            ContextError: the context cannot be sent.
            Unreachable: no answer.
            Refused: the builder did not queue the build. 501: it has no queue.
        """
        from function_builder.client.builds import new_key, queued, quoted_key
        from function_builder.contract.builds import (
            CALLBACK_EVENTS_HEADER,
            CALLBACK_HEADER,
            IDEMPOTENCY_HEADER,
            RESPOND_ASYNC,
        )

        key = new_key() if idempotency_key is None else quoted_key(idempotency_key)
        sending = await self._sending(directory, files, config, options, secrets)
        headers = {"Accept": "application/json", "Prefer": RESPOND_ASYNC, IDEMPOTENCY_HEADER: key}
        if callback_url is not None:
            headers[CALLBACK_HEADER] = callback_url
        if callback_events:
            headers[CALLBACK_EVENTS_HEADER] = ", ".join(callback_events)
        async with self._packed(sending) as body:
            return await queued(self._transport, body, headers)

    def handle(self, build_id: str, *, token: str | None = None) -> BuildHandle:
        """The build with an id, without a request.

        Args:
            build_id: as `BuildHandle.id`.
            token: as `BuildHandle.token`, if the client has no payload secret.
        """
        from function_builder.client.builds import BuildHandle

        return BuildHandle(self._transport, build_id, token=token)

    def builds(
        self,
        *,
        status: BuildState | str | Sequence[BuildState | str] = (),
        repository: str = "",
        page: int = 50,
    ) -> AsyncGenerator[BuildInfo]:
        """Yield the builder's builds, newest first.

        Args:
            status: only builds of this status, or of these.
            repository: only builds of this image, without its tag.
            page: builds per request, up to 200.

        Raises:
            Unreachable: no answer.
            Refused: the builder keeps no builds, or does not accept the proof.
        """
        from function_builder.client.builds import list_builds
        from function_builder.contract.builds import BuildState

        states = (status,) if isinstance(status, str) else tuple(status)
        return list_builds(
            self._transport,
            status=tuple(map(BuildState, states)),
            repository=repository,
            page=page,
        )

    async def usage(
        self, *, first: str = "", last: str = "", tenant: str = ""
    ) -> Mapping[str, Any]:
        """What tenants used, as `GET /usage` answers it.

        Args:
            first: the first day, as `YYYY-MM-DD`; empty: the first of this month.
            last: the last day; empty: today.
            tenant: whose; empty: of all that the caller may see.

        Raises:
            Unreachable: no answer.
            Refused: the builder has no tenants, or does not accept the proof.
        """
        given = {"from": first, "to": last, "tenant": tenant}
        params = {name: value for name, value in given.items() if value} or None
        async with self._transport.asked("GET", "/usage", params=params) as response:
            document: Mapping[str, Any] = read_document(await self._transport.proven(response))
        return document

    async def _sending(
        self,
        directory: str | Path | None,
        files: Files | None,
        config: BuildConfig | None,
        options: BuildOptions,
        secrets: bytes | None,
    ) -> _Sending:
        sending = _Sending(
            chosen_context(directory, files),
            *build_config(config, options),
            secrets,
            self._on_left_out and _once(self._on_left_out, self._transport.runtime.calling_back()),
        )
        if secrets is not None:
            await self._check_sealed(secrets)
        return sending

    @asynccontextmanager
    async def _posted(
        self, sending: _Sending, headers: Mapping[str, str], *, limited: bool = True
    ) -> AsyncIterator[Answer]:
        """Send a request, with only what the builder lacks if it understands that."""
        context, config, folders, secrets, on_left_out = sending
        async with AsyncExitStack() as held:
            response = None
            if self._manifest and config.image and isinstance(context, Path):
                # Loaded here, because most requests are small or have no directory.
                from function_builder.client.delta import Delta

                delta = Delta(
                    *(self._transport, context, config, folders),
                    secrets=secrets,
                    on_manifest=self._on_manifest,
                    on_left_out=on_left_out,
                )
                response = await delta.post(held, headers, limited=limited)
            if response is None:
                whole = self._posted_whole(sending, headers, limited=limited)
                response = await held.enter_async_context(whole)
            yield response

    @asynccontextmanager
    async def _posted_whole(
        self, sending: _Sending, headers: Mapping[str, str], *, limited: bool = True
    ) -> AsyncIterator[Answer]:
        async with (
            self._packed(sending) as body,
            self._transport.posted(body, headers, limited=limited) as response,
        ):
            yield response

    @asynccontextmanager
    async def _packed(self, sending: _Sending) -> AsyncIterator[SignedBody]:
        abandoned = Event()
        packing = partial(
            pack,
            *(sending.context, sending.config, self._transport.payload_secret),
            folders=sending.folders,
            secrets=sending.secrets,
            abandoned=abandoned,
            on_left_out=sending.on_left_out,
        )
        try:
            body = await self._transport.runtime.call(packing)
        finally:
            abandoned.set()
        with body:
            yield body

    async def _check_sealed(self, secrets: bytes) -> None:
        from function_builder.client.builder_key import check_sealed
        from function_builder.contract.secrets import sealed_for

        key, call = self._builder_key, self._transport.runtime.call
        if key is None:
            # Without an id there is nothing to compare, and without a proof the key is not trusted.
            if not self._transport.signing_required or not await call(partial(sealed_for, secrets)):
                return
            key = await self.public_key()
        await call(partial(check_sealed, secrets, key))


def _once(callback: OnLeftOut, calling_back: Callable[..., object]) -> OnLeftOut:
    """Call it once, because a context may be walked through twice."""
    called = False

    def call(files: int, directories: int) -> None:
        nonlocal called
        if not called:
            called = True
            calling_back(callback, files, directories)

    return call


def _on_asyncio() -> Runtime:
    from function_builder.client.on_asyncio import OnAsyncio

    return OnAsyncio()


def _public_key(given: str | bytes) -> str:
    from function_builder.client.sealing import read_public_key

    return read_public_key(given)
