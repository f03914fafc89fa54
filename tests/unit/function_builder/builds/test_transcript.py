"""Status events as log lines."""

import dataclasses
import hashlib
import re
import time
from collections.abc import Collection, Sequence
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiobuildkit import StatusEvent, Vertex, VertexLog, VertexStatus
from function_builder.builds.masking import Mask
from function_builder.builds.transcript import MAX_LINE_BYTES, Transcript
from function_builder.contract.log import LogPrefixes, StepText

NOW = 1_655_975_412 * 10**9
AT = "2022-06-23T09:10:12Z"
STEP = Vertex(digest="sha256:1", name="[ship 15/16] RUN npm test", started=NOW)


def transcript(*, prefixes: LogPrefixes = LogPrefixes.FULL, **secrets: bytes) -> Transcript:
    return Transcript(Mask(secrets), prefixes=prefixes)


def output(*pieces: bytes, vertex: str = "sha256:1", stream: int = 1) -> list[StatusEvent]:
    return [StatusEvent(logs=(VertexLog(vertex, stream, piece, NOW),)) for piece in pieces]


def said(subject: Transcript, *events: StatusEvent) -> list[str]:
    lines = [line for event in events for line in subject.lines(event)] + subject.rest()
    return [line.split(" ", 2)[2] for line in lines]


def test_a_vertex_is_told_as_it_starts_and_as_it_ends():
    done = Vertex(digest="d", name="RUN x", started=NOW, completed=NOW + 350_000_000)
    assert transcript().lines(StatusEvent(vertexes=(STEP, done))) == [
        f"v: {AT} [ship 15/16] RUN npm test",
        f"v: {AT} RUN x 0.35s",
    ]


def test_a_vertex_that_has_not_started_has_the_time_of_now():
    (line,) = transcript().lines(StatusEvent(vertexes=(Vertex(digest="d", name="RUN x"),)))
    assert re.fullmatch(r"v: 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ RUN x", line)


def test_a_status_tells_its_bytes():
    status = VertexStatus(id="transferring dockerfile:", vertex="d", current=1686, timestamp=NOW)
    assert transcript().lines(StatusEvent(statuses=(status,))) == [
        f"s: {AT} transferring dockerfile: 1686"
    ]


@pytest.mark.parametrize(
    ("prefixes", "line"),
    [
        (LogPrefixes.FULL, f"v: {AT} [ship 15/16] RUN npm test"),
        (LogPrefixes.TIME, f"{AT} [ship 15/16] RUN npm test"),
        (LogPrefixes.NONE, "[ship 15/16] RUN npm test"),
    ],
)
def test_prefixes_can_be_left_out(prefixes, line):
    subject = transcript(prefixes=prefixes)
    assert subject.lines(StatusEvent(vertexes=(STEP,))) == [line]


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"one\ntwo\n"], ["one", "two"]),
        ([b"o", b"ne\ntw", b"o"], ["one", "two"]),
        ([b"10%\r20%\rdone\n"], ["10%", "20%", "done"]),
        ([b"dos\r", b"\nunix\n"], ["dos", "unix"]),
        ([b"10%\r", b"20%"], ["10%", "20%"]),
        ([b"last\r"], ["last"]),
        ([b"\n\n"], ["", ""]),
        ([b"\xffbad \xc3", b"\xa9\n"], ["\ufffdbad é"]),
    ],
)
def test_a_line_of_output_is_a_line_of_the_log(pieces, lines):
    assert said(transcript(), *output(*pieces)) == lines


@given(st.lists(st.binary(max_size=6) | st.sampled_from([b"\r", b"\n", b"\r\n"])))
def test_the_cuts_of_output_do_not_matter(pieces):
    assert said(transcript(), *output(*pieces)) == said(transcript(), *output(b"".join(pieces)))


def test_streams_and_steps_do_not_mix():
    events = [
        *output(b"a"),
        *output(b"x", stream=2),
        *output(b"1", vertex="sha256:2"),
        *output(b"b\n"),
        *output(b"y\n", stream=2),
        *output(b"2\n", vertex="sha256:2"),
    ]
    assert said(transcript(), *events) == ["ab", "xy", "12"]


def test_a_steps_unfinished_line_comes_with_its_end():
    subject = transcript()
    subject.lines(*output(b"no newline"))
    done = Vertex(digest="sha256:1", name="RUN x", started=NOW, completed=NOW)
    assert [line.split(" ", 2)[2] for line in subject.lines(StatusEvent(vertexes=(done,)))] == [
        "RUN x 0.00s",
        "no newline",
    ]


