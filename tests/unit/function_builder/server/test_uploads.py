"""Which upload makes room."""

import time
from contextlib import ExitStack
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.server.receiving import Intake
from function_builder.server.uploads import TooManyUploads, Uploads


class Upload(Intake):
    """One that has been under way for so long, and notes why it was given up."""

    def __init__(self, received: int = 0, age: float = 0) -> None:
        super().__init__(Mock(), signature=None, max_bytes=1, timeout=1)
        self.received = received
        self.started = time.monotonic() - age
        self.reason: Any = None

    def abort(self, because) -> None:
        self.reason = because


@pytest.fixture
def held():
    with ExitStack() as stack:
        yield stack


def test_no_age_protects_an_upload(held):
    uploads = Uploads(2)
    first, second, third = Upload(age=0.2), Upload(age=0.1), Upload()
    for upload in first, second, third:
        held.enter_context(uploads.place(upload, "a"))
    assert isinstance(first.reason, TooManyUploads)
    assert first.reason.status == 429
    assert (second.reason, third.reason) == (None, None)
    assert uploads.taken == 2
    held.close()
    assert uploads.taken == 0


def test_the_slowest_makes_room(held):
    uploads = Uploads(2)
    quick, slow = Upload(10**8, age=10), Upload(10, age=9)
    for upload in quick, slow, Upload():
        held.enter_context(uploads.place(upload, "a"))
    assert slow.reason
    assert not quick.reason


def test_one_that_counts_as_the_slowest_is_refused(held):
    uploads = Uploads(2)
    for _ in range(2):
        held.enter_context(uploads.place(Upload(10**8, age=10), "a"))
    with pytest.raises(TooManyUploads), uploads.place(Upload(), "a"):
        pass
    assert uploads.taken == 2


def test_the_address_with_the_most_loses_its_own(held):
    uploads = Uploads(3)
    alone = Upload(0, age=100)
    many = [Upload(10**8, age=10) for _ in range(2)]
    for upload, source in (alone, "b"), (many[0], "a"), (many[1], "a"), (Upload(), "c"):
        held.enter_context(uploads.place(upload, source))
    assert not alone.reason
    assert [bool(upload.reason) for upload in many].count(True) == 1


def test_what_is_proven_has_places_of_its_own(held):
    uploads = Uploads(1)
    proven = Upload(age=100)
    held.enter_context(uploads.place(proven, "a", b"proof"))
    for _ in range(10):
        held.enter_context(uploads.place(Upload(10**8, age=1), "a"))
    assert not proven.reason
    assert uploads.taken == 2


def test_a_proof_that_is_sent_twice_proves_one_upload(held):
    uploads = Uploads(1)
    proven, copies = Upload(age=100), [Upload() for _ in range(3)]
    for upload in [proven, *copies]:
        held.enter_context(uploads.place(upload, "a", b"proof"))
    assert not proven.reason
    assert [bool(copy.reason) for copy in copies] == [True, True, False]
    held.close()
    with uploads.place(proven, "a", b"proof"), uploads.place(Upload(), "a"):
        assert uploads.taken == 2


async def test_the_end_of_the_builder_ends_what_is_not_proven(held):
    uploads = Uploads(2)
    proven, other = Upload(), Upload()
    held.enter_context(uploads.place(proven, "a", b"proof"))
    with uploads.place(other, "a"):
        uploads.end_unproven()
    assert other.reason.status == 503
    assert not proven.reason
    await uploads.only_proven()
    uploads.end_all()
    assert proven.reason.status == 503


@given(st.lists(st.sampled_from("aaaaaaab"), min_size=1, max_size=60))
def test_one_upload_of_an_address_is_safe_from_another_addresss(sources):
    """Whatever an attacker with one address does, who has one upload alone keeps it."""
    uploads = Uploads(4)
    with ExitStack() as stack:
        honest = Upload(0, age=1000)
        stack.enter_context(uploads.place(honest, "honest"))
        for source in sources:
            stack.enter_context(uploads.place(Upload(10**9, age=1), source))
        assert uploads.taken <= 4
        assert not honest.reason
