"""Convert protobuf messages to the model: status events, results, cache records, workers.

No other module knows both.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from aiobuildkit import model
from aiobuildkit.errors import SourceLocation, SourceRange
from aiobuildkit.protos import control_pb2 as pb

__all__ = ["solve_result", "status_event", "usage_record", "version", "worker_info"]


def status_event(message: pb.StatusResponse) -> model.StatusEvent:
    """One message of `Control/Status`."""
    return model.StatusEvent(
        vertexes=tuple(map(_vertex, message.vertexes)),
        statuses=tuple(map(_vertex_status, message.statuses)),
        logs=tuple(map(_vertex_log, message.logs)),
        warnings=tuple(map(_vertex_warning, message.warnings)),
    )


def _vertex(message: pb.Vertex) -> model.Vertex:
    return model.Vertex(
        digest=message.digest,
        name=_text(message.name),
        inputs=tuple(message.inputs),
        cached=message.cached,
        started=_instant(message.started) if message.HasField("started") else None,
        completed=_instant(message.completed) if message.HasField("completed") else None,
        error=_text(message.error),
    )


def _vertex_status(message: pb.VertexStatus) -> model.VertexStatus:
    return model.VertexStatus(
        id=_text(message.id),
        vertex=message.vertex,
        name=_text(message.name),
        current=message.current,
        total=message.total,
        timestamp=_instant(message.timestamp) if message.HasField("timestamp") else None,
        started=_instant(message.started) if message.HasField("started") else None,
        completed=_instant(message.completed) if message.HasField("completed") else None,
    )


def _vertex_log(message: pb.VertexLog) -> model.VertexLog:
    return model.VertexLog(
        vertex=message.vertex,
        stream=message.stream,
        data=message.msg,
        timestamp=_instant(message.timestamp) if message.HasField("timestamp") else None,
    )


def _vertex_warning(message: pb.VertexWarning) -> model.VertexWarning:
    source = None
    if message.HasField("info"):
        source = SourceLocation(
            filename=_text(message.info.filename),
            ranges=_ranges(message.ranges),
            text=_text(message.info.data),
        )
    return model.VertexWarning(
        vertex=_text(message.vertex),
        level=message.level,
        short=_text(message.short),
        detail=tuple(map(_text, message.detail)),
        url=_text(message.url),
        source=source,
    )


def solve_result(message: pb.SolveResponse) -> model.SolveResult:
    """The reply of `Control/Solve`."""
    return model.SolveResult(
        {_text(entry.key): _text(entry.value) for entry in message.exporter_response}
    )


def usage_record(message: pb.UsageRecord) -> model.UsageRecord:
    """One record of `Control/DiskUsage` or `Control/Prune`."""
    return model.UsageRecord(
        id=message.id,
        size=message.size,
        mutable=message.mutable,
        in_use=message.in_use,
        shared=message.shared,
        created_at=_instant(message.created_at) if message.HasField("created_at") else None,
        last_used_at=_instant(message.last_used_at) if message.HasField("last_used_at") else None,
        usage_count=message.usage_count,
        description=_text(message.description),
        record_type=message.record_type,
        parents=tuple(message.parents),
    )


def worker_info(message: pb.WorkerRecord) -> model.WorkerInfo:
    """One record of `Control/ListWorkers`."""
    return model.WorkerInfo(
        id=message.id,
        labels=dict(message.labels),
        platforms=tuple(
            model.Platform(platform.os, platform.architecture, platform.variant)
            for platform in message.platforms
        ),
        version=version(message.version),
    )


def version(message: pb.BuildKitVersion) -> model.BuildKitVersion:
    """The reply of `Control/Info`."""
    return model.BuildKitVersion(message.package, message.version, message.revision)


def _instant(timestamp: Timestamp) -> int:
    return timestamp.seconds * 1_000_000_000 + timestamp.nanos


def _ranges(messages: Iterable[pb.Range]) -> tuple[SourceRange, ...]:
    return tuple(
        SourceRange(each.start.line, each.start.character, each.end.line, each.end.character)
        for each in messages
    )


def _text(data: bytes) -> str:
    """Replace bytes that are not UTF-8, so that the rest can be shown."""
    return data.decode("utf-8", "replace")
