"""The fields of a tar's header block: text, and numbers in the two forms that tars write."""

import re
from functools import lru_cache
from typing import Final

from function_builder.contract.errors import Refusal, shown

BLOCK: Final = 512

# Digits behind a NUL are a number to Go and GNU tar, and nothing to bsdtar and Python.
_OCTAL: Final = re.compile(rb" *([0-7]+) *(?:\0.*)?|[ \0]*", re.DOTALL)


@lru_cache(maxsize=1024)
def octal(field: bytes) -> int | None:
    """A number field's digits, ended by NUL or space; None where there is something else."""
    # int() alone would take signs, underscores and prefixes.
    match = _OCTAL.fullmatch(field)
    return int(match[1] or b"0", 8) if match else None


def number(field: bytes, what: str, name: str) -> int:
    """A number field: octal digits, or GNU's base-256, two's complement behind a set first bit.

    Raises:
        Refusal: 400: it holds something else; the text has the number's and the entry's names.
    """
    if not field[0] & 0x80:
        # The next entry's owner, mode, time and even size are often those of the last.
        value = octal(field)
        if value is None:
            raise Refusal(400, f"The header of {shown(name)} has no number for its {what}.")
        return value
    bits = 8 * len(field) - 1
    value = int.from_bytes(field, "big") & ((1 << bits) - 1)
    return value - (1 << bits) if value >> (bits - 1) else value


def padded_size(size: int) -> int:
    """The size that data of `size` bytes has in the archive, padding included."""
    return -(-size // BLOCK) * BLOCK
