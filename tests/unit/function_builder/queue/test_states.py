"""The record of a build: every order of changes keeps what clients were promised."""

import dataclasses
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.contract.builds import BuildState, is_id, new_id
from function_builder.contract.errors import Refusal
from function_builder.contract.findings import Reason
from function_builder.queue.listing import periods, read_cursor
from function_builder.queue.port import Callback, Submission
from function_builder.queue.states import MAX_LOSSES, Record, Step, next_step

NOW = 1_800_000_000.0

submissions = st.builds(
    Submission,
    id=st.just(new_id(NOW)),
    tenant=st.just("default"),
    created=st.just(NOW),
    image=st.text(max_size=20),
    repository=st.text(max_size=20),
    requester=st.text(max_size=20),
    trust_domain=st.text(max_size=20),
    callback=st.none() | st.builds(Callback, st.text(), st.lists(st.text(), max_size=3)),
    headers=st.dictionaries(st.text(), st.text(), max_size=2),
    queue_timeout=st.none() | st.floats(0, 1e6),
)


@given(submissions)
def test_a_record_is_read_as_it_was_written(submission):
    record = dataclasses.replace(Record.of(submission), job=7)
    assert Record.parse(record.to_value()) == record
    running = record.start("here", NOW + 1)
    assert Record.parse(running.to_value()) == running
    failed = running.fail("no", Reason.SERVICE, NOW + 2)
    assert Record.parse(failed.to_value()) == failed


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"info": {}}', b'{"info": 1}'])
def test_what_is_no_record_is_a_value_error(data):
    with pytest.raises(ValueError):  # noqa: PT011 (the words differ)
        Record.parse(data)


@given(st.lists(st.sampled_from(["killed", "drained", "ended", "canceled"]), max_size=12))
def test_a_job_is_run_until_its_build_ends_and_never_after(happenings):
    """A builder is handed the job again and again, whatever happened to the one before."""
    record = Record.of(Submission(id=new_id(NOW), tenant="default", created=NOW))
    ended, losses, attempts = False, 0, 0
    for happened in happenings:
        step, record = next_step(record, "other", NOW)
        if ended:
            assert step is Step.SETTLE
            return
        if losses >= MAX_LOSSES:
            assert step is Step.GIVE_UP
            ended = True
            continue
        assert step is Step.RUN
        record = record.start("here", NOW)
        attempts += 1
        assert record.info.attempt == attempts
        if happened == "killed":
            losses += 1
        elif happened == "drained":
            record = record.requeue()
            assert record.info.state is BuildState.QUEUED
        else:
            ended = True
            reason = Reason.CANCELLED if happened == "canceled" else Reason.SERVICE
            record = record.fail("no", reason, NOW)
    assert record.info.state.ended == ended or losses >= MAX_LOSSES


def test_a_build_that_waited_too_long_is_not_begun():
    sent = Submission(id=new_id(NOW), tenant="default", created=NOW, queue_timeout=10)
    record = Record.of(sent)
    assert next_step(record, "other", NOW + 9)[0] is Step.RUN
    step, failed = next_step(record, "other", NOW + 11)
    assert step is Step.EXPIRE
    assert failed.info.result is not None
    assert (failed.info.state, failed.info.result.reason) == (BuildState.FAILED, "busy")
    # What has begun once is not ended for its wait.
    again = record.start("here", NOW + 5).requeue()
    assert next_step(again, "other", NOW + 11)[0] is Step.RUN


tenants = st.dictionaries(st.sampled_from("abcde"), st.integers(0, 5))


@given(st.text() | st.just("before-") | st.just("before-" + "0" * 23))
def test_a_cursor_is_an_id_or_refused(cursor):
    if not cursor or is_id(cursor.removeprefix("before-")):
        return
    with pytest.raises(Refusal):
        read_cursor(cursor)


@given(st.floats(0, 30 * 86400), st.floats(0, 7 * 86400))
def test_the_period_of_each_build_in_the_history_is_asked(ago, before_that):
    now = time.time()
    build_id, before = new_id(now - ago - before_that), new_id(now - ago)
    assert build_id[:6] in periods(before, now, now - 40 * 86400)
    asked = periods(read_cursor(""), now, now - 40 * 86400)
    assert build_id[:6] in asked
    assert list(asked) == sorted(asked, reverse=True)
