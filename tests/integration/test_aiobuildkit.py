"""aiobuildkit with a real buildkitd: whatever one does on demand."""

import asyncio
import base64
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
import trustme

from aiobuildkit import (
    Auth,
    CacheEntry,
    Client,
    ConnectionFailed,
    ConnectionLost,
    Credentials,
    Exporter,
    FileSync,
    LocalDirectory,
    Secrets,
    Solve,
    SolveError,
    StatusCode,
    StatusEvent,
    TLSConfig,
)
from function_builder.engine import find_tool
from tests.support import free_address, images, until
from tests.support.servers import serving

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@asynccontextmanager
async def solving(
    address: str, directory: Path, dockerfile: str, **options
) -> AsyncIterator[Solve]:
    (directory / "Dockerfile").write_text(dockerfile)
    tree = LocalDirectory(directory)
    files = FileSync({"dockerfile": tree, "context": tree})
    attachables = [files, *options.pop("attachables", ())]
    async with (
        Client(address, tls=options.pop("tls", None)) as client,
        client.solve(attachables=attachables, shared_key=uuid4().hex, **options) as solve,
    ):
        yield solve


async def events_of(solve: Solve) -> list[StatusEvent]:
    return [event async for event in solve]


def output(events: list[StatusEvent]) -> bytes:
    return b"".join(log.data for event in events for log in event.logs)


def running(marker: str) -> bool:
    """Whether a process with these bytes in its command line lives."""
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if marker.encode() in cmdline.read_bytes().split(b"\0"):
                return True
    return False


def fresh_seconds() -> str:
    """An argument for sleep that no other process has."""
    return str(1000 + uuid4().int % 10**9)


async def test_an_image_is_built_and_pushed(buildkitd, registry, tmp_path):
    (tmp_path / "hello").write_text("hello\n")
    name = f"{registry}/aiobuildkit/{uuid4().hex}:1"
    exporter = Exporter("image", {"name": name, "push": "true", "registry.insecure": "true"})
    dockerfile = "FROM busybox\nARG WHO\nCOPY hello /hello\nRUN echo built for $WHO | tee /who\n"
    attrs = {"build-arg:WHO": uuid4().hex}
    async with solving(
        buildkitd, tmp_path, dockerfile, exporters=[exporter], frontend_attrs=attrs
    ) as solve:
        events = await events_of(solve)
        result = await solve.result()
    assert output(events) == f"built for {attrs['build-arg:WHO']}\n".encode()
    done = {v.name: v for event in events for v in event.vertexes if v.completed is not None}
    (run,) = (vertex for name, vertex in done.items() if "RUN" in name)
    assert run.started is not None
    assert run.completed is not None
    assert 0 <= run.completed - run.started < 60e9
    assert abs(run.completed / 1e9 - time.time()) < 60
    assert not run.error
    statuses = [status for event in events for status in event.statuses]
    assert any("transferring" in status.name for status in statuses)
    repository = name.removeprefix(f"{registry}/").removesuffix(":1")
    image = await asyncio.to_thread(images.pull, registry, repository, "1")
    assert image.digest == result.digest
    assert image.text("hello") == "hello\n"


@pytest.mark.parametrize("number", [1, 2], ids=["build", "solve"])
async def test_the_documents_example_works(buildkitd, registry, tmp_path, number):
    document = Path(__file__).parents[2] / "docs" / "aiobuildkit.md"
    example = document.read_text().split("```python\n")[number].split("```")[0]
    example = example.replace("unix:///run/buildkit/buildkitd.sock", buildkitd)
    example = example.replace("registry.example/hello", f"{registry}/hello-{uuid4().hex}")
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nARG VERSION\nRUN echo {uuid4().hex}\n")
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", example, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await program.communicate()
    assert program.returncode == 0
    log, digest = printed.decode().split()
    assert len(log) == 32
    assert digest.startswith("sha256:")


