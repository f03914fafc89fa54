"""Decode HPACK (RFC 7541) in header blocks that a build's author may make large.

`hpack`'s decoder takes 19 µs for each header, and BuildKit sends one header for each source of a
COPY. It also decodes long values at once, and the trailers of a failed build have megabytes of
them. Here long values stay Huffman-coded, and the caller decodes them in steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, TypeAlias

from hpack.table import HeaderTable

from aiobuildkit.http2 import huffman

__all__ = ["STEP_BYTES", "Coded", "Decoder", "MalformedHeaders", "plain", "plain_steps"]

_Header: TypeAlias = tuple[bytes, bytes]

_TABLE_BYTES: Final = 4096
"""The size of the dynamic table: HTTP/2's default, which our settings do not change."""

_ENTRY_BYTES: Final = 32
"""Bytes of a header in addition to its name and value, in the table and a list (section 4.1)."""

_LATER: Final = 16 * 1024
"""Coded values of at least so many bytes are not decoded. A symbol has at most 30 bits, so the
value has more than `_TABLE_BYTES`. Such a value empties the table, and is not stored in it."""

STEP_BYTES: Final = 4 * 1024
"""Coded bytes of a step of `plain_steps`, which takes a millisecond."""

_MAX_NUMBER: Final = 1 << 28

_STATIC: Final = tuple(HeaderTable.STATIC_TABLE)

_INDEXED: Final = 0x80
_ADDED: Final = 0x40
_RESIZED: Final = 0x20
_LITERAL_INDEX: Final = 0x0F
_HUFFMAN: Final = 0x80


class MalformedHeaders(ValueError):
    """A header block is not valid HPACK, or too large."""


class Coded(bytes):
    """A header's value that is still Huffman-coded; `plain` decodes it."""

    __slots__ = ()


def plain(value: bytes) -> bytes:
    """The decoded value of a header. A coded one takes 0.25 µs for each byte.

    Raises:
        MalformedHeaders: it is not valid Huffman code.
    """
    return b"".join(plain_steps(value)) if isinstance(value, Coded) else value


def plain_steps(value: bytes) -> Iterator[bytes]:
    """The same in parts, one for each `STEP_BYTES` of a coded value.

    An event loop can do other work between two parts. Decoding in a thread would delay the loop
    more: it would wait up to 5 ms for the interpreter's lock after each system call.
    """
    if not isinstance(value, Coded):
        yield value
        return
    decoder = huffman.Decoder()
    try:
        for start in range(0, len(value), STEP_BYTES):
            yield decoder.decode(value[start : start + STEP_BYTES])
        decoder.close()
    except huffman.MalformedHuffman as error:
        raise MalformedHeaders(f"a value with invalid Huffman code: {error}") from error


class Decoder:
    """Decodes the header blocks of one direction of a connection, in order.

    Args:
        max_list: the most bytes of a list, as HTTP/2 counts them: 32 for each header, plus its name
            and value. A coded value counts with its coded length.
    """

    def __init__(self, max_list: int) -> None:
        self._max_list = max_list
        self._added: deque[_Header] = deque()
        self._size = 0
        self._limit = _TABLE_BYTES

    def decode(self, block: bytes) -> list[_Header]:
        """The headers of a block.

        Raises:
            MalformedHeaders: the connection must be closed, because its table is no longer known.
        """
        try:
            return self._headers(block)
        except IndexError:
            raise MalformedHeaders("a block that ends inside a header") from None
        except huffman.MalformedHuffman as error:
            raise MalformedHeaders(f"a string with invalid Huffman code: {error}") from error

    def _headers(self, block: bytes) -> list[_Header]:
        headers: list[_Header] = []
        place = size = 0
        while place < len(block):
            first = block[place]
            if first & _INDEXED:
                index, place = _number(block, place, _INDEXED - 1)
                header = self._entry(index)
            elif first & _ADDED:
                header, place = self._literal(block, place, _ADDED - 1)
                self._add(header)
            elif first & _RESIZED:
                if headers:
                    raise MalformedHeaders("a table size update after a header")
                limit, place = _number(block, place, _RESIZED - 1)
                self._resize(limit)
                continue
            else:
                header, place = self._literal(block, place, _LITERAL_INDEX)
            size += _ENTRY_BYTES + len(header[0]) + len(header[1])
            if size > self._max_list:
                raise MalformedHeaders(f"more than {self._max_list} bytes of headers")
            headers.append(header)
        return headers

    def _literal(self, block: bytes, place: int, mask: int) -> tuple[_Header, int]:
        index, place = _number(block, place, mask)
        if index:
            name = self._entry(index)[0]
        else:
            coded, place = _string(block, place)
            name = plain(coded)
        value, place = _string(block, place)
        if len(value) <= _LATER:
            value = plain(value)
        return (name, value), place

    def _entry(self, index: int) -> _Header:
        if not index:
            raise MalformedHeaders("a header with index 0")
        if index <= len(_STATIC):
            return _STATIC[index - 1]
        if index - len(_STATIC) > len(self._added):
            raise MalformedHeaders(f"a header with the unknown index {index}")
        return self._added[index - len(_STATIC) - 1]

    def _add(self, header: _Header) -> None:
        self._added.appendleft(header)
        self._size += _ENTRY_BYTES + len(header[0]) + len(header[1])
        self._evict()

    def _resize(self, limit: int) -> None:
        if limit > _TABLE_BYTES:
            raise MalformedHeaders(f"a table of {limit} bytes")
        self._limit = limit
        self._evict()

    def _evict(self) -> None:
        while self._size > self._limit:
            name, value = self._added.pop()
            self._size -= _ENTRY_BYTES + len(name) + len(value)


def _number(block: bytes, place: int, mask: int) -> tuple[int, int]:
    """An integer in the low bits of a byte and, if it is large, in the next bytes (section 5.1)."""
    number = block[place] & mask
    place += 1
    if number < mask:
        return number, place
    shift = 0
    while True:
        byte = block[place]
        place += 1
        number += (byte & 0x7F) << shift
        shift += 7
        if number > _MAX_NUMBER or shift > _MAX_NUMBER.bit_length():
            raise MalformedHeaders("an integer that is too large")
        if not byte & 0x80:
            return number, place


def _string(block: bytes, place: int) -> tuple[bytes, int]:
    """A string (section 5.2), which may be `Coded`."""
    coded = block[place] & _HUFFMAN
    length, place = _number(block, place, _HUFFMAN - 1)
    end = place + length
    if end > len(block):
        raise MalformedHeaders("a block that ends inside a string")
    text = block[place:end]
    return (Coded(text) if coded else text), end
