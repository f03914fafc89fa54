"""The client: the address of a daemon, and the requests to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from ssl import SSLContext
from types import TracebackType
from typing import Self, Unpack
from uuid import uuid4

from aiobuildkit.convert import usage_record, version, worker_info
from aiobuildkit.errors import ConnectionLost
from aiobuildkit.llb import image_source
from aiobuildkit.model import (
    BuildKitVersion,
    CacheEntry,
    Exporter,
    PruneOptions,
    SolveResult,
    SourceRule,
    StatusEvent,
    Timeouts,
    UsageRecord,
    WorkerInfo,
)
from aiobuildkit.protos import control_pb2 as pb
from aiobuildkit.rpc import calls
from aiobuildkit.rpc.connection import Address, Connection, TLSConfig, connect
from aiobuildkit.session.auth import Auth, Lookup
from aiobuildkit.session.directory import LocalDirectory
from aiobuildkit.session.filesync import FileSync
from aiobuildkit.session.health import Health
from aiobuildkit.session.secrets import Secrets
from aiobuildkit.session.session import Attachable, Session
from aiobuildkit.solve import CONTROL, Solve, solve_request

__all__ = ["Client", "TLSConfig"]


class Client:
    """A BuildKit daemon.

    Every solve and every other request has its own connection. So BuildKit ends all work of a solve
    with its connection, the next request uses new certificates, and it finds a restarted daemon.
    Leaving the client's block closes open connections.

    `timeouts` limits the waits for a lost daemon; use `asyncio.timeout` for others.

    Args:
        address: `unix:///path/to/buildkitd.sock` or `tcp://host:port`.
        tls: for a daemon with TLS, on TCP. An `ssl.SSLContext` is used unchanged, with
            `h2` as its only ALPN protocol; the daemon's certificate must name the address's host.
        timeouts: how many seconds the client waits.

    Raises:
        ValueError: the address is neither, or TLS is asked for on a unix socket.
    """

    def __init__(
        self,
        address: str,
        *,
        tls: TLSConfig | SSLContext | None = None,
        timeouts: Timeouts = Timeouts(),
    ) -> None:
        if Address.parse(address).path and tls is not None:
            raise ValueError(f"TLS is for tcp:// addresses, not for {address}")
        self.address = address
        self._tls = tls
        self._timeouts = timeouts
        self._open: set[Connection] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for connection in tuple(self._open):
            connection.abort(ConnectionLost("the client was closed"))

    def solve(
        self,
        *,
        frontend: str = "dockerfile.v0",
        frontend_attrs: Mapping[str, str] | None = None,
        exporters: Iterable[Exporter] = (),
        cache_imports: Sequence[CacheEntry] = (),
        cache_exports: Iterable[CacheEntry] = (),
        attachables: Iterable[Attachable] = (),
        shared_key: str = "",
        known_session: str = "",
        source_policy: Iterable[SourceRule] = (),
        proxy_network: bool = False,
        internal: bool = False,
        ref: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Solve:
        """Prepare a solve; `async with` starts it.

        Args:
            frontend: the program that reads the build's description.
            frontend_attrs: for the Dockerfile frontend `filename`, `target`,
                `platform` (several with commas), `build-arg:NAME`, `label:NAME`,
                `no-cache` and so on (BuildKit's `frontend/dockerui/config.go`).
            exporters: where the result goes; without one it stays in the cache.
            cache_imports: caches to read.
            cache_exports: caches to write.
            attachables: the services that this client offers BuildKit, such as FileSync, Auth and
                Secrets. Health is always included.
            shared_key: names the build context for incremental transfers. In a later session with
                the same key, BuildKit only asks for files whose metadata differ from those
                announced before.
            known_session: the ID of an earlier session that sent these directories under this
                `shared_key`. BuildKit does not read them again if it still has them, but an
                `llb.Local` has to name that session: of the Dockerfile frontend the attributes
                `local-sessionid:context` and so on. Otherwise it reads them from this solve.
            source_policy: rules for all sources that the solve reads, those of frontends
                included: what BuildKit must not read, or reads from elsewhere.
            proxy_network: RUN steps reach only HTTP and HTTPS, through BuildKit's proxy, which
                applies `source_policy` to each URL (BuildKit's `docs/proxy.md`). BuildKit before
                0.31 ignores it.
            internal: keep the solve out of BuildKit's history.
            ref: BuildKit's name for the solve; default: a random one.
            metadata: of the Solve call; with `traceparent` (W3C Trace Context) BuildKit's
                spans join that trace.

        Raises:
            ValueError: two attachables offer the same method.
        """
        services = (Health(), *attachables)
        sessions = [Session(services, shared_key=shared_key)]
        if known_session:
            # BuildKit would wait five seconds for a session that is not there.
            sessions.append(Session(services, shared_key=shared_key, session_id=known_session))
        request = solve_request(
            ref=ref or uuid4().hex,
            session=sessions[0].id,
            frontend=frontend,
            frontend_attrs=frontend_attrs or {},
            exporters=exporters,
            cache_imports=cache_imports,
            cache_exports=cache_exports,
            source_policy=source_policy,
            proxy_network=proxy_network,
            internal=internal,
        )
        return Solve(self._connect(), sessions, request, metadata or {}, self._timeouts)

    async def build(
        self,
        path: str | PathLike[str],
        *,
        name: str = "",
        push: bool = False,
        insecure: bool = False,
        dockerfile: str = "Dockerfile",
        target: str = "",
        platforms: Iterable[str] = (),
        build_args: Mapping[str, str] | None = None,
        no_cache: bool = False,
        secrets: Mapping[str, bytes] | None = None,
        credentials: Lookup | None = None,
        on_event: Callable[[StatusEvent], object] | None = None,
    ) -> SolveResult:
        """Build a directory with its Dockerfile. For everything else there is `solve`.

        BuildKit receives the whole context each time, so the image always has the directory's
        content. For incremental transfers, use `solve` with `shared_key`.

        Args:
            path: the build context.
            name: of the image, as `registry.example/app:1`; several with commas. Empty: the
                result stays in the build cache.
            push: the image to its registry.
            insecure: the registry may speak plain HTTP, or have a certificate of an unknown
                authority.
            dockerfile: its path in the context.
            target: the stage to build; empty: the last.
            platforms: such as `linux/arm64`; several make an image index; none: the daemon's.
            build_args: values of ARG.
            no_cache: run every step again.
            secrets: for `RUN --mount=type=secret,id=…`, by id.
            credentials: of registries, by host; see `Auth`. None: anonymous.
            on_event: called with each status event, in the event loop.

        Raises:
            SolveError: the build failed.
            ConnectionFailed: the daemon cannot be reached.
            ConnectionLost: the connection to the daemon was lost.
            ValueError: `push` without a name.
        """
        if push and not name:
            raise ValueError("push=True needs the image's name")
        attrs = {"filename": dockerfile, "target": target, "platform": ",".join(platforms)}
        attrs |= {f"build-arg:{key}": value for key, value in (build_args or {}).items()}
        if no_cache:
            attrs["no-cache"] = ""
        image = {"name": name, "push": _go_bool(push), "registry.insecure": _go_bool(insecure)}
        tree = LocalDirectory(path)
        attachables: list[Attachable] = [FileSync({"dockerfile": tree, "context": tree})]
        attachables.append(Secrets(secrets or {}))
        if credentials is not None:
            attachables.append(Auth(credentials))
        async with self.solve(
            frontend_attrs=attrs,
            exporters=[Exporter("image", image)] if name else (),
            attachables=attachables,
            shared_key=uuid4().hex,
        ) as solve:
            async for event in solve:
                if on_event is not None:
                    on_event(event)
            return await solve.result()

    async def resolve_image(
        self, reference: str, *, attachables: Iterable[Attachable] = ()
    ) -> None:
        """Make BuildKit ask a registry for an image, without fetching its layers.

        Args:
            reference: the full name with a tag: `docker.io/library/busybox:latest`.
            attachables: such as Auth.

        Raises:
            SolveError: the registry does not have the image, or BuildKit cannot find out.
        """
        session = Session((Health(), *attachables), shared_key="")
        request = solve_request(
            ref=uuid4().hex,
            session=session.id,
            frontend="",
            frontend_attrs={},
            exporters=(),
            cache_imports=(),
            cache_exports=(),
            internal=True,
            definition=image_source(reference),
        )
        async with Solve(self._connect(), [session], request, {}, self._timeouts) as solve:
            await solve.result()

    async def info(self, *, answer_timeout: float | None = None) -> BuildKitVersion:
        """BuildKit's version; also the cheapest check that a daemon answers.

        Args:
            answer_timeout: seconds from the connection to the daemon's first frame, in addition to
                `Timeouts.connect`; None: `Timeouts.connect` includes them.

        Raises:
            BuildKitError: no daemon answers, as for every request here.
        """
        async with self._connect(answer_timeout) as connection:
            reply = await calls.unary(
                connection.channel, f"{CONTROL}/Info", pb.InfoRequest(), pb.InfoResponse
            )
        return version(reply.version)

    async def list_workers(self, *, filters: Iterable[str] = ()) -> list[WorkerInfo]:
        """The daemon's workers and their platforms; filters have containerd's syntax."""
        async with self._connect() as connection:
            reply = await calls.unary(
                connection.channel,
                f"{CONTROL}/ListWorkers",
                pb.ListWorkersRequest(filter=filters),
                pb.ListWorkersResponse,
            )
        return [worker_info(record) for record in reply.record]

    async def disk_usage(self, *, filters: Iterable[str] = ()) -> list[UsageRecord]:
        """The records of the build cache; filters such as `type==source.local`."""
        async with self._connect() as connection:
            reply = await calls.unary(
                connection.channel,
                f"{CONTROL}/DiskUsage",
                pb.DiskUsageRequest(filter=filters),
                pb.DiskUsageResponse,
            )
        return [usage_record(record) for record in reply.record]

    async def prune(self, **options: Unpack[PruneOptions]) -> list[UsageRecord]:
        """Delete records of the build cache, and return them."""
        return [record async for record in self.iter_prune(**options)]

    async def iter_prune(self, **options: Unpack[PruneOptions]) -> AsyncIterator[UsageRecord]:
        """Delete records of the build cache, and yield each one when it is deleted."""
        request = pb.PruneRequest(
            filter=options.get("filters", ()),
            all=options.get("all", False),
            keep_duration=round(options.get("keep_duration", 0) * 1_000_000_000),
            reserved_space=options.get("reserved_space", 0),
            max_used_space=options.get("max_used_space", 0),
            min_free_space=options.get("min_free_space", 0),
        )
        async with self._connect() as connection:
            async for record in calls.stream(
                connection.channel, f"{CONTROL}/Prune", request, pb.UsageRecord
            ):
                yield usage_record(record)

    @asynccontextmanager
    async def _connect(self, answer_timeout: float | None = None) -> AsyncIterator[Connection]:
        async with connect(
            self.address,
            tls=self._tls,
            connect_timeout=self._timeouts.connect,
            answer_timeout=answer_timeout,
            close_timeout=self._timeouts.close,
        ) as connection:
            self._open.add(connection)
            try:
                yield connection
            finally:
                self._open.discard(connection)


def _go_bool(value: bool) -> str:
    return "true" if value else "false"
