import contextlib

import hpack
import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from aiobuildkit.http2 import huffman
from aiobuildkit.http2.compression import (
    STEP_BYTES,
    Coded,
    Decoder,
    MalformedHeaders,
    plain,
    plain_steps,
)

MANY = 1 << 30

NAMES = st.sampled_from((b"followpaths", b":path", b"grpc-status", b"x")) | st.binary(max_size=20)
VALUES = st.sampled_from((b"", b"POST", b"1", b"a/b")) | st.binary(max_size=200)
BLOCKS = st.lists(
    st.tuples(
        st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=8),
        st.booleans(),
        st.sampled_from((None, 0, 100, 4096)),
    ),
    max_size=6,
)


def huffman_coded(text: bytes) -> bytes:
    return HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(text)


@given(BLOCKS)
def test_it_reads_what_hpack_writes(blocks):
    encoder, decoder = hpack.Encoder(), Decoder(MANY)
    for headers, coded, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode(headers, huffman=coded)
        assert decoder.decode(block) == [(name, value) for name, value, _ in headers]


def outcome(decode, block):
    try:
        return [(bytes(name), bytes(value)) for name, value in decode(block)]
    except (MalformedHeaders, hpack.HPACKError):
        return None


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes_are_read_as_hpack_reads_them_or_refused(blocks):
    ours, theirs = Decoder(MANY), hpack.Decoder(MANY)
    for block in blocks:
        read = outcome(ours.decode, block)
        expected = outcome(lambda block: theirs.decode(block, raw=True), block)
        if read is None or expected is None:
            # After the first error a connection is over. hpack takes a size of the table that
            # nobody has offered, and padding of any length.
            break
        assert read == expected


@given(st.binary(max_size=300))
def test_huffman_code_is_read_back(text: bytes):
    assert huffman.decode(huffman_coded(text)) == text


@pytest.mark.parametrize(
    "code",
    [
        b"\xff\xff\xff\xff",  # the end of a string, as a symbol
        b"\x07\xff",  # more than 7 bits of padding
        b"\x1e",  # padding that is not 1
    ],
)
def test_what_is_no_huffman_code_is_an_error(code: bytes):
    with pytest.raises(huffman.MalformedHuffman):
        huffman.decode(code)
    with pytest.raises(MalformedHeaders):
        Decoder(MANY).decode(b"\0\1a" + bytes([0x80 | len(code)]) + code)


@given(st.binary(max_size=40))
def test_any_bytes_are_huffman_code_or_an_error(code: bytes):
    with contextlib.suppress(huffman.MalformedHuffman):
        text = huffman.decode(code)
        assert huffman_coded(text) == code


@pytest.mark.parametrize("added", [False, True])
def test_a_long_value_is_left_coded_and_the_table_is_as_if_it_had_been_read(added: bool):
    encoder, decoder = hpack.Encoder(), Decoder(MANY)
    decoder.decode(encoder.encode([(b"a", b"1"), (b"b", b"2")], huffman=True))
    # A character of 30 bits, so that the value is as short as one that is left coded can be.
    value = b"\n" * 4_400
    (header,) = decoder.decode(encoder.encode([(b"long", value, not added)], huffman=True))
    assert isinstance(header[1], Coded)
    assert plain(header[1]) == value
    after = [(b"a", b"1"), (b"long", b"short"), (b"b", b"2")]
    assert decoder.decode(encoder.encode(after, huffman=True)) == after


@pytest.mark.parametrize("size", [0, 1, STEP_BYTES, 3 * STEP_BYTES])
def test_a_step_decodes_a_bounded_number_of_bytes(size: int):
    text = b"!" * size  # ten bits
    value = Coded(huffman_coded(text))
    parts = list(plain_steps(value))
    assert b"".join(parts) == plain(value) == text
    assert len(parts) == -(-len(value) // STEP_BYTES)
    assert max(map(len, parts), default=0) <= STEP_BYTES * 8 // 5  # no symbol has less than 5 bits


def test_a_long_value_that_is_no_code_is_an_error_once_it_is_read():
    value = Coded(b"\xff" * 20_000)
    with pytest.raises(MalformedHeaders):
        plain(value)
    assert plain(b"\xff" * 20_000) == b"\xff" * 20_000


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # number 0
        b"\xbe",  # a header that was never added
        b"\x7e\0",  # its name alone
        b"\x40\x05ab",  # ends within a name
        b"\x40\x01a",  # ends before the value
        b"\xff\xff\xff\xff\xff\xff\xff\x7f",  # a number without bound
        b"\x82\x20",  # a size of the table behind a header
        b"\x3f\xe2\x1f",  # a size of 4097
    ],
)
def test_what_is_no_header_block_is_an_error(block: bytes):
    with pytest.raises(MalformedHeaders):
        Decoder(MANY).decode(block)


def test_a_list_is_bounded_with_32_bytes_for_each_header():
    block = hpack.Encoder().encode([(b"ab", b"c")] * 10)
    assert len(Decoder(350).decode(block)) == 10
    with pytest.raises(MalformedHeaders, match="349"):
        Decoder(349).decode(block)
