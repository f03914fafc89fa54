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
from aiobuildkit.protos import control_pb2 as pb
from aiobuildkit.status import status_event

START, END = Timestamp(seconds=1, nanos=5), Timestamp(seconds=2)


def test_every_field_finds_its_place():
    message = pb.StatusResponse(
        vertexes=[
            pb.Vertex(
                digest="d",
                inputs=["i", "j"],
                name="n",
                cached=True,
                started=START,
                completed=END,
                error="e",
            )
        ],
        statuses=[
            pb.VertexStatus(
                id="s",
                vertex="d",
                name="m",
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
                vertex="d",
                level=1,
                short=b"short",
                detail=[b"one", b"\xff"],
                url="u",
                info=pb.SourceInfo(filename="Dockerfile", data=b"FROM a"),
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
