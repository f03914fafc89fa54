"""Run builds on BuildKits, with one connection each, from the context to the digest."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import structlog

from aiobuildkit import (
    Auth,
    BuildKitError,
    ConnectionFailed,
    FileSync,
    RPCError,
    Secrets,
    SolveError,
    SolveResult,
    Tokens,
)
from function_builder.buildkits.daemon import Daemon
from function_builder.buildkits.pools import Pools
from function_builder.builds import epoch, options
from function_builder.builds.build import Build, BuildRequest, Outcome
from function_builder.builds.ending import CRASHED, cancelled, failed, last_lines, timed_out
from function_builder.builds.failures import (
    Remedy,
    find_remedy,
)
from function_builder.builds.frontends import BUILT_IN
from function_builder.builds.masking import Mask
from function_builder.builds.options import RegistryCache
from function_builder.builds.platforms import (
    UnsupportedPlatform,
    refuse_impossible,
    refuse_unlisted,
)
from function_builder.builds.pushes import Pushes
from function_builder.builds.source_policy import SourcePolicy
from function_builder.builds.transcript import Transcript
from function_builder.context.mtimes import Lease, NotHeld
from function_builder.context.transfers import ContextLoads
from function_builder.context.tree import BuildContext, recorded_entries, trees
from function_builder.contract.context import DOCKERFILE, ContextEntry
from function_builder.contract.log import LogPrefixes
from function_builder.contract.manifest import AbsentContent, MissingContent
from function_builder.registries.credentials import RegistryCredentials
from function_builder.registries.token_service import TokenServiceHTTP

_log = structlog.get_logger(__name__)

_AGAIN = "BuildKit was lost in the middle of the build: retrying on another one."
_LEFT_TO_BUILDKIT = (
    "The builder could not fetch a token for a registry, so BuildKit will: retrying the build."
)
_CONTENT_LOST = "BuildKit lost files that the client did not send: send them and build again."
_HELD_SECONDS = 10.0
"""The longest time that the answer to a manifest waits for BuildKit to have the context."""


class Builder:
    """Runs builds.

    Args:
        pools: the BuildKits to use, for each tenant.
        credentials: a tenant's, for the registries that BuildKit asks for.
        cache: the build caches in a registry, for BuildKits that do not have a function.
        insecure: push without verifying TLS, or over plain HTTP.
        confirm_pushes: ask the registry for each image after its push.
        log_prefixes: the beginning of each log line.
        source_policy: a tenant's, of what BuildKit may read for its builds.
    """

    def __init__(
        self,
        pools: Pools,
        *,
        credentials: Callable[[str], RegistryCredentials],
        cache: RegistryCache,
        insecure: bool,
        confirm_pushes: bool,
        log_prefixes: LogPrefixes,
        source_policy: Callable[[str], SourcePolicy] = lambda _: SourcePolicy(),
    ) -> None:
        self._pools = pools
        self._credentials = credentials
        self._tokens = Tokens(TokenServiceHTTP().send)
        self._cache = cache
        self._insecure = insecure
        self._pushes = Pushes() if confirm_pushes else None
        self._log_prefixes = log_prefixes
        self._source_policy = source_policy

    async def refuse_missing(self, request: BuildRequest) -> None:
        """Refuse a manifest without content that its build would lack now.

        The build asks again, because another one may change what BuildKit has.

        Raises:
            MissingContent: 409.
        """
        cache_scope = _cache_scope(request)
        if cache_scope is None:
            raise MissingContent(request.absent_rows())
        attrs = options.frontend_attrs(request, os.environ)
        # Without a BuildKit, the build itself has the best error.
        pool = self._pools.of(request.tenant)
        with contextlib.suppress(ConnectionFailed), pool.place(cache_scope) as (daemon, _):
            entries = recorded_entries(request.context, request.folders)
            missing = await asyncio.to_thread(
                daemon.records.missing,
                *(cache_scope, entries, request.digests),
                view=epoch.view(request, attrs),
                absent=_absent(entries),
            )
            if missing:
                raise MissingContent(-1 - entries[number].offset for number in missing)

    async def run(self, build: Build) -> None:
        """Run a build to its end. It always has a result afterwards.

        Raises:
            asyncio.CancelledError: the build was cancelled, also in BuildKit.
        """
        build.source_policy = self._source_policy(build.request.tenant)
        transcript = Transcript(Mask({}), prefixes=self._log_prefixes)
        outcome, failure = Outcome.CRASHED, CRASHED
        try:
            async with asyncio.timeout(build.request.build_timeout):
                # For a megabyte of secrets, making the mask takes a third of a second.
                mask = await asyncio.to_thread(self._mask, build.request)
                transcript = Transcript(mask, prefixes=self._log_prefixes)
                try:
                    result = await self._placed(build, transcript)
                except MissingContent as missing:
                    if build.told.is_set():
                        build.log.append([transcript.note(_CONTENT_LOST)])
                    build.refuse(missing)
                except (UnsupportedPlatform, BuildKitError) as error:
                    # An error quotes the failed command, which may have a megabyte.
                    outcome, failure = await asyncio.to_thread(
                        failed, build, error, transcript.findings
                    )
                else:
                    build.succeed(result, transcript.findings.warnings)
        except TimeoutError:
            outcome, failure = Outcome.TIMEOUT, timed_out(build.request, transcript.findings)
        except asyncio.CancelledError as cancellation:
            outcome, failure = Outcome.CANCELLED, cancelled(cancellation)
            raise
        finally:
            if build.result is None:
                findings = transcript.findings
                told = [findings.mask.text(line) for line in last_lines(build, failure)]
                build.log.append([transcript.note(line) for line in told])
                build.fail(outcome, failure, findings.warnings)

    def _mask(self, request: BuildRequest) -> Mask:
        """A mask for secrets and the cache's name; a client that knows it could replace it."""
        cache = self._cache.name(_cache_scope(request))
        return Mask(request.secrets, names=[cache.encode()])

    async def _placed(self, build: Build, transcript: Transcript) -> SolveResult:
        """Build where the function's cache is; if that BuildKit is lost, retry once on another.

        A retry is safe, because the client would send the build again too. There is only one,
        because the build itself may kill BuildKits. There is none if BuildKit was lost while it
        read the Dockerfile: BuildKit reads it in its own memory, so it may have killed BuildKit.
        """
        build.log.append([transcript.note(note) for note in build.request.config.notes])
        cache_scope = _cache_scope(build.request) or build.id
        pool = self._pools.of(build.request.tenant)
        lost: Daemon | None = None
        while True:
            with pool.place(cache_scope, lost=lost) as (daemon, reason):
                build.placed.append(reason)
                try:
                    return await self._pushed(build, transcript, daemon)
                except RPCError:
                    raise
                except BuildKitError as failure:
                    # It may have restarted, on a machine that lost unwritten data.
                    daemon.doubt()
                    if lost or _suspect(build, failure) or not pool.has_other(daemon):
                        raise
                    lost = daemon
                    _log.warning("BuildKit was lost", buildkit=daemon.address, reason=str(failure))
            if build.started:
                build.log.append([transcript.note(_AGAIN)])

    async def _pushed(self, build: Build, transcript: Transcript, daemon: Daemon) -> SolveResult:
        auth = self._auth(build.request)
        result = await self._attempts(build, transcript, daemon, auth)
        if self._pushes:
            exporters = options.exporters(build.request, insecure=self._insecure)
            await self._pushes.check(daemon.client, exporters, auth)
        return result

    async def _attempts(
        self, build: Build, transcript: Transcript, daemon: Daemon, auth: Auth
    ) -> SolveResult:
        request = build.request
        attrs = options.frontend_attrs(request, os.environ)
        await refuse_impossible(daemon.client, request.config.platforms)
        try:
            return await self._authorised(build, attrs, transcript, daemon, auth)
        except SolveError as failure:
            if build.platforms.failed_on_another_machine(failure):
                await refuse_unlisted(daemon.client, request.config.platforms)
            remedy = find_remedy(failure.message)
            if remedy is None:
                raise
            if remedy is Remedy.BUILT_IN_FRONTEND:
                own = {name: value for name, value in attrs.items() if name not in request.frontend}
                attrs = own | BUILT_IN
        build.log.append([transcript.note(remedy)])
        return await self._authorised(build, attrs, transcript, daemon, auth)

    def _auth(self, request: BuildRequest) -> Auth:
        config = request.config
        images = [config.image, *config.tags] if config.image else []
        credentials = self._credentials(request.tenant).for_build(images)
        return Auth(
            credentials.lookup,
            tokens=self._tokens,
            scoped_lookup=credentials.lookup_scopes,
            describe=credentials.describe_push,
        )

    async def _authorised(
        self,
        build: Build,
        attrs: Mapping[str, str],
        transcript: Transcript,
        daemon: Daemon,
        auth: Auth,
    ) -> SolveResult:
        """Solve; retry if the builder could not fetch a token, because BuildKit may be able to.

        This happens once for each registry: in the next solve BuildKit gets its credentials.
        """
        while True:
            try:
                return await self._solve(build, attrs, transcript, daemon, auth)
            except SolveError:
                if not auth.failures:
                    raise
            for host, reason in auth.failures.items():
                _log.warning(
                    "no token could be fetched: BuildKit gets the credentials",
                    registry=host,
                    reason=reason,
                )
            auth.failures.clear()
            build.log.append([transcript.note(_LEFT_TO_BUILDKIT)])

    async def _solve(
        self,
        build: Build,
        attrs: Mapping[str, str],
        transcript: Transcript,
        daemon: Daemon,
        auth: Auth,
    ) -> SolveResult:
        request = build.request
        cache_scope = _cache_scope(request)
        loop = asyncio.get_running_loop()
        lease, files = await asyncio.to_thread(_prepare, daemon, cache_scope, request, attrs)
        loads = ContextLoads(options.context_trees(request.config))
        ended = False
        # The answer begins when BuildKit has the context, so that it still can be 409.
        telling = loop.call_later(_HELD_SECONDS, build.start) if request.partial else None
        build.platforms.begin()
        try:
            async with daemon.client.solve(
                frontend_attrs=attrs,
                exporters=options.exporters(request, insecure=self._insecure),
                cache_imports=self._cache.imports(cache_scope, request.config.cache_from),
                cache_exports=self._cache.exports(
                    cache_scope, request.config.cache_to, secret=bool(request.secrets)
                ),
                attachables=[files, auth, Secrets(request.secrets)],
                shared_key=lease.shared_key,
                source_policy=build.source_policy,
                # History would store unmasked output, with secrets that a RUN step prints. Writing
                # it also takes a tenth of a cached build's time (docs/performance.md).
                internal=True,
                metadata=build.metadata,
            ) as solve:
                build.start(tell=telling is None)
                async for event in solve:
                    loads.observe(event)
                    if telling and loads.has_stored and loads.all_stored(files.transfers):
                        build.start()
                    build.measures.observe(event)
                    build.platforms.observe(event)
                    build.log.append(transcript.lines(event))
                result = await solve.result()
            ended = True
        except SolveError:
            ended = not any(isinstance(each.error, AbsentContent) for each in files.transfers)
            if not ended:
                # BuildKit no longer has what the record says.
                raise MissingContent(request.absent_rows()) from None
            raise
        except asyncio.CancelledError:
            # BuildKit reported these errors. After a lost connection its state is unknown.
            ended = True
            raise
        else:
            return result
        finally:
            if telling is not None:
                telling.cancel()
            build.log.append(transcript.rest())
            build.transfers += files.transfers
            lease.release(intact=ended and loads.all_stored(files.transfers))


