"""Which upload makes room."""

import pytest

from function_builder.builds.slots import NoSlot
from function_builder.server import uploads as module
from function_builder.server.spool import Intake
from function_builder.server.uploads import Uploads


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Upload(Intake):
    """One that notes that it was given up."""

    def __init__(self, received: int = 0) -> None:
        super().__init__(
            lambda: pytest.fail("nothing is received here"),
            signature=None,
            max_bytes=1,
            timeout=1,
        )
        self.received = received
        self.given_up = False

    def give_up(self) -> None:
        self.given_up = True


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_while_all_have_only_just_begun_another_is_refused(clock):
    uploads = Uploads(1)
    with uploads.place(Upload()):
        clock.now += 4
        assert uploads.full
        with pytest.raises(NoSlot), uploads.place(Upload()):
            pass
        assert uploads.taken == 1
    assert uploads.taken == 0


def test_the_slowest_makes_room(clock):
    uploads = Uploads(3)
    quick, slow, young = Upload(10**6), Upload(10), Upload()
    with uploads.place(quick), uploads.place(slow):
        clock.now += 10
        with uploads.place(young):
            assert not uploads.full
            with uploads.place(Upload()):
                assert [quick.given_up, slow.given_up, young.given_up] == [False, True, False]
                assert uploads.taken == 3
            assert uploads.taken == 2
    assert uploads.taken == 0
