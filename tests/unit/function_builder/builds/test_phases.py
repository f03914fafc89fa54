"""What a build took, read off the status events of BuildKit 0.32."""

from aiobuildkit import StatusEvent, Vertex, VertexStatus
from function_builder.builds.phases import BuildPhase, Measures, Step

SECOND = 10**9


def vertex(name: str, began: int | None, ended: int | None, **more: object) -> StatusEvent:
    at = [None if time is None else time * SECOND for time in (began, ended)]
    return StatusEvent(
        vertexes=(Vertex(digest=name, name=name, started=at[0], completed=at[1], **more),)  # type: ignore[arg-type]
    )


def status(name: str, began: int, ended: int | None) -> StatusEvent:
    end = None if ended is None else ended * SECOND
    return StatusEvent(
        statuses=(VertexStatus(id=name, vertex="x", started=began * SECOND, completed=end),)
    )


def observed(*events: StatusEvent) -> Measures:
    measures = Measures(0)
    for event in events:
        measures.observe(event)
    return measures


def seconds(measures: Measures, phase: BuildPhase) -> float | None:
    return measures.seconds().get(phase)


def test_phases_of_ours_follow_one_another():
    measures = Measures(1)
    measures.end(BuildPhase.UPLOAD)
    measures.end(BuildPhase.CHECK)
    measures.observe(StatusEvent())
    measures.observe(StatusEvent())
    spans = measures.spans
    assert list(spans) == [BuildPhase.UPLOAD, BuildPhase.CHECK, BuildPhase.QUEUE]
    assert spans[BuildPhase.UPLOAD][0] == 1
    assert spans[BuildPhase.UPLOAD][1] == spans[BuildPhase.CHECK][0]
    assert spans[BuildPhase.CHECK][1] == spans[BuildPhase.QUEUE][0]


def test_the_context_is_all_that_buildkit_reads_from_us():
    measures = observed(
        vertex("[internal] load build definition from Dockerfile", 10, 11),
        vertex("[internal] load metadata for docker.io/library/busybox:latest", 11, 90),
        vertex("[internal] load .dockerignore", 90, 91),
        vertex("[internal] load build context", 91, 95),
    )
    assert seconds(measures, BuildPhase.CONTEXT) == 85
    assert seconds(measures, BuildPhase.BUILD) == 79


def test_the_build_is_what_is_neither_read_nor_exported():
    measures = observed(
        vertex("[internal] load build context", 1, 2),
        vertex("[1/2] FROM docker.io/library/busybox:latest", 2, 4),
        vertex("[2/2] RUN make", 4, None),
        vertex("[2/2] RUN make", 4, 9),
        vertex("exporting to image", 9, 30),
    )
    assert seconds(measures, BuildPhase.BUILD) == 7


def test_export_and_push_are_told_apart_by_what_is_done():
    measures = observed(
        status("exporting layers", 1, None),
        status("exporting layers", 1, 3),
        status("exporting manifest sha256:1", 3, 4),
        status("pushing layers", 4, 7),
        status("pushing manifest for r/a:1@sha256:1", 7, 9),
        status("sha256:2", 0, 99),
    )
    assert seconds(measures, BuildPhase.EXPORT) == 3
    assert seconds(measures, BuildPhase.PUSH) == 5


def test_a_clock_that_was_set_back_makes_no_phase_negative():
    assert seconds(observed(vertex("[1/1] FROM x", 5, 3)), BuildPhase.BUILD) == 0


def test_a_step_without_times_takes_none():
    assert seconds(observed(vertex("[1/1] FROM x", None, 3)), BuildPhase.BUILD) is None


def test_steps_are_those_of_the_dockerfile_each_counted_once():
    measures = observed(
        vertex("[internal] load build context", 1, 2),
        vertex("[auth] library/busybox:pull token for registry-1.docker.io", 1, 2),
        vertex("[1/4] FROM docker.io/library/busybox", 1, 2),
        vertex("[1/4] FROM docker.io/library/busybox", 2, 2, cached=True),
        vertex("[linux/arm64 tests 2/4] RUN make", 2, 3),
        vertex("[3/4] RUN [1/2] odd", 2, None),
        vertex("[4/4] RUN false", 3, 4, error="exit code: 1"),
        vertex("exporting to image", 4, 5),
    )
    assert measures.steps == {Step.CACHED: 1, Step.RUN: 1, Step.FAILED: 1}


def test_a_step_that_another_build_began_counts_from_this_ones_beginning():
    measures = observed(
        vertex("[internal] load build definition from Dockerfile", 500, 501),
        vertex("[1/2] FROM docker.io/library/busybox:latest", 90, 91),
        vertex("[2/2] RUN long", 90, 503),
    )
    assert seconds(measures, BuildPhase.BUILD) == 3
