"""Sparse entries: what real tars write is read with its holes, and no map that lies is believed."""

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from function_builder.contract.errors import Refusal
from function_builder.contract.expanded import Expanded
from function_builder.contract.tar import index
from function_builder.engine import find_tool
from tests.support.archives import END, Bytes, extended, header, octal, padded, record
from tests.support.sparse import Pieces, entry

LIMIT = 1 << 24
FORMS = ("old", "0.0", "0.1", "1.0")


def contents(body: bytes, limit: int = LIMIT) -> dict[str, bytes]:
    """All files of an archive, sparse ones expanded."""
    expanded = Expanded(Bytes(body), limit)
    places = [
        (
            member.name,
            member.offset if member.sparse is None else expanded.add(member.sparse),
            member.size,
        )
        for member in index(Bytes(body), max_entries=1000)
    ]
    return {name: expanded.reader.read(offset, size) for name, offset, size in places}


def refused(body: bytes, limit: int = LIMIT) -> Refusal:
    with pytest.raises(Refusal) as caught:
        contents(body, limit)
    return caught.value


def expected(pieces: Pieces, size: int, data: bytes) -> bytes:
    """The file of a map that is right."""
    content = bytearray(size)
    for offset, length in pieces:
        content[offset : offset + length], data = data[:length], data[length:]
    return bytes(content)


def go_reads(body: bytes, folder: Path) -> dict[str, str] | None:
    """The digests that Go's archive/tar finds, by name; None where it finds the archive wrong."""
    (folder / "tar").write_bytes(body)
    done = subprocess.run(
        [find_tool("gotar"), "list", folder / "tar"], capture_output=True, check=False
    )
    found = map(json.loads, done.stdout.splitlines())
    return None if done.returncode else {each["Name"]: each["SHA256"] for each in found}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made: Path = tmp_path_factory.mktemp("sparse")
    return made


@pytest.mark.parametrize("pieces", [0, 1, 3, 4, 5, 26, 60])
@pytest.mark.parametrize(
    "command",
    [
        ["tar", "--format=gnu", "-S"],
        ["tar", "--format=pax", "-S", "--sparse-version=0.0"],
        ["tar", "--format=pax", "-S", "--sparse-version=0.1"],
        ["tar", "--format=pax", "-S", "--sparse-version=1.0"],
        ["bsdtar", "--format=pax"],
        ["bsdtar", "--format=gnutar"],
    ],
    ids=" ".join,
)
def test_what_real_tars_write_is_read_with_its_holes(tmp_path: Path, command, pieces: int):
    with (tmp_path / "f").open("wb") as file:
        for number in range(pieces):
            file.seek(number << 16)
            file.write(b"%d" % number * 700)
        file.truncate((pieces << 16) + 5)
    command = [*command, "-cf", "-", "-C", str(tmp_path), "f"]
    body = subprocess.run(command, check=True, capture_output=True).stdout
    if "0.0" in command[-6] and pieces > 26:
        assert "records" in refused(body).reason
    else:
        assert contents(body) == {"f": (tmp_path / "f").read_bytes()}


@st.composite
def files(draw) -> tuple[str, Pieces, int, bytes]:
    """A form, a map that is right, the file's size and its data."""
    form = draw(st.sampled_from(FORMS))
    # Go reads versions 0.0 and 0.1 without a piece as if they were not sparse; we refuse these.
    fewest = 1 if form.startswith("0") else 0
    gaps = draw(st.lists(st.integers(0, 3000), min_size=fewest, max_size=40))
    lengths = [draw(st.sampled_from((0, 1, 511, 512, 513))) for _ in gaps]
    pieces, end = [], 0
    for gap, length in zip(gaps, lengths, strict=True):
        pieces.append((end + gap, length))
        end += gap + length
    size = end + draw(st.integers(0, 2000))
    return form, pieces, size, draw(st.randoms(use_true_random=False)).randbytes(sum(lengths))


@given(st.lists(files(), max_size=5))
@settings(max_examples=60, deadline=None)
def test_maps_are_read_as_go_and_python_read_them(folder, made):
    names = [b"f%d" % number for number in range(len(made))]
    entries = [
        entry(form, pieces, size, data, name)
        for (form, pieces, size, data), name in zip(made, names, strict=True)
    ]
    body = b"".join(entries) + END
    found = contents(body)
    for (_, pieces, size, data), name in zip(made, names, strict=True):
        assert found[name.decode()] == expected(pieces, size, data)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}
    assert go_reads(body, folder) == digests
    # Python's tarfile forgets the name of version 0.0 and 0.1, and knows no empty map.
    if all(form in ("old", "1.0") and pieces for form, pieces, _, _ in made):
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            for info in archive:
                content = archive.extractfile(info)
                assert content is not None
                assert content.read() == found[info.name]


