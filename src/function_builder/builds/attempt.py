"""A build on one BuildKit: its Solve, and further Solves after errors that have a remedy."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from aiobuildkit import (
    Auth,
    Client,
    ConnectionFailed,
    Exporter,
    Secrets,
    SolveError,
    SolveResult,
)
from function_builder.buildkits.daemon import Daemon
from function_builder.buildkits.offers import Claim, Offers
from function_builder.builds import directories, options
from function_builder.builds.build import Build
from function_builder.builds.failures import Remedy, find_remedy
from function_builder.builds.frontends import BUILT_IN
from function_builder.builds.options import RegistryCache
from function_builder.builds.platforms import refuse_impossible, refuse_unlisted
from function_builder.builds.transcript import Transcript
from function_builder.context.mtimes import Lease
from function_builder.context.transfers import ContextLoads
from function_builder.contract.manifest import AbsentContent, MissingContent

_log = structlog.get_logger(__name__)

_LEFT_TO_BUILDKIT: Final = (
    "The builder could not fetch a token for a registry, so BuildKit will: retrying the build."
)

_WITH_PROXY: Final = (0, 31)
"""The first BuildKit with `proxy_network`. An older one ignores it."""

_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)")

_CONTENT_WAIT_SECONDS: Final = 10.0
"""The longest time that the answer to a manifest waits for BuildKit to have the context."""


class Attempt:
    """A build on one BuildKit.

    Args:
        build: receives its log, its measures and its transfers.
        transcript: makes the lines of its log.
        daemon: the BuildKit.
        auth: the registries' credentials.
        cache: the build caches in a registry.
        insecure: push without verifying TLS, or over plain HTTP.
        offers: the content records of other builders; None: there are none.

    Attributes:
        daemon: the same.
        auth: the same.
        exporters: what BuildKit does with the image.
    """

    def __init__(
        self,
        build: Build,
        transcript: Transcript,
        daemon: Daemon,
        *,
        auth: Auth,
        cache: RegistryCache,
        insecure: bool,
        offers: Offers | None,
    ) -> None:
        self.daemon = daemon
        self.auth = auth
        self.exporters: Sequence[Exporter] = options.exporters(build.request, insecure=insecure)
        self._build = build
        self._transcript = transcript
        self._cache = cache
        self._offers = offers

    async def run(self) -> SolveResult:
        """Build; after an error that has a remedy, once more with it.

        Raises:
            BuildKitError: the build failed, or BuildKit was lost.
            MissingContent: BuildKit lacks content that the request does not have.
            UnsupportedPlatform: BuildKit cannot run a platform's programs.
        """
        request, build = self._build.request, self._build
        attrs = options.frontend_attrs(request, os.environ)
        await refuse_impossible(self.daemon.client, request.config.platforms)
        if build.source_policy.covers_steps:
            await _refuse_without_proxy(self.daemon.client)
        try:
            return await self._authorized(attrs)
        except SolveError as failure:
            if build.platforms.failed_on_another_machine(failure):
                await refuse_unlisted(self.daemon.client, request.config.platforms)
            remedy = find_remedy(failure.message)
            if remedy is None:
                raise
            if remedy is Remedy.BUILT_IN_FRONTEND:
                own = {name: value for name, value in attrs.items() if name not in request.frontend}
                attrs = own | BUILT_IN
        build.log.append([self._transcript.note(remedy)])
        return await self._authorized(attrs)

    async def _authorized(self, attrs: Mapping[str, str]) -> SolveResult:
        """Solve; retry if the builder could not fetch a token, because BuildKit may be able to.

        This happens once for each registry: in the next solve BuildKit gets its credentials.
        """
        while True:
            try:
                return await self._solve(attrs)
            except SolveError:
                if not self.auth.failures:
                    raise
            for host, reason in self.auth.failures.items():
                _log.warning(
                    "no token could be fetched: BuildKit gets the credentials",
                    registry=host,
                    reason=reason,
                )
            self.auth.failures.clear()
            self._build.log.append([self._transcript.note(_LEFT_TO_BUILDKIT)])

    async def _solve(self, attrs: Mapping[str, str]) -> SolveResult:
        build, request = self._build, self._build.request
        cache_scope = request.cache_scope
        loop = asyncio.get_running_loop()
        claim = await self._claim()
        exports = self._cache.exports(request)
        lease = await asyncio.to_thread(
            directories.lease, self.daemon, request, attrs, exports_cache=bool(exports)
        )
        files = directories.file_sync(lease, request, attrs)
        trees = options.context_trees(request.config)
        loads = ContextLoads(trees, known=bool(lease.session))
        # Whether BuildKit's state is known. It is not after a lost connection.
        ended = False
        # A partial request's answer starts when BuildKit has the context: until then it may be 409.
        telling = loop.call_later(_CONTENT_WAIT_SECONDS, build.start) if request.partial else None
        build.platforms.begin()
        try:
            async with self.daemon.client.solve(
                frontend_attrs={**attrs, **directories.named(lease.session, request)},
                exporters=self.exporters,
                cache_imports=self._cache.imports(cache_scope, request.config.cache_from),
                cache_exports=exports,
                attachables=[files, self.auth, Secrets(request.secrets)],
                shared_key=lease.shared_key,
                known_session=lease.session,
                source_policy=build.source_policy,
                proxy_network=build.source_policy.covers_steps,
                # History would store unmasked output, with secrets that a RUN step prints. Writing
                # it also takes a tenth of a cached build's time (docs/performance.md).
                internal=True,
                metadata=build.metadata,
            ) as solve:
                lease.send_in(solve.session)
                build.start(tell=telling is None)
                async for event in solve:
                    loads.observe(event)
                    if telling and loads.are_complete(files.transfers):
                        build.start()
                    build.measures.observe(event)
                    build.platforms.observe(event)
                    build.log.append(self._transcript.lines(event))
                result = await solve.result()
            ended = True
        except SolveError:
            if any(isinstance(each.error, AbsentContent) for each in files.transfers):
                # BuildKit no longer has what the record says.
                raise MissingContent(request.absent_rows()) from None
            ended = True
            raise
        except asyncio.CancelledError:
            ended = True
            raise
        else:
            return result
        finally:
            if telling is not None:
                telling.cancel()
            build.log.append(self._transcript.rest())
            build.transfers += files.transfers
            await self._release(lease, claim, intact=ended and loads.all_stored(files.transfers))

    async def _claim(self) -> Claim | None:
        request = self._build.request
        if self._offers is None or request.cache_scope is None or not request.is_large:
            return None
        return await self._offers.claim(self.daemon, request.cache_scope)

    async def _release(self, lease: Lease, claim: Claim | None, *, intact: bool) -> None:
        """End the lease; if this is cancelled, it is unknown whether its generation is offered."""
        keeps = intact and claim is None
        try:
            if self._offers and claim and intact and lease.generation:
                keeps = await self._offers.offer(claim, lease.generation)
        finally:
            lease.release(intact=keeps)


async def _refuse_without_proxy(client: Client) -> None:
    """Never run steps on a BuildKit that would give them its whole network.

    A BuildKit that was compiled without its version (v0.0.0) is used.

    Raises:
        ConnectionFailed: its version is too old, or it does not answer.
    """
    buildkit = await client.info()
    found = _VERSION.match(buildkit.version)
    if found and (0, 0) < (int(found[1]), int(found[2])) < _WITH_PROXY:
        reason = f"it is {buildkit.version}, and run_proxy needs v0.31"
        raise ConnectionFailed(client.address, reason)
