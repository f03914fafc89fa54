"""What clients see of a build that outlives its connection."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.contract.builds import (
    BuildInfo,
    BuildState,
    CallbackInfo,
    CallbackState,
    is_id,
    new_id,
    parse_build_info,
    parse_rfc3339,
    rfc3339,
)
from function_builder.contract.result import BuildResult, BuildStatus

times = st.integers(0, 4_000_000_000_000).map(lambda milliseconds: milliseconds / 1000)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


callbacks = st.builds(
    CallbackInfo,
    state=st.sampled_from(list(CallbackState)),
    attempts=st.integers(0, 20),
    status=st.integers(0, 599),
    error=words,
    next_attempt=st.none() | times,
)


@st.composite
def builds(draw: st.DrawFn) -> BuildInfo:
    build = BuildInfo(
        id=new_id(draw(times)),
        state=draw(st.sampled_from([state for state in BuildState if not state.ended])),
        created=draw(times),
        image=draw(words),
        repository=draw(words),
        started=draw(st.none() | times),
        attempt=draw(st.integers(0, 9)),
        position=draw(st.none() | st.integers(1, 10_000)),
        asynchronous=draw(st.booleans()),
        requester=draw(words),
        phases=draw(st.dictionaries(words, st.integers(0, 10_000).map(float), max_size=3)),
        retry_of=draw(words),
        callback=draw(st.none() | callbacks),
    )
    end = draw(st.none() | st.sampled_from([state for state in BuildState if state.ended]))
    if end is None:
        return build
    good = end is BuildState.SUCCESS
    result = BuildResult(
        status=BuildStatus.SUCCESS if good else BuildStatus.FAILED,
        error="" if good else draw(words),
        log=("a line",),
        duration=draw(st.integers(0, 10_000).map(float)),
        digest=draw(words),
        retryable=draw(st.none() | st.booleans()),
    )
    return build.end(end, result, draw(times))


@given(builds())
def test_a_document_is_read_back_as_it_was(build: BuildInfo):
    assert parse_build_info(json.dumps(build.to_document())) == build


@given(builds())
def test_a_document_holds_no_log_and_nothing_empty(build: BuildInfo):
    document = build.to_document()
    assert "log" not in document
    assert not [name for name, value in document.items() if value in (None, "", {}, [])]
    assert document["status"] == build.state.value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"status":"queued"}',
        '{"status":"queued","buildId":"a"}',
        '{"status":"queued","buildId":1,"created":"2026-01-01T00:00:00Z"}',
        '{"status":"queued","buildId":"a","created":"yesterday"}',
        '{"status":"in_progress","buildId":"a","created":"2026-01-01T00:00:00Z"}',
        "[" * 100_000,
    ],
)
def test_what_is_not_a_build_is_a_value_error(text: str):
    with pytest.raises(ValueError):  # noqa: PT011 (which words say so does not matter)
        parse_build_info(text)


@given(times)
def test_a_time_is_read_back_to_the_millisecond(seconds: float):
    assert parse_rfc3339(rfc3339(seconds)) == pytest.approx(seconds, abs=0.0006)
    assert rfc3339(seconds).endswith("Z")


@given(st.lists(times, min_size=2))
def test_ids_sort_by_time_and_differ(seconds: list[float]):
    ids = [new_id(each) for each in seconds]
    assert len(set(ids)) == len(ids)
    assert all(map(is_id, ids))
    by_time = sorted(zip(seconds, ids, strict=True), key=lambda pair: int(pair[0] * 1000))
    heads = [each[:12] for _, each in by_time]
    assert heads == sorted(heads)


def test_an_id_is_of_now():
    before = int(time.time() * 1000)
    assert before <= int(new_id()[:12], 16) <= time.time() * 1000


@given(st.text())
def test_other_texts_are_no_ids(text: str):
    assert not is_id(text + "/")
    assert not is_id(text + "\n")