def test_output_without_a_lines_end_is_cut():
    lines = said(transcript(), *output(*[b"0123456789" * 1000] * 20))
    assert "".join(lines) == "0123456789" * 20_000
    assert max(map(len, lines)) <= MAX_LINE_BYTES


@given(
    st.sampled_from([b"hunter22", b"multi-first\nmulti-second\n", b"x" * 40_000]),
    st.integers(0, 40_000),
    st.lists(st.integers(0, 90_000), max_size=4),
)
def test_a_secret_is_masked_however_output_is_cut(secret, before, cuts):
    data = b"a" * before + secret + b"b" * 100 + b"\n" + secret + b"\n"
    pieces, start = [], 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        pieces.append(data[start:cut])
        start = cut
    text = "\n".join(said(transcript(token=secret), *output(*pieces)))
    for part in secret.split():
        assert part.decode() not in text
        assert part[:20].decode() not in text
    assert "***" in text
    assert text.count("a") == before


def test_secrets_are_masked_in_names_ids_and_errors():
    mask = Mask({"t": b"hunter22\n", "short": b"abc", "empty": b""})
    assert mask.text("RUN echo hunter22 abc") == "RUN echo *** abc"
    subject = Transcript(mask, prefixes=LogPrefixes.NONE)
    event = StatusEvent(
        vertexes=(Vertex(digest="d", name="RUN hunter22"),),
        statuses=(VertexStatus(id="hunter22", vertex="d"),),
    )
    assert subject.lines(event) == ["RUN ***", "*** 0"]


def test_a_name_of_megabytes_is_cut():
    long = "RUN " + "é" * 3_000_000
    (line,) = said(transcript(), StatusEvent(vertexes=(Vertex("d", long, started=NOW),)))
    assert line == long[: MAX_LINE_BYTES - 1] + "…"


def test_pieces_that_are_smaller_than_a_character_have_an_end():
    assert Mask({}).pieces("éé€".encode(), 1) == [bytes([byte]) for byte in "éé€".encode()]


@given(st.text("abé", max_size=12), st.integers(2, 30), st.text("abcé", max_size=40))
def test_no_part_of_a_secret_is_left_where_a_name_is_cut(secret: str, size: int, text: str):
    value = "secret" + secret
    text = text[:20] + value + text[20:] + value
    told = Mask({"s": value.encode()}).beginning(text, size)
    shown = told.removesuffix("…").replace("***", value)
    assert text.startswith(shown)
    # A part of a value is longer than what the text itself may have of its characters.
    assert "s" not in told
    if len(text) <= size:
        assert told == text.replace(value, "***")


def test_a_line_of_a_secret_is_masked_with_and_without_its_indentation():
    mask = Mask({"json": b'{\n  "password": "hunter22"\n\t"x": 1 \r\n}\n'})
    assert mask.text('  "password": "hunter22"') == "***"
    assert mask.text('say "password": "hunter22".') == "say ***."
    assert mask.text('"x": 1|\t"x": 1 |') == "***|***|"


def test_a_secret_that_holds_another_is_hidden_whole():
    assert Mask({"a": b"pass", "b": b"password"}).text("password pass") == "*** ***"


def plainly_masked(needles: Collection[bytes], data: bytes) -> bytes:
    """Tried one by one at each byte, the longest first."""
    masked, start = b"", 0
    while start < len(data):
        fit = max((len(each) for each in needles if data.startswith(each, start)), default=0)
        masked += b"***" if fit else data[start : start + 1]
        start += fit or 1
    return masked


values = st.lists(
    st.lists(st.sampled_from([b"ab", b"ba", b"aaa", b"b", b"\xc3\xa9"]), min_size=2, max_size=9)
    .map(b"".join)
    .filter(lambda value: len(value) >= 4),
    max_size=20,
)
texts = st.lists(st.sampled_from([b"a", b"b", b"aba", b"\xc3\xa9", b"\xff"]), max_size=80).map(
    b"".join
)


def mask_of(values: Sequence[bytes]) -> Mask:
    return Mask({str(number): value for number, value in enumerate(values)})


@given(values, texts)
def test_of_many_secrets_the_longest_that_fits_is_masked(secrets, text):
    assert mask_of(secrets).output(text) == plainly_masked(secrets, text)


