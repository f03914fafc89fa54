"""Archives made by hand, block by block, so that they can be wrong in any way.

Source: POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

BLOCK = 512
END = bytes(2 * BLOCK)
"""The two blocks of zeros that end an archive."""


class Bytes:
    """A reader of the contract that remembers the largest piece that it was asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.largest = 0

    def read(self, offset: int, size: int) -> bytes:
        self.largest = max(self.largest, size)
        return self.data[offset : offset + size]


def header(
    name: bytes = b"a",
    size: bytes = b"00000000000\0",
    *,
    flag: bytes = b"0",
    mode: bytes = b"0000644\0",
    mtime: bytes = b"00000000000\0",
    target: bytes = b"",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    signed: bool = False,
) -> bytes:
    """One header block, its checksum right, whatever the fields hold."""
    start = name.ljust(100, b"\0") + mode + b"0000000\0" * 2 + size + mtime
    end = flag + target.ljust(100, b"\0") + magic + bytes(80) + prefix.ljust(167, b"\0")
    block = with_checksum(start + bytes(8) + end, signed=signed)
    assert len(block) == BLOCK
    return block


def with_checksum(block: bytes, *, signed: bool = False) -> bytes:
    """The header block with the right checksum; `signed` as old tars made it."""
    summed = block[:148] + b" " * 8 + block[156:]
    total = sum(memoryview(summed).cast("b") if signed else summed)
    return block[:148] + b"%06o\0 " % total + block[156:]


def padded(data: bytes) -> bytes:
    """Data as it stands behind its header."""
    return data + bytes(-len(data) % BLOCK)


def one_file(name: bytes, content: bytes) -> bytes:
    """A whole archive with one file."""
    return header(name, octal(len(content))) + padded(content) + END


def octal(number: int) -> bytes:
    """A number as a field of twelve bytes."""
    return b"%011o\0" % number


def extended(data: bytes, flag: bytes = b"x") -> bytes:
    """A pax header (x, g) or a GNU long name (L, K)."""
    return header(b"././@Ext", octal(len(data)), flag=flag) + padded(data)


def record(key: bytes, value: bytes) -> bytes:
    """One record of a pax header."""
    length = len(key) + len(value) + 3
    while len(str(length)) + len(key) + len(value) + 3 != length:
        length = len(str(length)) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)
