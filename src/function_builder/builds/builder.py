"""Runs builds on a BuildKit: one connection each, from the context's announcement to the digest."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping

import structlog

from aiobuildkit import (
    Auth,
    BuildKitError,
    Client,
    ConnectionFailed,
    FileSync,
    RPCError,
    Secrets,
    SolveError,
    SolveResult,
)
from function_builder.builds import attributes
from function_builder.builds.build import Build, BuildRequest, Outcome
from function_builder.builds.context import BuildContext
from function_builder.builds.credentials import RegistryCredentials
from function_builder.builds.frontends import BUILT_IN, frontend_is_absent
from function_builder.builds.loads import ContextLoads
from function_builder.builds.platforms import (
    UnsupportedPlatform,
    refuse_impossible,
    refuse_unlisted,
)
from function_builder.builds.record import ContentRecords
from function_builder.builds.transcript import Mask, Transcript

_log = structlog.get_logger(__name__)

_HOST_PATH = re.compile(r"/\S*/cachemounts/buildkit[0-9]+")
"""Where BuildKit has mounted the image for a COPY; what follows is the path in the image."""


class Builder:
    """Runs builds.

    Args:
        client: of the BuildKit to use.
        credentials: for the registries that BuildKit asks about.
        records: what BuildKit holds of each function's context.
        insecure: push without verifying TLS, or over plain HTTP.
        build_timeout: seconds that a build may take.
        log_prefixes: whether log lines begin with their kind and time.
    """

    def __init__(
        self,
        client: Client,
        *,
        credentials: RegistryCredentials,
        records: ContentRecords,
        insecure: bool,
        build_timeout: float,
        log_prefixes: bool,
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._records = records
        self._insecure = insecure
        self._build_timeout = build_timeout
        self._log_prefixes = log_prefixes

    async def run(self, build: Build) -> None:
        """Run a build to its end; however it ends, it has a result afterwards.

        Raises:
            asyncio.CancelledError: the build was cancelled, at BuildKit too.
        """
        mask = Mask({})
        outcome, error = (
            Outcome.CRASHED,
            "the builder failed: this is not the fault of your build",
        )
        try:
            async with asyncio.timeout(self._build_timeout):
                # A megabyte of secrets takes a second to make a mask of.
                mask = await asyncio.to_thread(Mask, build.request.secrets)
                result = await self._attempts(build, mask)
            build.succeed(result)
        except TimeoutError:
            outcome = Outcome.TIMEOUT
            error = (
                f"the build took longer than the {self._build_timeout:g} s allowed (build_timeout)"
            )
        except ConnectionFailed as failure:
            outcome = Outcome.LOST if build.started.is_set() else Outcome.UNREACHABLE
            error = "BuildKit cannot be reached: try again later"
            _log.warning("BuildKit cannot be reached", reason=str(failure))
        except UnsupportedPlatform as refusal:
            outcome = Outcome.UNSUPPORTED
            error = str(refusal)
        except RPCError as failure:
            outcome = Outcome.FAILED
            error = f"failed to solve: {mask.text(_HOST_PATH.sub('', failure.message))}"
        except BuildKitError as failure:
            outcome = Outcome.LOST
            error = "BuildKit was lost in the middle of the build: try again"
            # It may have restarted, and on a machine that lost what it had not yet written.
            self._records.forget()
            _log.warning("BuildKit was lost", reason=str(failure))
        except asyncio.CancelledError as cancellation:
            outcome = Outcome.CANCELLED
            error = f"the build was cancelled{_reason(cancellation)}"
            raise
        finally:
            if build.result is None:
                build.fail(outcome, error)

    async def _attempts(self, build: Build, mask: Mask) -> SolveResult:
        transcript = Transcript(mask, prefixes=self._log_prefixes)
        request = build.request
        attrs = attributes.frontend_attrs(request, os.environ)
        await refuse_impossible(self._client, request.config.platforms)
        try:
            return await self._solve(build, attrs, transcript)
        except SolveError as failure:
            if build.platforms.failed_on_another_machine(failure):
                await refuse_unlisted(self._client, request.config.platforms)
            if not frontend_is_absent(failure.message):
                raise
            note = transcript.note(
                "WARNING: the image of the syntax directive cannot be had; "
                "BuildKit's built-in frontend is used instead"
            )
            build.log.append([note])
        for name in request.frontend:
            del attrs[name]
        return await self._solve(build, attrs | BUILT_IN, transcript)

    async def _solve(
        self, build: Build, attrs: Mapping[str, str], transcript: Transcript
    ) -> SolveResult:
        request = build.request
        lease = self._records.lease(_function(request), request.context, request.digests)
        context = BuildContext(request.reader, request.context, lease.mtimes)
        files = FileSync({"dockerfile": context, "context": context})
        loads = ContextLoads()
        ended = False
        try:
            async with self._client.solve(
                frontend_attrs=attrs,
                exporters=attributes.exporters(request, insecure=self._insecure),
                attachables=[files, Auth(self._credentials.lookup), Secrets(request.secrets)],
                shared_key=lease.shared_key,
                # History keeps output as it came, with the secrets that a RUN step prints.
                internal=bool(request.secrets),
                metadata=build.metadata,
            ) as solve:
                build.started.set()
                async for event in solve:
                    loads.take(event)
                    build.measures.take(event)
                    build.platforms.take(event)
                    build.log.append(transcript.lines(event))
                result = await solve.result()
            ended = True
        except (SolveError, asyncio.CancelledError):
            # BuildKit has lived to see these; after a lost connection nobody can say.
            ended = True
            raise
        else:
            return result
        finally:
            build.log.append(transcript.rest())
            build.transfers += files.transfers
            lease.release(intact=ended and loads.all_stored(files.transfers))


def _function(request: BuildRequest) -> str | None:
    """What shares a record of its content: builds of one repository, in one trust domain."""
    repository = request.config.repository
    return f"{request.trust_domain}/{repository}" if repository else None


def _reason(cancellation: asyncio.CancelledError) -> str:
    return f": {cancellation.args[0]}" if cancellation.args else ""
