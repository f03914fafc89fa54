"""What a refusal must be like, whatever it refuses."""

from collections.abc import Callable
from typing import TypeVar

from function_builder.contract.errors import Refusal

_LONGEST = 600

_Answer = TypeVar("_Answer")


def unless_refused(read: Callable[[], _Answer], *statuses: int) -> _Answer | None:
    """What is read; None if it is refused, with one of these, in one short line."""
    try:
        return read()
    except Refusal as refusal:
        assert refusal.status in statuses
        assert 0 < len(refusal.reason) < _LONGEST
        assert refusal.reason.isprintable()
        return None
