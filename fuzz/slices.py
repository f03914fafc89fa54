"""A fuzzer's bytes as numbers and pieces, the same with and without atheris."""


class Slices:
    """Takes its input apart from the front; what is missing at its end is zero or empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        """One byte, as a number."""
        return int.from_bytes(self.take(1), "big")

    def piece(self) -> bytes:
        """As many bytes as the next one says."""
        return self.take(self.byte())

    def text(self) -> str:
        """A piece, as text that UTF-8 can hold."""
        return self.piece().decode("utf-8", "replace")

    def take(self, size: int) -> bytes:
        """So many bytes."""
        start = self._at
        self._at = min(start + size, len(self._data))
        return self._data[start : self._at]

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))
