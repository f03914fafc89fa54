"""A program's output in our own log: one object a line, whatever it writes."""

import asyncio
import io
import json

import pytest
import structlog

from function_builder.engine.relay import Relay
from function_builder.logs import configure_logging


@pytest.fixture
def log():
    structlog.reset_defaults()
    file = io.StringIO()
    configure_logging(json=True, file=file)
    yield lambda: [json.loads(line) for line in file.getvalue().splitlines()]
    structlog.reset_defaults()


async def relayed(*pieces: bytes) -> Relay:
    relay, stream = Relay("buildkitd"), asyncio.StreamReader()
    task = asyncio.create_task(relay.run(stream))
    for piece in pieces:
        stream.feed_data(piece)
        await asyncio.sleep(0)
    stream.feed_eof()
    await task
    return relay


async def test_a_line_of_logrus_keeps_its_level_and_its_fields(log):
    line = {"level": "warning", "msg": "slow", "time": "2026-01-02T03:04:05Z", "spanID": "7"}
    text = json.dumps(line).encode() + b"\n"
    relay = await relayed(text[:20], text[20:])
    (said,) = log()
    assert said.pop("timestamp") != line["time"]
    assert said == {"event": "slow", "level": "warning", "program": "buildkitd", "spanID": "7"}
    assert list(relay.last) == ["slow"]


@pytest.mark.parametrize(
    ("line", "level", "event"),
    [
        (b"[7] [WRN] slow consumer", "warning", "slow consumer"),
        (b"[7] [ERR] no space", "error", "no space"),
        (b"[7] [FTL] port is taken", "critical", "port is taken"),
        (b"[7] [INF]   Version:  2.15.2", "info", "Version:  2.15.2"),
        (b"[7] [TRC] <<- [PING]", "debug", "<<- [PING]"),
        (b"[7] [XYZ] new", "info", "[7] [XYZ] new"),
    ],
)
async def test_a_line_of_nats_server_keeps_its_level(log, line, level, event):
    await relayed(line + b"\n")
    (said,) = log()
    assert (said["level"], said["event"]) == (level, event)


async def test_lines_below_our_own_level_are_told(log):
    await relayed(b'{"level":"trace","msg":"a"}\n{"level":"debug","msg":"b"}\n')
    assert [line["level"] for line in log()] == ["debug", "debug"]


@pytest.mark.parametrize(
    "line",
    [b"panic: oops", b"{", b"{}", b'{"a":1}', b"[1]", b"\xff", b"[" * 4000, b'{"a":' * 800],
    ids=range(8),
)
async def test_any_other_line_is_text(log, line):
    await relayed(line + b"\n\n" + line)
    assert all(said["level"] == "info" for said in log())
    told = "".join(said["event"] for said in log())
    assert told == line.decode(errors="replace") * 2


async def test_fields_of_ours_are_not_replaced(log):
    await relayed(b'{"level":"info","msg":"x","event":"y","program":"z","timestamp":"t"}\n')
    (said,) = log()
    assert (said["event"], said["program"]) == ("x", "buildkitd")
