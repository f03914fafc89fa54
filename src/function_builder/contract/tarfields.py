"""The fields of a tar's header block: text, and numbers in both forms."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from function_builder.contract.errors import Refusal, shown

BLOCK: Final = 512

# Go and GNU tar read digits after a NUL; bsdtar and Python do not.
_OCTAL: Final = re.compile(rb" *([0-7]+) *(?:\0.*)?|[ \0]*", re.DOTALL)


@lru_cache(maxsize=1024)
def octal(field: bytes) -> int | None:
    """A number field's digits, ended by NUL or space; None for another form."""
    # int() alone would accept signs, underscores and prefixes.
    match = _OCTAL.fullmatch(field)
    return int(match[1] or b"0", 8) if match else None


def number(field: bytes, what: str, name: str) -> int:
    """A number field: octal digits, or GNU's base-256, two's complement after a set first bit.

    Raises:
        Refusal: 400: it has another form; the text names the field and the entry.
    """
    if not field[0] & 0x80:
        # Owner, mode, time and even size are often those of the previous entry.
        value = octal(field)
        if value is None:
            raise Refusal(400, f"The header of {shown(name)} has no valid {what}.")
        return value
    bits = 8 * len(field) - 1
    value = int.from_bytes(field, "big") & ((1 << bits) - 1)
    return value - (1 << bits) if value >> (bits - 1) else value


def padded_size(size: int) -> int:
    """The size of `size` bytes of data in the archive, including padding."""
    return -(-size // BLOCK) * BLOCK
