"""Slots, taken and given back."""

import pytest

from function_builder.builds.slots import NoSlotError, Slots


def test_the_limit_holds_and_a_slot_comes_back_on_every_way_out():
    slots = Slots(1)

    def fail() -> None:
        with slots.slot():
            assert slots.full
            with pytest.raises(NoSlotError), slots.slot():
                pass
            assert slots.taken == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert slots.taken == 0
    assert not slots.full


def test_no_limit():
    slots = Slots(0)
    with slots.slot(), slots.slot():
        assert not slots.full
        assert slots.taken == 2
