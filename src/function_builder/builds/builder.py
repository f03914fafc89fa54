"""Run builds: choose a BuildKit, retry once on another one, and give each build a result."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Final

import structlog

from aiobuildkit import Auth, BuildKitError, ConnectionFailed, RPCError, SolveResult, Tokens
from function_builder.buildkits.daemon import Daemon
from function_builder.buildkits.offers import Offers
from function_builder.buildkits.pools import Pools
from function_builder.builds import directories, options
from function_builder.builds.attempt import Attempt
from function_builder.builds.build import Build, BuildRequest, Outcome
from function_builder.builds.ending import CRASHED, cancelled, failed, last_lines, timed_out
from function_builder.builds.masking import Mask
from function_builder.builds.options import RegistryCache
from function_builder.builds.platforms import UnsupportedPlatform
from function_builder.builds.pushes import Pushes
from function_builder.builds.source_policy import SourcePolicy
from function_builder.builds.transcript import Transcript
from function_builder.contract.log import LogPrefixes
from function_builder.contract.manifest import MissingContent
from function_builder.registries.credentials import RegistryCredentials
from function_builder.registries.token_service import TokenServiceHTTP

_log = structlog.get_logger(__name__)

_AGAIN: Final = "BuildKit was lost in the middle of the build: retrying on another one."
_CONTENT_LOST: Final = (
    "BuildKit lost files that the client did not send: send them and build again."
)


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

    Attributes:
        offers: the content records of other builders; None: there are none.
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
        self.offers: Offers | None = None

    async def refuse_missing(self, request: BuildRequest) -> None:
        """Refuse a manifest if BuildKit lacks content that its request does not have.

        The build checks this again, because another build may change what BuildKit has.

        Raises:
            MissingContent: 409.
        """
        cache_scope = request.cache_scope
        if cache_scope is None:
            raise MissingContent(request.absent_rows())
        attrs = options.frontend_attrs(request, os.environ)
        # If no BuildKit can be reached, the build fails next, with an error that says more.
        pool = self._pools.of(request.tenant)
        with contextlib.suppress(ConnectionFailed), pool.place(cache_scope) as (daemon, _):
            if self.offers is not None and request.is_large:
                await self.offers.look(daemon, cache_scope)
            exports = bool(self._cache.exports(request))
            await asyncio.to_thread(
                directories.refuse_missing, daemon, request, attrs, exports_cache=exports
            )

    async def run(self, build: Build) -> None:
        """Run a build to its end. It always has a result afterwards.

        Raises:
            asyncio.CancelledError: the build was cancelled, in BuildKit too.
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
        """A mask for the secrets and for the cache's name.

        A client that knows the cache's name could replace the cache.
        """
        cache = self._cache.name(request.cache_scope)
        return Mask(request.secrets, names=[cache.encode()])

    async def _placed(self, build: Build, transcript: Transcript) -> SolveResult:
        """Build where the function's cache is; if that BuildKit is lost, retry once on another.

        A retry is safe, because the client would send the build again too. There is only one
        retry, because the build may be what kills BuildKit. There is none if BuildKit was lost
        while it parsed the Dockerfile, because BuildKit does this in its own process.
        """
        build.log.append([transcript.note(note) for note in build.request.config.notes])
        cache_scope = build.request.cache_scope or build.id
        pool = self._pools.of(build.request.tenant)
        lost: Daemon | None = None
        while True:
            with pool.place(cache_scope, lost=lost) as (daemon, reason):
                build.placed.append(reason)
                try:
                    return await self._pushed(self._attempt(build, transcript, daemon))
                except RPCError:
                    raise
                except BuildKitError as failure:
                    # It may have restarted, on a machine that lost unwritten data.
                    pool.doubt(daemon)
                    if lost or _suspect(build, failure) or not pool.reachable:
                        raise
                    lost = daemon
                    _log.warning("BuildKit was lost", buildkit=daemon.address, reason=str(failure))
            if build.started:
                build.log.append([transcript.note(_AGAIN)])

    def _attempt(self, build: Build, transcript: Transcript, daemon: Daemon) -> Attempt:
        request = build.request
        config = request.config
        images = [config.image, *config.tags] if config.image else []
        credentials = self._credentials(request.tenant).for_build(images)
        auth = Auth(
            credentials.lookup,
            tokens=self._tokens,
            scoped_lookup=credentials.lookup_scopes,
            describe=credentials.describe_push,
        )
        return Attempt(
            *(build, transcript, daemon),
            auth=auth,
            cache=self._cache,
            insecure=self._insecure,
            offers=self.offers,
        )

    async def _pushed(self, attempt: Attempt) -> SolveResult:
        result = await attempt.run()
        if self._pushes:
            await self._pushes.check(attempt.daemon.client, attempt.exporters, attempt.auth)
        return result


def _suspect(build: Build, failure: BuildKitError) -> bool:
    """Whether this build's Dockerfile may have killed BuildKit."""
    reading = build.started and not build.measures.has_steps
    return reading and not isinstance(failure, ConnectionFailed)
