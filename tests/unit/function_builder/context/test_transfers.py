import pytest

from aiobuildkit import StatusEvent, Transfer, Vertex, VertexStatus
from function_builder.context.transfers import ContextLoads

IGNORE, CONTEXT = "sha256:ignore", "sha256:context"


def vertex(digest: str, started: int | None, completed: int | None, error: str = "") -> StatusEvent:
    each = Vertex(digest, "[internal] load", started=started, completed=completed, error=error)
    return StatusEvent(vertexes=(each,))


def transferring(digest: str, started: int, name: str = "context") -> StatusEvent:
    return StatusEvent(statuses=(VertexStatus(f"transferring {name}:", digest, started=started),))


def run(digest: str, at: int) -> list[StatusEvent]:
    """A load that ends well, as BuildKit tells it."""
    return [
        vertex(digest, None, None),
        vertex(digest, at, at + 1),
        vertex(digest, at + 2, None),
        transferring(digest, at + 3),
        vertex(digest, at + 2, at + 5),
    ]


def stored(*events: StatusEvent, transfers: int = 2) -> bool:
    loads = ContextLoads()
    for event in events:
        loads.observe(event)
    dockerfile = Transfer("dockerfile")
    return loads.all_stored([dockerfile, *[Transfer("context") for _ in range(transfers)]])


def test_a_build_that_asked_for_no_context_left_none_unstored():
    assert stored(transfers=0)


def test_each_transfer_needs_a_load_that_was_completed():
    assert stored(*run(IGNORE, 0), *run(CONTEXT, 10))
    assert not stored(*run(IGNORE, 0))
    assert not stored(transfers=1)


@pytest.mark.parametrize("events", range(5))
def test_a_load_that_was_not_heard_to_its_end_does_not_count(events: int):
    assert not stored(*run(CONTEXT, 0)[:events], transfers=1)


def test_the_completion_of_the_cache_key_does_not_count_however_late_it_is_told():
    first, key, start, progress, _ = run(CONTEXT, 0)
    assert not stored(first, start, progress, key, transfers=1)


def test_a_load_that_failed_does_not_count():
    *begun, _ = run(CONTEXT, 0)
    assert not stored(*begun, vertex(CONTEXT, 2, 5, error="context canceled"), transfers=1)


def test_what_comes_in_one_event_counts_too():
    together = StatusEvent(
        vertexes=tuple(each for event in run(CONTEXT, 0) for each in event.vertexes),
        statuses=tuple(each for event in run(CONTEXT, 0) for each in event.statuses),
    )
    assert stored(together, transfers=1)


def test_loads_of_the_dockerfile_do_not_count():
    assert not stored(transferring(IGNORE, 3, "dockerfile"), vertex(IGNORE, 2, 5), transfers=1)


def test_a_named_contexts_load_counts_as_the_contexts_own():
    loads = ContextLoads(["context", "folder-0"])
    both = [Transfer("context"), Transfer("folder-0")]
    for event in run(CONTEXT, 0):
        loads.observe(event)
    assert loads.all_stored(both[:1])
    assert not loads.all_stored(both)
    loads.observe(transferring(IGNORE, 13, "folder-0"))
    loads.observe(vertex(IGNORE, 12, 15))
    assert loads.all_stored(both)
    assert not loads.all_stored([*both, Transfer("folder-0")])
