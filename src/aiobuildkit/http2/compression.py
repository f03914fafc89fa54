"""HPACK's decoder (RFC 7541) for header blocks that a build's author may make large.

``hpack``'s own takes 19 µs for each header, and BuildKit asks for each source of a COPY in a header
of its own; it also decodes long values at once, of which a failed build's trailers have megabytes.
Here long values stay in Huffman's code, so that who needs one can decode it in a thread.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

from hpack.table import HeaderTable

from aiobuildkit.http2 import huffman

__all__ = ["Coded", "Decoder", "MalformedHeaders", "plain"]

_Header: TypeAlias = tuple[bytes, bytes]

_TABLE_BYTES: Final = 4096
"""Of the table of headers that were sent before: HTTP/2's default, which our settings leave."""

_ENTRY_BYTES: Final = 32
"""That a header counts besides its name and value, in the table and in a list (section 4.1)."""

_LATER: Final = 16 * 1024
"""Bytes of a coded value that is left so. A symbol has 30 bits at most, so the value itself has
more than `_TABLE_BYTES`: whatever it says, it empties the table and is not kept in it."""

_MAX_NUMBER: Final = 1 << 28

_STATIC: Final = tuple(HeaderTable.STATIC_TABLE)

_INDEXED: Final = 0x80
_ADDED: Final = 0x40
_RESIZED: Final = 0x20
_LITERAL_INDEX: Final = 0x0F
_HUFFMAN: Final = 0x80


class MalformedHeaders(ValueError):
    """A header block that is no HPACK, or that is too large."""


class Coded(bytes):
    """A header's value that is still in Huffman's code; `plain` decodes it."""

    __slots__ = ()


def plain(value: bytes) -> bytes:
    """A header's value as its sender meant it; some 0.15 µs for each byte of a coded one.

    Raises:
        MalformedHeaders: it is no Huffman code.
    """
    if not isinstance(value, Coded):
        return value
    try:
        return huffman.decode(value)
    except huffman.MalformedHuffman as error:
        raise MalformedHeaders(f"a value that is no Huffman code: {error}") from error


class Decoder:
    """Reads the header blocks of one direction of a connection, in their order.

    Args:
        max_list: bytes of a list, as HTTP/2 counts them: 32 for each header, its name and its
            value. A coded value counts as it came.
    """

    def __init__(self, max_list: int) -> None:
        self._max_list = max_list
        self._added: deque[_Header] = deque()
        self._size = 0
        self._limit = _TABLE_BYTES

    def decode(self, block: bytes) -> list[_Header]:
        """The headers of a block.

        Raises:
            MalformedHeaders: the connection cannot go on, because its table is not known any more.
        """
        try:
            return self._headers(block)
        except IndexError:
            raise MalformedHeaders("a block that ends within a header") from None
        except huffman.MalformedHuffman as error:
            raise MalformedHeaders(f"a text that is no Huffman code: {error}") from error

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
                    raise MalformedHeaders("a new size of the table behind a header")
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
            raise MalformedHeaders("a header by the number 0")
        if index <= len(_STATIC):
            return _STATIC[index - 1]
        if index - len(_STATIC) > len(self._added):
            raise MalformedHeaders(f"a header by the number {index}, which there is not")
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
    """A number in the low bits of a byte and, if it is larger, in those after it (section 5.1)."""
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
            raise MalformedHeaders("a number that is too large")
        if not byte & 0x80:
            return number, place


def _string(block: bytes, place: int) -> tuple[bytes, int]:
    """A text (section 5.2), which may be `Coded`."""
    coded = block[place] & _HUFFMAN
    length, place = _number(block, place, _HUFFMAN - 1)
    end = place + length
    if end > len(block):
        raise MalformedHeaders("a block that ends within a text")
    text = block[place:end]
    return (Coded(text) if coded else text), end
