"""Sparse entries made by hand, in each form that the builder reads, so that a map can be wrong."""

from tests.support.archives import BLOCK, extended, header, octal, padded, record, with_checksum

Pieces = list[tuple[int, int]]


def entry(form: str, pieces: Pieces, size: int, data: bytes, name: bytes = b"f") -> bytes:
    """A sparse entry, its header right and its map as it is given."""
    if form == "old":
        fields = [octal(offset) + octal(length) for offset, length in pieces]
        blocks = [fields[start : start + 21] for start in range(4, len(fields), 21)]
        inside = b"".join(fields[:4]).ljust(96, b"\0")
        block = header(name, octal(len(data)), flag=b"S", magic=b"ustar  \0")
        block = block[:386] + inside + (b"\1" if blocks else b"\0") + octal(size) + block[495:]
        more = [
            b"".join(fields).ljust(504, b"\0") + (b"\1" if number < len(blocks) else b"\0")
            for number, fields in enumerate(blocks, 1)
        ]
        return (
            with_checksum(block)
            + b"".join(each.ljust(BLOCK, b"\0") for each in more)
            + padded(data)
        )
    numbers = [b"%d" % number for piece in pieces for number in piece]
    if form == "1.0":
        records = record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0")
        records += record(b"GNU.sparse.realsize", b"%d" % size)
        data = padded(b"".join(number + b"\n" for number in [b"%d" % len(pieces), *numbers])) + data
    elif form == "0.1":
        records = record(b"GNU.sparse.size", b"%d" % size)
        records += record(b"GNU.sparse.numblocks", b"%d" % len(pieces))
        records += record(b"GNU.sparse.map", b",".join(numbers))
    else:
        records = record(b"GNU.sparse.size", b"%d" % size)
        records += record(b"GNU.sparse.numblocks", b"%d" % len(pieces))
        keys = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
        records += b"".join(record(keys[n % 2], number) for n, number in enumerate(numbers))
    records += record(b"GNU.sparse.name", name)
    return extended(records) + header(b"GNUSparseFile.0/f", octal(len(data))) + padded(data)
