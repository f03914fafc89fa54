"""Replies, whole and streamed."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from function_builder.contract.findings import BuildWarning, Reason, SourceExcerpt
from function_builder.contract.log import StepText
from function_builder.contract.result import (
    MAX_LINE_BYTES,
    BuildResult,
    BuildStatus,
    parse_result,
    progress_lines,
)
from tests.support import VECTORS

LOGS = st.lists(st.text() | st.text('\x01"é\n😀', max_size=5).map(lambda text: text * 9_000))


@given(st.text(st.sampled_from("a\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\ud800\r\n\x7f😀")))
def test_no_character_ends_a_line_of_an_answer(text):
    result = BuildResult(
        status=BuildStatus.FAILED,
        image=text,
        error=text,
        log=[text],
        build_id=text,
        digests={text: text},
    )
    meant = text.encode("utf-8", "replace").decode()
    for line in (result.to_json(), result.to_last_line(), *progress_lines([text], 0)):
        assert len(line.decode().splitlines()) == 1
        read = parse_result(line)
        assert read.error in (meant, "")
        assert read.log in ((meant,), ())
        assert read.error or read.log or not meant


STEPS = st.sampled_from(["", "7", "1 started", "123456 announced"])


@given(LOGS, st.floats(0, 10_000), st.lists(STEPS))
@settings(max_examples=40, deadline=None)
def test_progress_lines_hold_the_log_in_lines_of_bounded_length(log, duration, steps):
    steps = (steps + [""] * len(log))[: len(log)]
    log = [StepText(text, step) if step else text for text, step in zip(log, steps, strict=True)]
    told: list[str] = []
    lines = list(progress_lines(log, duration))
    assert lines
    shown: list[str] = []
    for line in lines:
        assert len(line) <= MAX_LINE_BYTES
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        result = parse_result(line)
        assert result.status is BuildStatus.IN_PROGRESS
        assert result.duration == round(duration, 3)
        shown += result.log
        assert len(result.steps) in (0, len(result.log))
        told += result.steps or [""] * len(result.log)
    assert told == steps
    assert len(shown) == len(log)
    for said, meant in zip(shown, log, strict=True):
        meant_utf8 = meant.encode("utf-8", "replace").decode()
        assert said == meant_utf8 or (said.endswith("…") and meant_utf8.startswith(said[:-1]))


def test_steps_are_told_where_there_are_any():
    (line,) = progress_lines([StepText("v: RUN x", "3 started"), "l: a note"], 0)
    assert line.startswith(b'{"log":["v: RUN x","l: a note"],"steps":["3 started",""],"status":')
    (line,) = progress_lines(["l: a note"], 0)
    assert b"steps" not in line


def test_a_heartbeat_is_an_object_without_a_log():
    assert list(progress_lines([], 1.5)) == [b'{"status":"in_progress","duration":1.500}\n']


def test_many_short_lines_share_few_objects():
    assert len(list(progress_lines(["x" * 90] * 1000, 0))) == 2


@given(st.text() | st.text("\x01é", max_size=3).map(lambda text: text * 40_000))
@settings(max_examples=30, deadline=None)
def test_the_last_line_fits_whatever_the_error(error):
    line = BuildResult(
        status=BuildStatus.FAILED, image="r/" + "i" * 250 + ":" + "t" * 128, error=error, log=["x"]
    ).to_last_line()
    assert len(line) <= MAX_LINE_BYTES
    result = parse_result(line)
    assert result.ended
    assert not result.log


TEXTS = st.text(max_size=20) | st.text('\x01"é\n😀', max_size=3).map(lambda text: text * 9_000)
FINDINGS = {
    "reason": st.sampled_from(["", *Reason]),
    "step": TEXTS,
    "rule": TEXTS,
    "source": st.none() | st.builds(SourceExcerpt, TEXTS, st.just(3), st.just(4), TEXTS),
    "retryable": st.none() | st.booleans(),
    "warnings": st.lists(
        st.builds(BuildWarning, TEXTS, TEXTS, TEXTS, TEXTS, st.integers(0, 9)), max_size=8
    ).map(tuple),
}


@given(st.builds(BuildResult, status=st.just(BuildStatus.FAILED), error=TEXTS, **FINDINGS))
@settings(max_examples=60, deadline=None)
def test_findings_come_back_and_never_make_a_line_too_long(result):
    assert parse_result(result.to_json()) == result
    line = result.to_last_line()
    assert len(line) <= MAX_LINE_BYTES
    assert line.count(b"\n") == 1
    last = parse_result(line)
    assert (last.reason, last.retryable) == (result.reason, result.retryable)
    assert last.error == result.error or result.error.startswith(last.error.removesuffix("…"))
    assert last.warnings == result.warnings[: len(last.warnings)]
    if len(result.to_json()) < MAX_LINE_BYTES // 2:
        assert last == result


def test_findings_of_another_form_are_no_findings():
    odd = '{"status":"failed","reason":null,"source":7,"step":null,"retryable":"no","warnings":{}}'
    assert parse_result(odd) == BuildResult(status=BuildStatus.FAILED)
    assert parse_result('{"status":"failed","warnings":[1,null]}').warnings == ()


def test_a_whole_reply_is_the_contracts():
    result = BuildResult(
        status=BuildStatus.SUCCESS,
        image="ttl.sh/openfaas-image:1h",
        log=["v: 2022-06-23T09:10:12Z [ship 15/16] RUN npm test 0.35s"],
        duration=0.84312,
    )
    assert json.loads(result.to_json()) == {
        "log": ["v: 2022-06-23T09:10:12Z [ship 15/16] RUN npm test 0.35s"],
        "image": "ttl.sh/openfaas-image:1h",
        "status": "success",
        "duration": 0.843,
    }


def test_the_recorded_stream_reads_back():
    lines = (VECTORS / "buildlogs.ndjson").read_bytes().splitlines()
    results = [parse_result(line) for line in lines]
    assert [result.ended for result in results] == [False] * (len(lines) - 1) + [True]
    assert results[-1].status is BuildStatus.SUCCESS
    assert results[-1].image == "ttl.sh/openfaas/test-image-hello:10m"
    assert results[-1].duration == 1.086
    assert (
        "v: 2025-06-13T20:16:16Z [internal] load build definition from Dockerfile" in results[0].log
    )


def test_null_is_nothing():
    result = parse_result('{"status":"failed","image":null,"error":null,"log":null}')
    assert result == BuildResult(status=BuildStatus.FAILED)


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "1", "{}", '{"status":"failure"}', '{"status":"failed","log":1}', "[" * 99_999],
)
def test_something_else_is_no_answer(line):
    with pytest.raises(ValueError, match=r".+"):
        parse_result(line)


def test_digests_come_back_and_never_make_a_line_too_long():
    digest = "sha256:" + "a" * 64
    few = {"linux/amd64": digest, "linux/arm64": digest}
    for sent, line_has in ((few, few), ({f"linux/amd64/{n}": digest for n in range(1000)}, {})):
        result = BuildResult(status=BuildStatus.SUCCESS, digest=digest, digests=sent)
        assert parse_result(result.to_json()).digests == sent
        assert len(result.to_last_line()) <= MAX_LINE_BYTES
        assert parse_result(result.to_last_line()).digests == line_has
    assert parse_result('{"status":"success","digests":"odd"}').digests == {}