@given(files(), st.data())
@settings(max_examples=100, deadline=None)
def test_a_map_that_was_changed_is_read_as_go_reads_it_or_refused(folder, made, data):
    form, pieces, size, stored = made
    numbers = [number for piece in pieces for number in piece] + [size]
    place = data.draw(st.integers(0, len(numbers) - 1))
    numbers[place] = max(
        0, numbers[place] + data.draw(st.sampled_from((-513, -1, 1, 512, 1 << 40)))
    )
    *numbers, size = numbers
    pieces = list(zip(numbers[::2], numbers[1::2], strict=True))
    body = entry(form, pieces, size, stored) + END
    try:
        found = contents(body)
    except Refusal as refusal:
        assert refusal.status in (400, 413)
        return
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}
    assert go_reads(body, folder) == digests


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("pieces", "size"),
    [
        ([(0, 2)], 5),
        ([(0, 4)], 5),
        ([(3, 3)], 5),
        ([(0, 2), (1, 1)], 5),
        ([(2, 1), (0, 2)], 5),
        ([(0, 3)], 2),
        ([], 5),
    ],
    ids=["less", "more", "beyond the end", "overlapping", "out of order", "larger", "none"],
)
def test_a_map_that_does_not_fit_is_refused(form: str, pieces: Pieces, size: int):
    refusal = refused(entry(form, pieces, size, b"abc") + END)
    assert refusal.status == 400
    assert '"f"' in refusal.reason


@pytest.mark.parametrize("key", [b"SCHILY.realsize", b"SUN.holesdata"])
def test_other_tars_own_forms_are_refused(key: bytes):
    assert "few tar programs" in refused(extended(record(key, b"1")) + header() + END).reason


@pytest.mark.parametrize(
    "records",
    [
        record(b"GNU.sparse.major", b"2") + record(b"GNU.sparse.realsize", b"1"),
        record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0"),
        record(b"GNU.sparse.numbytes", b"1"),
        record(b"GNU.sparse.offset", b"1,1"),
        record(b"GNU.sparse.map", b"1") + record(b"GNU.sparse.size", b"1"),
        record(b"GNU.sparse.map", b"a,b") + record(b"GNU.sparse.size", b"1"),
    ],
)
def test_maps_that_are_none_are_refused(records: bytes):
    assert refused(extended(records) + header() + END).status == 400


def test_a_map_in_the_data_that_is_none_is_refused():
    records = record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0")
    records += record(b"GNU.sparse.realsize", b"5")
    for data in (b"", b"1", b"x\n", b"1\n0\n", b"2\n0\n0\n0\n", b"9" * 600, b"99999999\n"):
        body = extended(records) + header(size=octal(len(data))) + padded(data) + END
        assert refused(body).status in (400, 413)


def test_only_files_are_sparse():
    body = extended(record(b"GNU.sparse.size", b"0")) + header(flag=b"5") + END
    assert "is not a file" in refused(body).reason


def test_holes_count_against_the_limit():
    body = entry("old", [(0, 3)], 1_000_000, b"abc") + END
    assert len(contents(body, 1_000_000 + len(body))["f"]) == 1_000_000
    refusal = refused(body, 1_000_000)
    assert refusal.status == 413
    assert "holes count" in refusal.reason


def test_pieces_are_counted():
    pieces = [(2 * number, 1) for number in range(60_000)]
    one = entry("1.0", pieces, 1 << 20, b"x" * 60_000)
    assert len(contents(one + END)["f"]) == 1 << 20
    refusal = refused(one + one + END)
    assert refusal.status == 413
    assert "pieces" in refusal.reason


@given(st.lists(files(), min_size=1, max_size=3), st.data())
@settings(max_examples=60, deadline=None)
def test_any_part_of_an_expanded_archive_can_be_read(made, data):
    body = b"".join(entry(*file) for file in made) + END
    expanded = Expanded(Bytes(body), LIMIT)
    for member in index(Bytes(body), max_entries=100):
        assert member.sparse is not None
        expanded.add(member.sparse)
    flat = body + b"".join(expected(pieces, size, stored) for _, pieces, size, stored in made)
    assert expanded.size == len(flat)
    for _ in range(5):
        offset = data.draw(st.integers(0, len(flat) + 10))
        size = data.draw(st.integers(0, len(flat) + 10))
        assert expanded.read(offset, size) == flat[offset : offset + size]


def test_an_archive_without_holes_is_read_directly():
    reader = Bytes(header() + END)
    assert Expanded(reader, LIMIT).reader is reader