async def test_a_directory_is_built_and_pushed_by_one_call(buildkitd, registry, tmp_path):
    """Also its second content, which has the size and the time of the first."""
    hello, secret = tmp_path / "hello", uuid4().hex
    (tmp_path / "Dockerfile.other").write_text(
        "FROM busybox AS wanted\nARG WHO\nCOPY hello /hello\n"
        "RUN --mount=type=secret,id=s cat /run/secrets/s; echo; echo $WHO | tee /who\n"
        "FROM wanted\nRUN exit 1\n"
    )
    logs: list[bytes] = []
    repository = f"aiobuildkit/{uuid4().hex}"
    async with Client(buildkitd) as client:
        for content in ("first\n", "other\n"):
            hello.write_text(content)
            os.utime(hello, ns=(0, 0))
            result = await client.build(
                tmp_path,
                name=f"{registry}/{repository}:1",
                push=True,
                insecure=True,
                dockerfile="Dockerfile.other",
                target="wanted",
                platforms=["linux/amd64"],
                build_args={"WHO": "world"},
                secrets={"s": secret.encode()},
                on_event=lambda event: logs.extend(log.data for log in event.logs),
            )
            image = await asyncio.to_thread(images.pull, registry, repository, "1")
            assert image.digest == result.digest
            assert (image.text("hello"), image.text("who")) == (content, "world\n")
    assert secret.encode() in b"".join(logs)