@given(values, texts, texts, st.integers(4, 30))
def test_no_cut_parts_a_secret_whatever_follows(secrets, text, more, size):
    mask = mask_of(secrets)
    *pieces, rest = mask.pieces(text, size, ahead=mask.longest)
    pieces += mask.pieces(rest + more, size)
    assert b"".join(map(mask.output, pieces)) == plainly_masked(secrets, text + more)
    assert all(0 < len(piece) <= size + mask.longest for piece in pieces[:-1])


A = b"a" * (1 << 20)
HOSTILE = {
    "one prefix, but for one": ([b"aaaab", *(b"a" * 690 + b"%04d" % n for n in range(990))], A),
    "each begins the next": ([b"a" * n for n in range(4, 1000)], A),
    "each begins the next, and no longest": (
        [b"a" * n for n in range(4, 1000)],
        (b"a" * 999 + b"b") * 1000,
    ),
    "each ends the next": ([b"b" + b"a" * n for n in range(4, 1000)], A),
    "long, and another only at the end": ([b"a" * 16_000 + b"b%d" % n for n in range(48)], A),
    "long, and another in the middle": (
        [b"a" * 8000 + b"b%d" % n + b"a" * 8000 for n in range(48)],
        (b"a" * 8000 + b"b1" + b"a" * 7000) * 64,
    ),
    "periods that are broken off": ([b"ab" * n + b"c" for n in range(2, 800)], b"ab" * (1 << 19)),
    "one that the output nearly is": ([b"a" * 700_000 + b"b"], A),
    "one whose end the output is": ([b"b" + b"a" * 700_000], A),
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_secrets_and_output_made_for_each_other_do_not_hold_up_the_builder(shape):
    secrets, text = HOSTILE[shape]
    began = time.process_time()
    subject = Transcript(Mask({"x": b"\n".join(secrets)}), prefixes=LogPrefixes.FULL)
    said(subject, *output(*(text[at : at + 4096] for at in range(0, len(text), 4096))))
    said(subject, *output(text + b"\n"))
    # Less than one; tried one by one, it was minutes.
    assert time.process_time() - began < 20


def test_a_long_line_that_comes_byte_by_byte_does_not_either():
    secret = b"s" * 700_000
    subject = Transcript(Mask({"x": secret}), prefixes=LogPrefixes.FULL)
    began = time.process_time()
    assert said(subject, *output(secret), *output(*[b"x"] * 20_000)) == ["***", "x" * 20_000]
    assert time.process_time() - began < 20


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_bytes_that_only_go_on_with_a_character_are_cut_too(end):
    lines = list(islice(transcript()._output(*output(b"\x80" * 40_000 + end)[0].logs), 3))
    assert "".join(lines).count("\ufffd") == (40_000 if end else MAX_LINE_BYTES)


def test_a_thousand_secrets_do_not_hold_up_the_log():
    secrets = {f"s{n}": hashlib.sha256(bytes(n)).hexdigest().encode() for n in range(1000)}
    subject = Transcript(Mask(secrets), prefixes=LogPrefixes.FULL)
    began = time.process_time()
    for end in (b"\n", b""):
        said(subject, *output(b"0123456789abcdef" * (1 << 16) + end))
    # Tried one by one at each byte, and once more at each cut of the line, it was minutes.
    assert time.process_time() - began < 20


def test_each_line_has_its_step():
    subject = transcript()
    other = dataclasses.replace(STEP, digest="sha256:2", name="other")
    ended = dataclasses.replace(STEP, completed=NOW + 1)
    other_ended = dataclasses.replace(other, completed=NOW + 1)
    events = [
        StatusEvent(vertexes=(dataclasses.replace(STEP, started=None), other)),
        StatusEvent(
            vertexes=(STEP,),
            statuses=(
                VertexStatus(id="a", vertex="sha256:2", timestamp=NOW),
                VertexStatus(id="a", vertex="sha256:2", timestamp=NOW, completed=NOW),
            ),
        ),
        *output(b"whole\npart"),
        StatusEvent(
            vertexes=(
                ended,
                dataclasses.replace(other_ended, cached=True),
                dataclasses.replace(other_ended, error="exit code: 1"),
                dataclasses.replace(other_ended, error="rpc error: context canceled"),
            )
        ),
    ]
    lines = [line for event in events for line in subject.lines(event)]
    assert [line.step for line in lines if isinstance(line, StepText)] == [
        *("1 announced", "2 started"),
        *("1 started", "2 moving", "2 moved"),
        "1",
        *("1 completed", "2 cached", "2 failed", "2 cancelled", "1"),
    ]
    assert not hasattr(subject.note("of our own"), "step")
