"""Server-sent events, written and read."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.contract.sse import HEARTBEAT, Event, EventParser

texts = st.text(st.characters(exclude_categories=["Cs"]))
tokens = st.from_regex("[a-z0-9]{0,8}", fullmatch=True)
events = st.builds(Event, texts, tokens, tokens)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(st.lists(events, max_size=5), st.lists(st.integers(0, 10_000), max_size=5))
def test_events_are_read_back_however_they_are_cut(sent: list[Event], places: list[int]):
    data = HEARTBEAT + b"".join(event.to_bytes() + HEARTBEAT for event in sent)
    parser = EventParser()
    read = [event for piece in cut(data, places) for event in parser.receive_data(piece)]
    lines = [re.sub("\r\n|\r", "\n", event.data) for event in sent]
    assert read == [
        Event(data, event.name, event.id) for data, event in zip(lines, sent, strict=True)
    ]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_each_line_end_of_the_specification_is_one(end: str):
    stream = end.join(["\ufeff: hello", "id: 7", "event:x", "data: a", "data:b", "odd", "", ""])
    parser = EventParser()
    pieces = [bytes([byte]) for byte in stream.encode()]
    read = [event for piece in pieces for event in parser.receive_data(piece)]
    read += parser.receive_data(b"data: next\n\n")
    assert read == [Event("a\nb", "x", "7"), Event("next")]


def test_an_event_that_is_cut_off_is_not_given():
    assert not list(EventParser().receive_data(b"id: 1\ndata: half"))


@pytest.mark.parametrize("piece", [b"x" * 100_000, b"data: " + b"x" * 100_000 + b"\n"])
def test_an_event_without_end_is_refused(piece: bytes):
    parser = EventParser()
    with pytest.raises(ValueError, match="too long"):
        _ = [event for _ in range(20) for event in parser.receive_data(piece)]
