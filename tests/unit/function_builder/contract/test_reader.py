"""Reading ahead changes how often is read, and nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from function_builder.contract.reader import ReadAhead


class Memory:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads = 0

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, size: int) -> bytes:
        self.reads += 1
        return self.data[offset : offset + size]


DATA = bytes(range(251)) * 1000


@given(st.lists(st.tuples(st.integers(0, len(DATA) + 9), st.integers(0, 100_000)), max_size=20))
def test_it_reads_what_is_there_in_any_order(reads):
    ahead = ReadAhead(Memory(DATA))
    assert ahead.size == len(DATA)
    for offset, size in reads:
        assert ahead.read(offset, size) == DATA[offset : offset + size]


def test_small_reads_that_go_forward_are_few():
    memory = Memory(DATA)
    ahead = ReadAhead(memory)
    read = b"".join(ahead.read(offset, 500) for offset in range(0, len(DATA), 500))
    assert read == DATA
    assert memory.reads < 10
