from google.protobuf.timestamp_pb2 import Timestamp

from aiobuildkit import (
    SourceLocation,
    SourceRange,
    StatusEvent,
    Vertex,
    VertexLog,
    VertexStatus,
    VertexWarning,
)
from aiobuildkit.convert import solve_result, status_event, usage_record
from aiobuildkit.protos import control_pb2 as pb

SAID, HEARD = "refus\u00e9".encode("latin-1"), "refus\ufffd"
START, END = Timestamp(seconds=1, nanos=5), Timestamp(seconds=2)


def test_every_field_finds_its_place():
    message = pb.StatusResponse(
        vertexes=[
            pb.Vertex(
                digest="d",
                inputs=["i", "j"],
                name=b"n",
                cached=True,
                started=START,
                completed=END,
                error=b"e",
            )
        ],
        statuses=[
            pb.VertexStatus(
                id=b"s",
                vertex="d",
                name=b"m",
                current=3,
                total=4,
                timestamp=START,
                started=START,
                completed=END,
            )
        ],
        logs=[pb.VertexLog(vertex="d", timestamp=START, stream=2, msg=b"\xff")],
        warnings=[
            pb.VertexWarning(
                vertex=b"d",
                level=1,
                short=b"short",
                detail=[b"one", b"\xff"],
                url=b"u",
                info=pb.SourceInfo(filename=b"Dockerfile", data=b"FROM a"),
                ranges=[pb.Range(start=pb.Position(line=1), end=pb.Position(line=2, character=3))],
            )
        ],
    )
    source = SourceLocation("Dockerfile", (SourceRange(1, 0, 2, 3),), "FROM a")
    assert status_event(message) == StatusEvent(
        (Vertex("d", "n", ("i", "j"), True, 1_000_000_005, 2_000_000_000, "e"),),
        (VertexStatus("s", "d", "m", 3, 4, 1_000_000_005, 1_000_000_005, 2_000_000_000),),
        (VertexLog("d", 2, b"\xff", 1_000_000_005),),
        (VertexWarning("d", 1, "short", ("one", "\ufffd"), "u", source),),
    )


def test_what_was_not_sent_is_none():
    message = pb.StatusResponse(
        vertexes=[pb.Vertex()],
        statuses=[pb.VertexStatus()],
        logs=[pb.VertexLog()],
        warnings=[pb.VertexWarning()],
    )
    event = status_event(message)
    assert (event.vertexes[0].started, event.vertexes[0].completed) == (None, None)
    assert (event.statuses[0].timestamp, event.statuses[0].completed) == (None, None)
    assert event.logs[0].timestamp is None
    assert event.warnings[0].source is None


def field(number: int, content: bytes) -> bytes:
    """As it is on the wire, where text and bytes are one."""
    return bytes([number << 3 | 2, len(content)]) + content


def test_words_of_others_need_not_be_utf8():
    vertex = field(3, SAID) + field(7, SAID)
    status = field(1, SAID) + field(3, SAID)
    warning = field(1, SAID) + field(3, SAID) + field(5, SAID) + field(6, field(1, SAID))
    sent = field(1, vertex) + field(2, status) + field(4, warning)
    event = status_event(pb.StatusResponse.FromString(sent))
    source = SourceLocation(HEARD, (), "")
    assert event == StatusEvent(
        (Vertex("", HEARD, error=HEARD),),
        (VertexStatus(HEARD, "", HEARD),),
        (),
        (VertexWarning(HEARD, 0, HEARD, url=HEARD, source=source),),
    )


def test_what_a_frontend_adds_to_the_result_need_not_be_utf8():
    sent = field(1, field(1, SAID) + field(2, SAID)) + field(1, field(1, b"a") + field(2, b"b"))
    result = solve_result(pb.SolveResponse.FromString(sent))
    assert result.exporter_response == {HEARD: HEARD, "a": "b"}


def test_the_description_of_a_record_need_not_be_utf8():
    record = usage_record(pb.UsageRecord.FromString(field(9, SAID)))
    assert record.description == HEARD