async def test_a_failing_step_fails_the_call(buildkitd, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN exit 7\n")
    async with Client(buildkitd) as client:
        with pytest.raises(SolveError) as caught:
            await client.build(tmp_path)
    assert caught.value.exit_code == 7


async def test_credentials_reach_the_registry(buildkitd, tmp_path):
    asked: list[str] = []
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(
            b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\n"
            b"Content-Length: 0\r\nConnection: close\r\n\r\n"
        )

    async with serving(refuse) as host, Client(buildkitd) as client:
        with pytest.raises(SolveError, match="401"):
            await client.build(
                tmp_path, name=f"{host}/a:1", push=True, insecure=True, credentials=asked.append
            )
    assert host in asked


async def test_a_second_time_it_is_cached(buildkitd, tmp_path):
    dockerfile = f"FROM busybox\nRUN echo {uuid4().hex}\n"
    for cached in (False, True):
        async with solving(buildkitd, tmp_path, dockerfile) as solve:
            events = await events_of(solve)
            await solve.result()
        runs = {
            v.cached for event in events for v in event.vertexes if "RUN" in v.name and v.completed
        }
        assert runs == {cached}


async def test_a_failing_step_has_its_message_place_vertex_and_exit_code(buildkitd, tmp_path):
    dockerfile = "FROM busybox\n\nRUN echo out; echo err >&2; \\\n  exit 7\n"
    async with solving(buildkitd, tmp_path, dockerfile) as solve:
        events = await events_of(solve)
        with pytest.raises(SolveError) as caught:
            await solve.result()
    error = caught.value
    assert str(error) == (
        'process "/bin/sh -c echo out; echo err >&2;   exit 7" did not complete successfully: '
        "exit code: 7"
    )
    assert (error.code, error.exit_code) == (StatusCode.UNKNOWN, 7)
    assert error.source is not None
    assert (error.source.filename, error.source.text) == ("Dockerfile", dockerfile)
    lines = {line for r in error.source.ranges for line in range(r.start_line, r.end_line + 1)}
    assert lines == {3, 4}
    (failed,) = {v.digest for e in events for v in e.vertexes if v.error}
    assert error.vertex == failed
    logs = {log.stream: log.data for event in events for log in event.logs}
    assert logs == {1: b"out\n", 2: b"err\n"}


@pytest.mark.parametrize(
    ("dockerfile", "message"),
    [
        ("FROM busybox\nRUNN true\n", "unknown instruction: RUNN"),
        ("FROM busybox\nCOPY none /\n", '"/none": not found'),
        ("FROM busybox\nRUN --mount=type=secret,id=x,required=true true\n", "x: not found"),
        ("FROM no-such-image-anywhere\n", "no-such-image-anywhere"),
    ],
)
async def test_what_cannot_be_built_says_why(buildkitd, tmp_path, dockerfile, message):
    async with solving(buildkitd, tmp_path, dockerfile, attachables=[Secrets({})]) as solve:
        await events_of(solve)
        with pytest.raises(SolveError, match=message) as caught:
            await solve.result()
    assert caught.value.source is not None


async def test_a_failure_of_a_huge_dockerfile_arrives_whole(buildkitd, tmp_path):
    # Its text comes in the trailers, in base64 twice: more than a megabyte of them.
    filler = "".join(f"# {number} {uuid4().hex}\n" for number in range(17_000))
    dockerfile = f"FROM busybox\n{filler}RUN exit 3\n"
    assert len(dockerfile) > 600_000
    async with solving(buildkitd, tmp_path, dockerfile) as solve:
        await events_of(solve)
        with pytest.raises(SolveError) as caught:
            await solve.result()
    assert caught.value.exit_code == 3
    assert caught.value.source is not None
    assert caught.value.source.text == dockerfile


async def test_warnings_of_the_frontend(buildkitd, tmp_path):
    async with solving(buildkitd, tmp_path, "from busybox\nRUN true\nMAINTAINER me\n") as solve:
        events = await events_of(solve)
        await solve.result()
    warnings = [warning for event in events for warning in event.warnings]
    (maintainer,) = (warning for warning in warnings if "Maintainer" in warning.short)
    assert maintainer.url.startswith("https://")
    assert maintainer.source is not None
    assert maintainer.source.ranges[0].start_line == 3


async def test_secrets_reach_a_step(buildkitd, tmp_path):
    value = uuid4().hex
    dockerfile = (
        f"FROM busybox\nRUN --mount=type=secret,id=a cat /run/secrets/a; echo; echo {value[:4]}\n"
        "RUN --mount=type=secret,id=b test ! -e /run/secrets/b\n"
    )
    secrets = Secrets({"a": value.encode()})
    async with solving(buildkitd, tmp_path, dockerfile, attachables=[secrets]) as solve:
        events = await events_of(solve)
        await solve.result()
    assert value.encode() in output(events)


async def test_credentials_are_those_of_the_registrys_host(buildkitd, tmp_path):
    asked: list[str] = []
    authorizations: list[str] = []

    def lookup(host: str) -> Credentials:
        asked.append(host)
        return Credentials("user", "swordfish")

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (first := await reader.read(1)) == b"\x16":
            # TLS is tried first; being answered like this leads to plain HTTP.
            await reader.read(65536)
            writer.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            return
        request = (first + await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.lower().split(": ", 1) for line in request.split("\r\n")[1:-2])
        if "authorization" in headers:
            authorizations.append(request.split("uthorization: ")[1].split("\r\n")[0])
            writer.write(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n")
        else:
            writer.write(
                b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="test"\r\n'
                b"Connection: close\r\n\r\n"
            )

    async with serving(refuse) as host:
        attrs = {"name": f"{host}/a/b:1", "push": "true", "registry.insecure": "true"}
        async with solving(
            buildkitd,
            tmp_path,
            "FROM busybox\n",
            exporters=[Exporter("image", attrs)],
            attachables=[Auth(lookup)],
        ) as solve:
            await events_of(solve)
            with pytest.raises(SolveError, match="403"):
                await solve.result()
    assert host in asked
    assert set(authorizations) == {"Basic " + base64.b64encode(b"user:swordfish").decode()}


@pytest.mark.skipif(os.geteuid() != 0, reason="starts buildkitd as root, without its engine")
async def test_mutual_tls(tmp_path):
    authority = trustme.CA()
    paths = {name: tmp_path / name for name in ("ca", "cert", "key", "our-cert", "our-key")}
    authority.cert_pem.write_to_path(str(paths["ca"]))
    for prefix, name in (("", "buildkitd.test"), ("our-", "client.test")):
        issued = authority.issue_cert(name)
        issued.private_key_pem.write_to_path(str(paths[f"{prefix}key"]))
        issued.cert_chain_pems[0].write_to_path(str(paths[f"{prefix}cert"]))
    address = f"tcp://{free_address()}"
    config = tmp_path / "buildkitd.toml"
    config.write_text(
        f"""
        root = "{tmp_path}/root"
        [grpc]
        address = ["{address}"]
        [grpc.tls]
        ca = "{paths["ca"]}"
        cert = "{paths["cert"]}"
        key = "{paths["key"]}"
        [otel]
        socketPath = "{tmp_path}/otel.sock"
        [worker.containerd]
        enabled = false
        """
    )
    tls = TLSConfig(
        ca=paths["ca"],
        cert=paths["our-cert"],
        key=paths["our-key"],
        server_name="buildkitd.test",
    )
    program = await asyncio.create_subprocess_exec(
        find_tool("buildkitd"), "--config", config, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await until_answers(Client(address, tls=tls))
        async with solving(address, tmp_path, "FROM scratch\nCOPY ca /\n", tls=tls) as solve:
            await solve.result()
        stranger = Client(address, tls=replace(tls, cert=None, key=None))
        with pytest.raises(ConnectionFailed, match="certificate required"):
            await stranger.info()
        with pytest.raises(ConnectionFailed):
            await Client(address).info()
    finally:
        program.terminate()
        await program.wait()


async def until_answers(client: Client) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await client.info()
            except ConnectionFailed:
                await asyncio.sleep(0.1)
            else:
                return


async def test_a_cancelled_step_is_killed(buildkitd, tmp_path):
    seconds = fresh_seconds()
    async with solving(buildkitd, tmp_path, f"FROM busybox\nRUN sleep {seconds}\n") as solve:
        following = asyncio.create_task(events_of(solve))
        await until(lambda: running(seconds))
        solve.cancel()
        with pytest.raises(SolveError) as caught:
            await solve.result()
        await until(lambda: not running(seconds))
        await following
    assert caught.value.code is StatusCode.CANCELLED


async def test_leaving_early_kills_the_step(buildkitd, tmp_path):
    seconds = fresh_seconds()
    async with solving(buildkitd, tmp_path, f"FROM busybox\nRUN sleep {seconds}\n"):
        await until(lambda: running(seconds))
    await until(lambda: not running(seconds))


async def test_a_killed_daemon_is_connection_lost(fresh_buildkitd, tmp_path):
    daemon = await fresh_buildkitd()
    seconds = fresh_seconds()
    async with solving(daemon.address, tmp_path, f"FROM busybox\nRUN sleep {seconds}\n") as solve:
        await until(lambda: running(seconds))
        os.killpg(daemon.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            await events_of(solve)
            with pytest.raises(ConnectionLost):
                await solve.result()


async def test_a_daemon_told_to_stop_finishes_what_it_began(fresh_buildkitd, tmp_path):
    daemon = await fresh_buildkitd()
    begun = uuid4().hex
    go = f"echo {begun}; sleep 2; echo finished"
    events = []
    async with solving(daemon.address, tmp_path, f"FROM busybox\nRUN {go}\n") as solve:
        async for event in solve:
            events.append(event)
            if event.logs:
                break
        os.kill(daemon.pid, signal.SIGTERM)
        events += await events_of(solve)
        await solve.result()
    assert output(events) == f"{begun}\nfinished\n".encode()


async def test_solves_run_side_by_side(buildkitd, tmp_path):
    async def build(number: int) -> bytes:
        directory = tmp_path / str(number)
        directory.mkdir()
        (directory / "number").write_text(f"{number} {uuid4().hex}")
        dockerfile = "FROM busybox\nCOPY number /number\nRUN cat /number; echo\n"
        async with solving(buildkitd, directory, dockerfile) as solve:
            events = await events_of(solve)
            await solve.result()
        return output(events).split()[0]

    outputs = await asyncio.gather(*map(build, range(6)))
    assert outputs == [b"%d" % number for number in range(6)]


async def test_caches_are_exported_and_imported(fresh_buildkitd, registry, tmp_path):
    reference = {"ref": f"{registry}/aiobuildkit/cache:{uuid4().hex}", "registry.insecure": "true"}
    dockerfile = f"FROM busybox\nRUN echo {uuid4().hex}\n"
    first, second = await fresh_buildkitd(), await fresh_buildkitd()
    exports = [CacheEntry("registry", {**reference, "mode": "max"})]
    async with solving(first.address, tmp_path, dockerfile, cache_exports=exports) as solve:
        await events_of(solve)
        await solve.result()
    imports = [CacheEntry("registry", reference)]
    async with solving(second.address, tmp_path, dockerfile, cache_imports=imports) as solve:
        events = await events_of(solve)
        await solve.result()
    assert {v.cached for e in events for v in e.vertexes if "RUN" in v.name and v.completed} == {
        True
    }


async def test_usage_is_told_and_pruned(fresh_buildkitd, tmp_path):
    daemon = await fresh_buildkitd()
    async with solving(daemon.address, tmp_path, "FROM busybox\nRUN echo > /a\n") as solve:
        await solve.result()
    async with Client(daemon.address) as client:
        records = await client.disk_usage()
        assert any("echo > /a" in record.description for record in records)
        # BuildKit lets go of a result after it has told it.
        async with asyncio.timeout(60):
            while any(record.in_use for record in records):
                await asyncio.sleep(0.05)
                records = await client.disk_usage()
        contexts = await client.disk_usage(filters=["type==source.local"])
        assert {record.record_type for record in contexts} == {"source.local"}
        gone = {record.id for record in await client.prune(all=True)}
        assert {record.id for record in records} <= gone
        assert not [r for r in await client.disk_usage() if "echo > /a" in r.description]


async def test_the_daemon_and_its_worker_are_told(buildkitd):
    async with Client(buildkitd) as client:
        version = await client.info()
        (worker,) = await client.list_workers()
    assert version.package == "github.com/moby/buildkit"
    assert worker.version == version
    assert str(worker.platforms[0]).startswith("linux/")
    assert worker.labels["org.mobyproject.buildkit.worker.executor"] == "oci"
