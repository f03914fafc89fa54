"""Decode HPACK's Huffman code (RFC 7541, section 5.2 and appendix B), a byte at a time.

The decoder is a state machine. A state is a node of the code's tree. For each byte it has the
symbols that the byte completes, and the next state. Steps are computed when they are first used.
The code itself is from `hpack`, whose decoder takes a nibble at a time, and nearly twice as long.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

__all__ = ["Decoder", "MalformedHuffman", "decode"]

_EOS: Final = 256
_MAX_PADDING: Final = 7
_Node: TypeAlias = "dict[int, _Node | int]"


class MalformedHuffman(ValueError):
    """Invalid Huffman code: it contains the end symbol, or ends inside a symbol."""


class _State(dict[int, "tuple[bytes, _State]"]):
    """Steps for each byte: the completed symbols, and the next state.

    Attributes:
        node: of the code's tree.
        may_end: whether the bits of the next symbol are padding so far: at most 7 bits, all 1.
    """

    __slots__ = ("may_end", "node")

    def __init__(self, node: _Node, *, may_end: bool) -> None:
        super().__init__()
        self.node = node
        self.may_end = may_end

    def __missing__(self, byte: int) -> tuple[bytes, _State]:
        symbols = bytearray()
        node = self.node
        for shift in range(7, -1, -1):
            following = node[byte >> shift & 1]
            if isinstance(following, int):
                if following == _EOS:
                    raise MalformedHuffman("it contains the end-of-string symbol")
                symbols.append(following)
                following = _ROOT
            node = following
        step = self[byte] = bytes(symbols), _STATES[id(node)]
        return step


def _tree() -> _Node:
    root: _Node = {}
    for symbol, (code, length) in enumerate(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)):
        node = root
        for shift in range(length - 1, 0, -1):
            inner = node.setdefault(code >> shift & 1, {})
            assert isinstance(inner, dict)
            node = inner
        node[code & 1] = symbol
    return root


def _states() -> dict[int, _State]:
    """One state for each node, by the node's identity."""
    padding: set[int] = set()
    node: _Node | int = _ROOT
    for _ in range(_MAX_PADDING + 1):
        assert isinstance(node, dict)
        padding.add(id(node))
        node = node[1]
    states: dict[int, _State] = {}
    waiting = [_ROOT]
    while waiting:
        node = waiting.pop()
        states[id(node)] = _State(node, may_end=id(node) in padding)
        waiting += [each for each in node.values() if isinstance(each, dict)]
    return states


_ROOT: Final = _tree()
_STATES: Final = _states()


class Decoder:
    """Decodes one string, of which coded bytes may come in pieces."""

    def __init__(self) -> None:
        self._state = _STATES[id(_ROOT)]

    def decode(self, data: bytes) -> bytes:
        """The symbols that these bytes complete.

        Raises:
            MalformedHuffman: the code contains the end-of-string symbol.
        """
        state = self._state
        parts = []
        for byte in data:
            symbols, state = state[byte]
            parts.append(symbols)
        self._state = state
        return b"".join(parts)

    def close(self) -> None:
        """Handle the end of the string.

        Raises:
            MalformedHuffman: the code ends inside a symbol.
        """
        if not self._state.may_end:
            raise MalformedHuffman("it ends inside a symbol")


def decode(data: bytes) -> bytes:
    """The text of Huffman-coded bytes.

    Raises:
        MalformedHuffman: the code is invalid.
    """
    decoder = Decoder()
    text = decoder.decode(data)
    decoder.close()
    return text
