"""Text in requests and answers: its encoding, and reading and writing JSON."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from typing import Any, Final, NoReturn

_MARKS: Final = {
    # UTF-32's first, because its little-endian mark begins with UTF-16's.
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_LINE_ENDS: Final = re.compile("[\u0085\u2028\u2029]")
"""Unicode's line ends (`str.splitlines`) that JSON does not escape."""

_SAMPLE: Final = 1024
_MAX_DIGITS: Final = 1000


def foreign_encoding(data: bytes) -> str:
    """Name the encoding of text that is not UTF-8: "UTF-16" or "UTF-32"; "" for any other.

    A byte order mark decides. Without one, text is UTF-16 if every second byte of its beginning is
    often NUL, and the bytes between are not, as for line ends, spaces and Latin letters.
    """
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            return name
    sample = data[:_SAMPLE]
    zeros = sorted((sample[::2].count(0), sample[1::2].count(0)))
    return "UTF-16" if not zeros[0] and zeros[1] > max(1, len(sample) // 16) else ""


def load_json(data: bytes, pairs: Callable[[list[tuple[str, Any]]], Any]) -> Any:
    """Read JSON, with or without UTF-8's byte order mark.

    Args:
        data: its bytes.
        pairs: makes a value from an object's keys and values, in order.

    Raises:
        ValueError: it is not JSON; the text says why and where, without content of `data`.
    """
    if name := foreign_encoding(data):
        raise ValueError(f"it is {name} text: save it as UTF-8")
    try:
        return json.loads(
            data.decode("utf-8-sig"),
            object_pairs_hook=pairs,
            parse_int=_integer,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError as error:
        line, column = _place(error.object, error.start)
        raise ValueError(f"it is not UTF-8 text, at line {line}, column {column}") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        # The text already has the place.
        reason = error.msg.removesuffix(" at").removesuffix(" starting")
        raise ValueError(f"it is not JSON, at {place}: {reason}") from error
    except RecursionError as error:
        raise ValueError("it is not JSON that can be read: nested too deeply") from error


def dump_json(document: object) -> bytes:
    """Write JSON on one line.

    U+2028, U+2029 and U+0085 are escaped, although JSON does not require it, because some readers
    of lines, such as Node's readline, end a line there. Half a surrogate pair becomes "?".
    """
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    if not text.isascii():
        text = _LINE_ENDS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return text.encode("utf-8", "replace")


def _place(data: bytes, offset: int) -> tuple[int, int]:
    """The line and the column of a byte, both from 1; the bytes before it are UTF-8."""
    before = data[:offset].decode("utf-8-sig", "replace")
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _integer(digits: str) -> float:
    """Read an integer; int() refuses thousands of digits, but JSON allows them."""
    return int(digits) if len(digits) < _MAX_DIGITS else float(digits)


def _refuse_constant(constant: str) -> NoReturn:
    """Refuse NaN and Infinity, which only Python accepts as JSON."""
    raise ValueError(f"it is not JSON: it has the number {constant}")
