"""The forms in which programs print a secret unintentionally.

`set -x` and `printf %q` quote for a shell, HTTP clients put a password in base64 or in a URL, and
loggers write JSON. Other forms (hexadecimal, a hash, one character a line) are not masked: a RUN
step can always print a secret in a form that no mask knows.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Final
from urllib.parse import quote, quote_plus

MIN_BASE64_CHARACTERS: Final = 6
"""The fewest characters of base64 that do not depend on neighbors; fewer occur in other words."""

MAX_ENCODED_BYTES: Final = 8 * 1024
"""The most bytes of values and lines whose forms are made; the forms have ten times as many."""

_PLAIN = re.compile(rb"[A-Za-z0-9_.-]*")
_SHELL_SPECIAL = re.compile(rb"([^A-Za-z0-9_@%+=:,./\x80-\xff-])")
_QUOTED_SPECIAL = re.compile(rb'([$`"\\])')
_ESCAPE = re.compile(r"%[0-9A-F]{2}")
_HTML: Final = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
_WRAPPED_AT: Final = (76, 64)
"""Columns of a line of `base64`, and of `openssl base64`."""


def encodings(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Other forms of values and their lines, from the shortest, up to the limit."""
    left = MAX_ENCODED_BYTES
    for part in sorted(parts, key=len):
        left -= len(part)
        if left < 0:
            return
        yield from _base64(part)
        if not _PLAIN.fullmatch(part):
            yield from _shell(part)
            yield from _url(part)
            yield from _json(part)


def _base64(part: bytes) -> Iterator[bytes]:
    """The base64 of a text at any offset, without the characters that depend on neighbors."""
    for before, first in ((0, 0), (1, 2), (2, 3)):
        at_end = b64encode(bytes(before) + part)[first:].rstrip(b"=")
        within = at_end[: (before + len(part)) * 8 // 6 - first]
        if len(within) < MIN_BASE64_CHARACTERS:
            continue
        # Text before a value moves the line breaks. They are only matched for a value by itself.
        lines = _wrapped(at_end) if not before else ()
        for form in (at_end, within, *lines):
            yield form
            yield form.translate(bytes.maketrans(b"+/", b"-_"))


def _wrapped(text: bytes) -> Iterator[bytes]:
    for width in _WRAPPED_AT:
        for start in range(0, len(text), width):
            line = text[start : start + width]
            if len(line) >= MIN_BASE64_CHARACTERS:
                yield line


def _shell(part: bytes) -> Iterator[bytes]:
    yield part.replace(b"'", rb"'\''")
    yield part.replace(b"'", b"'\"'\"'")
    yield part.replace(b"\\", rb"\\").replace(b"'", rb"\'")
    yield _SHELL_SPECIAL.sub(rb"\\\1", part)
    yield _QUOTED_SPECIAL.sub(rb"\\\1", part)


def _url(part: bytes) -> Iterator[bytes]:
    texts = {quote(part, safe=safe) for safe in ("", "/", "!'()*", "/:@!$&'()*+,;=")}
    texts |= {quote_plus(part), quote_plus(part, safe="*")}
    for text in texts:
        yield text.encode()
        yield _ESCAPE.sub(lambda match: match[0].lower(), text).encode()


def _json(part: bytes) -> Iterator[bytes]:
    try:
        text = part.decode()
    except UnicodeDecodeError:
        return
    for is_ascii, slash, is_html in product((False, True), (False, True), (False, True)):
        form = json.dumps(text, ensure_ascii=is_ascii)[1:-1]
        if slash:
            form = form.replace("/", "\\/")
        if is_html:
            for character, escape in _HTML.items():
                form = form.replace(character, escape)
        yield form.encode("utf-8", "surrogatepass")