def _suspect(build: Build, failure: BuildKitError) -> bool:
    """Whether this build's Dockerfile may have killed BuildKit."""
    reading = build.started and not build.measures.has_steps
    return reading and not isinstance(failure, ConnectionFailed)


def _prepare(
    daemon: Daemon, cache_scope: str | None, request: BuildRequest, attrs: Mapping[str, str]
) -> tuple[Lease, FileSync]:
    """The announcement of the context, and its key; slow for many files."""
    entries = recorded_entries(request.context, request.folders)
    view = epoch.view(request, attrs)
    absent = _absent(entries) if request.partial else ()
    try:
        lease = daemon.records.lease(
            cache_scope, entries, request.digests, view=view, absent=absent
        )
    except NotHeld as missing:
        raise MissingContent(-1 - entries[number].offset for number in missing.numbers) from None
    mtimes, resend, _ = lease.announced
    ends = accumulate(map(len, (request.context, *request.folders.values())))

    def tree(entries: Sequence[ContextEntry]) -> BuildContext:
        end = next(ends)
        start = end - len(entries)
        marked = {number - start for number in resend if start <= number < end}
        return BuildContext(request.reader, entries, mtimes[start:end], marked)

    context = tree(request.context)
    names = options.folder_trees(request.config)
    folders = {names[name]: tree(entries) for name, entries in request.folders.items()}
    dockerfile = request.config.dockerfile or DOCKERFILE
    built_in = BUILT_IN.items() <= attrs.items()
    return lease, FileSync(
        trees(context, built_in=built_in, dockerfile=dockerfile, folders=folders)
    )


def _absent(entries: Sequence[ContextEntry]) -> Sequence[int]:
    """The numbers of the files whose content was not sent."""
    return [number for number, entry in enumerate(entries) if entry.offset < 0]


def _cache_scope(request: BuildRequest) -> str | None:
    """`{trust_domain}/{repository}`, whose builds share records of content, caches and a BuildKit.

    None for a request without an image.
    """
    repository = request.config.repository
    return f"{request.trust_domain}/{repository}" if repository else None
