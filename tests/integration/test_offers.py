"""What one builder learned of BuildKit's content is known to another one, over a real NATS."""

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from stat import S_IFREG

import httpx2
import pytest

from aiobuildkit import Client
from function_builder.buildkits.daemon import Daemon
from function_builder.context.mtimes import Lease
from function_builder.contract.context import ContextEntry
from function_builder.engine import NatsServer
from function_builder.queue.access import Access
from function_builder.queue.jetstream import JetStream
from function_builder.queue.offers import StoredOffers
from tests.support.builders import RunningBuilder, running_builder
from tests.support.forks import BOUNDS
from tests.support.manifests import file_row, manifest_tar
from tests.support.nats_users import configured
from tests.support.requests import headers, make_tar

pytestmark = pytest.mark.integration

NOW = 1_700_000_000
SCOPE = "domain/registry/function"
PATIENCE = "function_builder.queue.offers._PATIENCE_SECONDS"
"""On a busy machine, NATS may take longer to answer than a build waits for it."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PATIENCE, 60.0)


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with NatsServer(tmp_path / "nats", log=tmp_path / "nats.log") as server:
        yield server


async def test_a_manifest_needs_no_content_that_another_builder_was_sent(
    tmp_path: Path, nats: NatsServer, buildkitd: str, registry: str
) -> None:
    """A full request to one builder, then manifests to both in turn."""
    image = f"{registry}/offers/{uuid.uuid4().hex}:1"
    config = {"image": image, "buildArgs": {"SOURCE_DATE_EPOCH": "0"}}
    large = os.urandom(300_000)
    files = {"Dockerfile": b"FROM scratch\nCOPY . /f/\n", "large": large, "small": b"one"}

    async def post(builder: RunningBuilder, body: bytes) -> str:
        async with httpx2.AsyncClient(trust_env=False, timeout=60, verify=False) as http:
            url = f"{builder.url}/build"
            answer = await http.post(url, content=body, headers=headers(body))
        assert answer.status_code == 200, answer.text
        digest: str = answer.json()["digest"]
        return digest

    def manifest(*sent: bytes) -> bytes:
        rows = [file_row(path, content, mtime=NOW) for path, content in files.items()]
        return manifest_tar(rows, config, [files["Dockerfile"], *sent])

    queue = {"nats_url": nats.url, "store_url": (tmp_path / "store").as_uri()}
    queue |= {BOUNDS: json.dumps({PATIENCE: 60})}
    async with (
        running_builder(tmp_path / "a", buildkitd, **queue) as a,
        running_builder(tmp_path / "b", buildkitd, **queue) as b,
    ):
        digest = await post(a, make_tar(files, config, mtime=NOW))
        assert await post(b, manifest()) == digest
        files["small"] = b"other"
        changed = await post(a, manifest(b"other"))
        assert await post(b, manifest(b"other")) == changed


class Replica:
    """A builder's part of this, without a BuildKit."""

    def __init__(self, jetstream: JetStream) -> None:
        # Nothing connects to it.
        self.daemon = Daemon(Client("unix:///nowhere"))
        self.offers = StoredOffers(jetstream, 1, lambda: [self.daemon])

    def lease(self, files: int = 2) -> Lease:
        """Lease a generation for a context of so many files."""
        mode = S_IFREG | 0o644
        entries = [ContextEntry(f"f{n}", mode, 1, n, "", 0, 0) for n in range(files)]
        digests = [os.urandom(32) if files > 2 else b"%032d" % n for n in range(files)]
        return self.daemon.records.lease(SCOPE, entries, digests)

    async def build(self, files: int = 2) -> str:
        """Build; returns the shared key."""
        claim = await self.offers.claim(self.daemon, SCOPE)
        assert claim is not None
        lease = self.lease(files)
        assert lease.generation is not None
        lease.release(intact=await self.offers.offer(claim, lease.generation))
        return lease.shared_key


@pytest.fixture
async def replica(nats: NatsServer) -> AsyncIterator[Callable[[], Replica]]:
    jetstream = JetStream(Access(url=nats.url))
    await jetstream.connect()
    yield lambda: Replica(jetstream)
    await jetstream.close()


async def test_one_build_at_a_time_has_a_generation(replica: Callable[[], Replica]) -> None:
    """A build beside it has another one; the one that began last is offered."""
    a, b = replica(), replica()
    key = await a.build()
    assert await b.build() == key
    first = await a.offers.claim(a.daemon, SCOPE)
    assert first is not None
    held = a.lease()
    assert held.shared_key == key
    other = await b.build()
    assert other != key
    assert held.generation is not None
    held.release(intact=await a.offers.offer(first, held.generation))
    assert await a.build() == other


async def test_builders_that_begin_at_once_agree_on_an_era(
    replica: Callable[[], Replica],
) -> None:
    replicas = [replica() for _ in range(8)]
    claims = await asyncio.gather(*(each.offers.claim(each.daemon, SCOPE) for each in replicas[:4]))
    looks = (each.offers.look(each.daemon, SCOPE) for each in replicas[4:])
    await asyncio.gather(*looks)
    assert any(claims)
    assert len({each.offers._eras[each.daemon.identity].name for each in replicas}) == 1


async def test_no_offer_outlives_an_interruption_of_buildkit(
    replica: Callable[[], Replica],
) -> None:
    """Any builder that sees it ends the era for all."""
    a, b = replica(), replica()
    key = await a.build()
    assert await b.build() == key
    b.daemon.doubt()
    assert await b.build() != key
    # What this builder has not noticed does not bring the offer back.
    await a.offers.look(a.daemon, SCOPE)
    assert a.daemon.records.offered(SCOPE) == 0


@pytest.mark.parametrize(
    ("limits", "reserved"),
    [
        pytest.param({"max_file": 100 << 20}, 64 << 20, id="enough"),
        pytest.param({"max_file": 20 << 20}, 16 << 20, id="20 MiB"),
        pytest.param(
            {"max_file": 100 << 20, "store_max_stream_bytes": 5 << 20}, 4 << 20, id="small streams"
        ),
        pytest.param({"max_file": 1 << 20}, None, id="1 MiB"),
    ],
)
async def test_an_account_of_nats_with_little_storage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    limits: Mapping[str, int],
    reserved: int | None,
) -> None:
    """A smaller bucket has room; with too little for any, one line says what to do."""
    users = [{"user": "builder", "password": "password"}]
    accounts = {"app": {"jetstream": limits, "users": users}}
    async with configured(monkeypatch, tmp_path, authorization=None, accounts=accounts) as server:
        address = server.url.rpartition("@")[2]
        jetstream = JetStream(Access(url=f"nats://builder:password@{address}"))
        await jetstream.connect()
        replica = Replica(jetstream)
        claims = [await replica.offers.claim(replica.daemon, SCOPE) for _ in range(2)]
        if reserved is None:
            assert claims == [None, None]
        else:
            assert all(claims)
            info = await jetstream.context.stream_info("KV_contents")
            assert info.config.max_bytes == reserved
        await jetstream.close()
    warned = capsys.readouterr().out.count("raise the storage limit of its account")
    assert warned == (reserved is None)


async def test_a_large_generation_is_offered_in_parts(replica: Callable[[], Replica]) -> None:
    a, b = replica(), replica()
    key = await a.build(files=40_000)
    await b.offers.look(b.daemon, SCOPE)
    assert b.daemon.records.paths == 40_000
    assert await b.build(files=40_000) == key
