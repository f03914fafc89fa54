"""Requests other than solves, against a BuildKit of our own making."""

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from aiobuildkit import (
    BuildKitVersion,
    Client,
    Platform,
    ProtocolError,
    RPCError,
    StatusCode,
    UsageRecord,
    WorkerInfo,
)
from aiobuildkit.protos import control_pb2 as pb
from tests.unit.aiobuildkit.fake_buildkit import Call, FakeBuildKit

RECORD = pb.UsageRecord(
    id="a",
    mutable=True,
    in_use=True,
    size=1 << 40,
    created_at=Timestamp(seconds=5, nanos=7),
    usage_count=3,
    description=b"d",
    record_type="source.local",
    shared=True,
    parents=["b"],
)


class Reply:
    """Answers each call with the same messages."""

    def __init__(self, *messages: Message) -> None:
        self._messages = messages
        self.request = b""

    async def __call__(self, call: Call) -> None:
        self.request = await call.receive() or b""
        call.respond()
        for message in self._messages:
            await call.send(message.SerializeToString())
        call.finish()


async def test_info(tmp_path):
    version = pb.BuildKitVersion(package="p", version="v", revision="r")
    scripts = {"Info": Reply(pb.InfoResponse(version=version))}
    async with FakeBuildKit(tmp_path, **scripts) as buildkit, Client(buildkit.address) as client:
        assert await client.info() == BuildKitVersion("p", "v", "r")


async def test_workers(tmp_path):
    worker = pb.WorkerRecord(
        id="w",
        labels={"a": "b"},
        platforms=[
            pb.Platform(os="linux", architecture="arm", variant="v7"),
            pb.Platform(os="linux", architecture="amd64"),
        ],
    )
    scripts = {"ListWorkers": Reply(pb.ListWorkersResponse(record=[worker]))}
    async with FakeBuildKit(tmp_path, **scripts) as buildkit, Client(buildkit.address) as client:
        (info,) = await client.list_workers()
    assert info == WorkerInfo(
        "w",
        {"a": "b"},
        (Platform("linux", "arm", "v7"), Platform("linux", "amd64")),
        BuildKitVersion("", "", ""),
    )
    assert [str(platform) for platform in info.platforms] == ["linux/arm/v7", "linux/amd64"]


async def test_disk_usage(tmp_path):
    usage = Reply(pb.DiskUsageResponse(record=[RECORD]))
    async with FakeBuildKit(tmp_path, DiskUsage=usage) as buildkit:
        records = await Client(buildkit.address).disk_usage(filters=["type==source.local"])
    assert pb.DiskUsageRequest.FromString(usage.request).filter == ["type==source.local"]
    assert records == [
        UsageRecord(
            id="a",
            size=1 << 40,
            mutable=True,
            in_use=True,
            shared=True,
            created_at=5_000_000_007,
            last_used_at=None,
            usage_count=3,
            description="d",
            record_type="source.local",
            parents=("b",),
        )
    ]


async def test_prune_tells_each_record(tmp_path):
    prune = Reply(RECORD, pb.UsageRecord(id="b"))
    async with FakeBuildKit(tmp_path, Prune=prune) as buildkit:
        client = Client(buildkit.address)
        pruned = await client.prune(all=True, keep_duration=1.5, reserved_space=1)
        assert pb.PruneRequest.FromString(prune.request) == pb.PruneRequest(
            all=True, keep_duration=1_500_000_000, reserved_space=1
        )
        assert [record async for record in client.iter_prune()] == pruned
    assert [record.id for record in pruned] == ["a", "b"]
    assert pb.PruneRequest.FromString(prune.request) == pb.PruneRequest()


async def test_an_error_is_the_daemons(tmp_path):
    async def refuse(call: Call) -> None:
        call.refuse(7, "not for you")

    async with FakeBuildKit(tmp_path, Info=refuse) as buildkit, Client(buildkit.address) as client:
        with pytest.raises(RPCError, match="not for you") as caught:
            await client.info()
    assert caught.value.code is StatusCode.PERMISSION_DENIED


async def test_a_push_without_a_name_is_refused_before_anything_is_sent(tmp_path):
    with pytest.raises(ValueError, match="name"):
        await Client(f"unix://{tmp_path}/none.sock").build(tmp_path, push=True)


async def no_message(call: Call) -> None:
    call.respond()
    call.finish()


async def two_messages(call: Call) -> None:
    call.respond()
    await call.send(b"")
    await call.send(b"")
    call.finish()


async def unreadable(call: Call) -> None:
    call.respond()
    await call.send(b"\xff\xff")
    call.finish()


@pytest.mark.parametrize("script", [no_message, two_messages, unreadable])
async def test_not_one_readable_reply_is_the_daemons_fault(tmp_path, script):
    async with FakeBuildKit(tmp_path, Info=script) as buildkit, Client(buildkit.address) as client:
        with pytest.raises(ProtocolError):
            await client.info()


async def test_a_daemon_that_was_restarted_is_found_again(tmp_path):
    scripts = {"Info": Reply(pb.InfoResponse())}
    async with FakeBuildKit(tmp_path, **scripts) as buildkit:
        client = Client(buildkit.address)
        await client.info()
    buildkit.path.unlink(missing_ok=True)
    async with FakeBuildKit(tmp_path, **scripts):
        await client.info()
