import bz2
import contextlib
import gzip
import io
import json
import lzma
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from function_builder.contract.errors import Refusal
from function_builder.contract.tar import Kind, Member, index
from function_builder.engine import find_tool
from tests.support.archives import (
    END,
    Bytes,
    extended,
    header,
    octal,
    padded,
    record,
    with_checksum,
)

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
SECOND = 10**9


def members(data: bytes, max_entries: int = 1000) -> list[Member]:
    return list(index(Bytes(data), max_entries=max_entries))


def refused(data: bytes, max_entries: int = 1000) -> Refusal:
    with pytest.raises(Refusal) as caught:
        members(data, max_entries)
    return caught.value


def test_an_empty_archive_has_no_entries():
    assert members(END) == []


def test_an_entry_is_told_as_its_header_has_it():
    data = header(b"a/b", b"00000000005\0", mode=b"0104755\0", mtime=b"00000000017\0")
    assert members(data + padded(b"hello") + END) == [
        Member("a/b", Kind.FILE, 0o4755, 5, 15 * SECOND, "", 512)
    ]


NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=300
).filter(lambda name: not name.endswith("/"))


@st.composite
def infos(draw, archive_format):
    name = draw(NAMES)
    if archive_format == tarfile.USTAR_FORMAT:
        name = name.encode("ascii", "ignore").decode()[:100]
        assume(name and not name.endswith("/"))
    info = tarfile.TarInfo(name)
    info.type = draw(
        st.sampled_from(
            (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE)
        )
    )
    info.mode = draw(st.integers(0, 0o7777))
    info.mtime = draw(st.integers(0, 2**33 - 1))
    if archive_format == tarfile.GNU_FORMAT:
        info.mtime = draw(st.integers(-(2**33), 2**33))
    if archive_format == tarfile.PAX_FORMAT:
        info.mtime += draw(st.sampled_from((0, 0.25, 0.5)))
    if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info.linkname = name[::-1]
    data = b""
    if info.type == tarfile.REGTYPE:
        data = draw(st.binary(max_size=1100))
        info.size = len(data)
    return info, data


@pytest.mark.parametrize("archive_format", FORMATS)
@given(data=st.data())
def test_it_reads_what_the_standard_librarys_tarfile_reads(archive_format, data):
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w", format=archive_format) as archive:
        for info, content in data.draw(st.lists(infos(archive_format), max_size=6)):
            archive.addfile(info, io.BytesIO(content))
    with tarfile.open(fileobj=io.BytesIO(body.getvalue())) as archive:
        expected = [
            (
                info.name,
                info.mode,
                info.size,
                int(info.mtime) * SECOND + int(info.mtime % 1 * SECOND),
                info.linkname,
                info.offset_data,
                (info.isreg(), info.isdir(), info.issym(), info.islnk(), info.isfifo()),
            )
            for info in archive.getmembers()
        ]
    kinds = (Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.HARDLINK, Kind.FIFO)
    found = [
        (
            member.name.rstrip("/"),
            member.mode,
            member.size,
            member.mtime,
            member.target,
            member.offset,
            tuple(member.kind is kind for kind in kinds),
        )
        for member in members(body.getvalue())
    ]
    assert found == expected


@pytest.mark.parametrize(
    "command",
    [
        ["tar", "--format=gnu"],
        ["tar", "--format=ustar"],
        ["tar", "--format=pax"],
        ["tar", "--format=v7"],
        ["bsdtar", "--format=pax"],
        ["bsdtar", "--format=gnutar"],
        ["bsdtar", "--format=ustar"],
    ],
    ids=" ".join,
)
def test_it_reads_what_real_programs_write(tmp_path: Path, command: list[str]):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    long = command[1] != "--format=v7"
    folder = tmp_path / "tree" / "folder"
    folder.mkdir(parents=True)
    file = folder / ("n" * 120 if long and "ustar" not in command[1] else "short")
    file.write_bytes(b"x" * 700)
    file.chmod(0o750)
    (folder / "link").symlink_to(file.name)
    (folder / "zhard").hardlink_to(file)
    if long:
        (folder / "naïve").write_bytes(b"")
    body = subprocess.run(
        [*command, "-cf", "-", "-C", str(tmp_path), "tree"],
        check=True,
        capture_output=True,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    ).stdout
    found = {member.name.rstrip("/"): member for member in members(body)}
    assert set(found) == {
        "tree",
        *(f"tree/{path.relative_to(tmp_path / 'tree')}" for path in folder.parent.rglob("*")),
    }
    assert found["tree"].kind is found["tree/folder"].kind is Kind.DIRECTORY
    assert found["tree/folder/link"].kind is Kind.SYMLINK
    assert found["tree/folder/link"].target == file.name
    names = {f"tree/folder/{file.name}", "tree/folder/zhard"}
    (real,) = (found[name] for name in names if found[name].kind is Kind.FILE)
    (hard,) = (found[name] for name in names if found[name].kind is Kind.HARDLINK)
    assert (real.mode, real.size, hard.target) == (0o750, 700, real.name)
    assert real.mtime // SECOND == file.stat().st_mtime_ns // SECOND


# Numbers


def test_base_256_numbers():
    size = b"\x80" + (3).to_bytes(11, "big")
    mtime = (-5).to_bytes(12, "big", signed=True)
    (member,) = members(header(size=size, mtime=mtime) + padded(b"abc") + END)
    assert (member.size, member.mtime) == (3, -5 * SECOND)


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (b"\xff" * 12, "size"),
        (b"0000000000x\0", "no valid size"),
        (b"0o000000000\0", "no valid size"),
        (b"-0000000001\0", "no valid size"),
        (b"0_000000001\0", "no valid size"),
        (b"00000000009\0", "no valid size"),
    ],
)
def test_a_size_that_is_no_size_is_refused(field: bytes, reason: str):
    refusal = refused(header(b"odd", field) + END)
    assert refusal.status == 400
    assert '"odd"' in refusal.reason
    assert reason in refusal.reason


def test_checksums_of_signed_bytes_are_taken_as_old_tars_made_them():
    (member,) = members(header("é".encode(), signed=True) + END)
    assert member.name == "é"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"1.5", 1_500_000_000),
        (b"-1.5", -1_500_000_000),
        (b"1700000000.123456789123", 1_700_000_000_123_456_789),
        (b"2.", 2_000_000_000),
        (b"99999999999999999999", 2**63 - 1),
        (b"-99999999999999999999", -(2**63)),
    ],
)
def test_pax_times(text: bytes, expected: int):
    (member,) = members(extended(record(b"mtime", text)) + header() + END)
    assert member.mtime == expected


@pytest.mark.parametrize("text", [b"nan", b"1e5", b"1.2.3", b" 1", b"9" * 5000, b"+1", b"0x1"])
def test_pax_times_that_are_none_are_refused(text: bytes):
    assert "modification time" in refused(extended(record(b"mtime", text)) + header() + END).reason


# Extended headers


def test_a_pax_header_counts_for_one_entry_only():
    data = extended(record(b"path", b"long") + record(b"size", b"3")) + header() + padded(b"abc")
    first, second = members(data + header(b"b") + END)
    assert (first.name, first.size) == ("long", 3)
    assert (second.name, second.size) == ("b", 0)


def test_the_later_of_equal_records_counts_and_an_empty_one_counts_nothing():
    records = record(b"path", b"x") + record(b"path", b"y") + record(b"mtime", b"")
    (member,) = members(extended(records) + header(mtime=b"00000000007\0") + END)
    assert (member.name, member.mtime) == ("y", 7 * SECOND)


def test_a_global_header_gives_the_entries_after_it_their_time_only():
    shared = extended(record(b"mtime", b"3") + record(b"comment", b"by git"), b"g")
    data = header(b"a") + shared + header(b"b") + extended(record(b"mtime", b"4")) + header(b"c")
    assert [member.mtime for member in members(data + END)] == [0, 3 * SECOND, 4 * SECOND]


@pytest.mark.parametrize("key", [b"path", b"linkpath", b"size", b"GNU.sparse.major"])
def test_a_global_header_that_names_every_entry_alike_is_refused(key: bytes):
    assert refused(extended(record(key, b"1"), b"g") + header() + END).status == 400


@pytest.mark.parametrize(
    "data",
    [
        b"5 a=\n5",
        b"6 a=b\n ",
        b"9 a=b\n",
        b"0 a=b\n",
        b"-6 a=b\n",
        b"6 ab\nx",
        b"a=b\n",
        b"5 =b\n",
        b"99999999999999999999 a=b\n",
        b"\0" * 10,
        b"".join(record(b"k%d" % n, b"") for n in range(100)),
        record(b"k", b"") * 100,
        record(b"path", b"a\0b"),
        record(b"linkpath", b"a\0b"),
    ],
)
def test_pax_records_that_lie_about_themselves_are_refused(data: bytes):
    assert refused(extended(data) + header() + END).status == 400


@pytest.mark.parametrize("value", [b"-1", b"1.5", b"9" * 20, b"9" * 5000, b"\xb2"])
def test_pax_sizes_that_are_no_size_are_refused(value: bytes):
    assert "size" in refused(extended(record(b"size", value)) + header() + END).reason


@pytest.mark.parametrize(
    "data",
    [
        extended(b"x", b"L") + extended(b"y", b"L") + header() + END,
        extended(record(b"path", b"x")) + extended(record(b"path", b"y")) + header() + END,
        extended(record(b"path", b"x")) + END,
        extended(record(b"path", b"x")),
        extended(b"x", b"K") + END,
    ],
    ids=[
        "two long names",
        "two pax headers",
        "pax for nothing",
        "pax at the end",
        "long link for nothing",
    ],
)
def test_an_entry_described_twice_or_not_following_is_refused(data: bytes):
    assert refused(data).status == 400


NAME = ("context/" + "Übersetzungen-" * 9).encode()


@pytest.mark.parametrize(("flag", "key"), [(b"L", b"path"), (b"K", b"linkpath")])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_name_that_gnus_and_paxs_header_agree_on_is_read(flag, key, backwards):
    # Java's commons-compress writes both for a long name that is not ASCII.
    headers = [extended(NAME + b"\0", flag), extended(record(key, NAME))]
    body = (
        b"".join(reversed(headers) if backwards else headers) + header(NAME[:99], flag=b"2") + END
    )
    (member,) = members(body)
    assert NAME.decode() == (member.name if flag == b"L" else member.target)


@pytest.mark.parametrize(("flag", "key"), [(b"L", b"path"), (b"K", b"linkpath")])
def test_names_that_gnus_and_paxs_header_disagree_on_are_told(flag, key):
    data = extended(b"one\0", flag) + extended(record(key, b"other")) + header() + END
    reason = refused(data).reason
    assert '"one"' in reason
    assert '"other"' in reason


@pytest.mark.parametrize(
    "data",
    [
        extended(b"\0", b"L"),
        extended(b"", b"K"),
        *(extended(record(key, b"")) for key in (b"path", b"linkpath", b"size")),
    ],
)
def test_an_extended_header_that_names_nothing_is_refused(data: bytes):
    assert "empty" in refused(data + header() + END).reason


@pytest.mark.parametrize("flag", [b"L", b"K"])
def test_a_long_name_that_goes_on_behind_its_end_is_refused(flag: bytes):
    size = b"%011o\0" % 3
    unended = header(b"././@LongLink", size, flag=flag) + padded(b"name")
    assert "after its end" in refused(unended + header(flag=b"2") + END).reason
    ended = header(b"././@LongLink", size, flag=flag) + padded(b"nam")
    (member,) = members(ended + header(flag=b"2") + END)
    assert "nam" in (member.name, member.target)


@pytest.mark.parametrize("flag", [b"x", b"g"])
@pytest.mark.parametrize("between", [b"", b"\0"])
def test_a_record_behind_the_end_of_its_header_is_refused(flag: bytes, between: bytes):
    """Python's tarfile reads it, if no NUL is before it."""
    time = record(b"mtime", b"1")
    behind = time + between + record(b"path", b"other")
    extension = header(size=b"%011o\0" % len(time), flag=flag) + padded(behind)
    assert "after its end" in refused(extension + header() + END).reason


@pytest.mark.parametrize("accessed", [b"14512345670\0", b"\x80" + bytes(10) + b"\1"])
def test_times_in_the_place_of_a_prefix_are_no_part_of_a_name(tmp_path: Path, accessed: bytes):
    """GNU tar writes them with --incremental, Go where an entry has an AccessTime."""
    gnu = header(prefix=accessed + b"14512345671\0", magic=b"ustar  \0") + END
    assert members(gnu)[0].name == "a"
    archive = tmp_path / "tar"
    archive.write_bytes(gnu)
    for reader in READERS:
        assert names_by(reader, archive) == ["a"], reader


def test_only_posix_archives_have_a_prefix():
    assert members(header(prefix=b"dir") + END)[0].name == "dir/a"
    for magic in (b"ustar  \0", bytes(8)):
        assert refused(header(prefix=b"dir", magic=magic) + END).status == 400
    # To Go a prefix of star's has 131 bytes, to others all that comes before a NUL.
    for prefix, read in ((b"p" * 131 + b"0" * 12, False), (b"p" * 130, True)):
        star = bytearray(header(prefix=prefix))
        star[508:] = b"tar\0"
        body = with_checksum(bytes(star)) + END
        assert members(body)[0].name == "p" * 130 + "/a" if read else refused(body).status == 400


# What follows a header


def test_the_size_of_a_directory_counts_nothing():
    first, second = members(header(b"d", octal(4096), flag=b"5") + header() + END)
    assert first.size == 0
    assert second.name == "a"


@pytest.mark.parametrize("flag", [b"1", b"2", b"3", b"4", b"6"])
def test_what_has_no_data_has_no_size(flag: bytes):
    # GNU tar, bsdtar and others skip as many bytes after some of these, and each after others.
    assert refused(header(size=octal(512), flag=flag, target=b"x") + header() + END).status == 400
    sized = extended(record(b"size", b"512"))
    assert refused(sized + header(flag=flag, target=b"x") + header() + END).status == 400
    assert refused(sized + header(flag=b"5") + header() + END).status == 400


READERS = ("gotar", "tar", "bsdtar")
SIZES = st.sampled_from(
    (
        octal(0),
        octal(512),
        b"\0" + octal(512)[1:],
        b" \0" + octal(512)[2:],
        b"1000 ".rjust(12),
        b"1000\0junk\0\0\0",
        bytes(12),
        b" " * 12,
        b"\x80".ljust(10, b"\0") + b"\2\0",
    )
)
ENTRIES = st.builds(
    lambda records, **fields: (extended(records) if records else b"") + header(**fields),
    st.sampled_from((b"", b"", record(b"path", b"c"), record(b"size", b"512"), record(b"a", b"b"))),
    name=st.sampled_from((b"a", b"a/", b"d/a")),
    size=SIZES,
    flag=st.sampled_from((b"0", b"0", b"\0", b"1", b"2", b"5", b"6", b"7", b"X")),
    target=st.sampled_from((b"", b"first")),
    magic=st.sampled_from((b"ustar\x0000", b"ustar  \0", bytes(8), b"ustar\0XY")),
    prefix=st.sampled_from((b"", b"", b"p", b"\0p", b"p" * 154)),
)


def names_by(reader: str, archive: Path) -> list[str] | None:
    """The names that a reader lists; None where it refuses the archive."""
    command = [find_tool("gotar"), "list"] if reader == "gotar" else [reader, "-tf"]
    told = subprocess.run([*command, archive], capture_output=True, check=False)
    if told.returncode:
        return None
    lines = told.stdout.decode().splitlines()
    names = [json.loads(line)["Name"] for line in lines] if reader == "gotar" else lines
    return [name.rstrip("/") for name in names]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(entry=ENTRIES)
def test_readers_see_the_same_entries_where_an_archive_is_read(tmp_path: Path, entry: bytes):
    # Behind the entry: a block that is a header, or the data of the entry, as a reader sees it.
    body = header(b"first") + entry + header(b"second") + END
    try:
        found = [member.name.rstrip("/") for member in members(body)]
    except Refusal:
        return
    archive = tmp_path / "tar"
    archive.write_bytes(body)
    for reader in READERS:
        assert names_by(reader, archive) in (None, found), reader
    with tarfile.open(archive) as opened:
        assert [name.rstrip("/") for name in opened.getnames()] == found


def test_a_trailing_slash_makes_an_old_archives_folder():
    assert members(header(b"d/", flag=b"\0") + END)[0].kind is Kind.DIRECTORY
    assert refused(header(b"d/", b"00000000001\0") + padded(b"x") + END).status == 400
    # Go and Python read a file of that name, GNU tar and bsdtar a folder.
    assert refused(header(b"d/") + END).status == 400


@pytest.mark.parametrize("flag", [b"V", b"M", b"D", b"N", b"A", b"\xff"])
def test_types_of_one_tar_alone_are_refused(flag: bytes):
    assert refused(header(flag=flag) + END).status == 400


# Whole, and nothing else


SMALL = (
    extended(record(b"path", b"context/" + b"n" * 60))
    + header(size=b"00000001000\0")
    + padded(b"x" * 512)
    + header(b"b", b"00000000003\0")
    + padded(b"abc")
)


def test_an_archive_cut_in_an_entry_is_refused_and_one_without_its_end_is_read():
    # As Go's archive/tar has it: all data of the last entry is there, with its padding or without.
    for length in range(len(SMALL) + 1):
        body = SMALL[:length]
        if length == 2048 or 2563 <= length <= 3072:
            assert len(members(body)) == (1 if length == 2048 else 2)
        else:
            refusal = refused(body)
            assert refusal.status == 400
            assert re.search("cut short|ends after an extended", refusal.reason) or length < 512


@pytest.mark.parametrize("length", [512, 1536, 2047, 2048, 2049, 2562, 2563, 2600, 3072])
def test_where_an_archive_may_end_is_as_in_go(tmp_path: Path, length: int):
    (tmp_path / "tar").write_bytes(SMALL[:length])
    go = subprocess.run(
        [find_tool("gotar"), "list", tmp_path / "tar"], capture_output=True, check=False
    )
    if go.returncode:
        assert refused(SMALL[:length]).status == 400
    else:
        assert len(members(SMALL[:length])) == len(go.stdout.splitlines())


@pytest.mark.parametrize("zeros", [512, 513, 1024, 10240])
def test_one_zero_block_ends_the_archive_and_zeros_may_follow(zeros: int):
    assert len(members(SMALL + bytes(zeros))) == 2


@pytest.mark.parametrize("after", [b"x", bytes(511) + b"x", bytes(1 << 19) + b"x", header()])
def test_anything_else_after_the_end_is_refused(after: bytes):
    refusal = refused(SMALL + bytes(512) + after)
    assert refusal.status == 400
    assert "after its end" in refusal.reason


@given(st.lists(st.tuples(st.integers(0, len(SMALL) + 1023), st.binary(max_size=8)), max_size=4))
def test_a_damaged_archive_is_refused_or_still_consistent(changes):
    data = bytearray(SMALL + END)
    for at, new in changes:
        data[at : at + len(new)] = new
    reader = Bytes(bytes(data))
    end = 0
    # Nothing but a refusal may come out of it.
    with contextlib.suppress(Refusal):
        for member in index(reader, max_entries=3):
            assert end + 512 <= member.offset
            end = member.offset + member.size
            assert end <= reader.size


@given(st.binary(max_size=2000))
def test_anything_at_all_is_refused_or_indexed(data: bytes):
    with contextlib.suppress(Refusal):
        members(data)


def test_a_bad_checksum_is_refused_and_placed():
    damaged = bytearray(SMALL + END)
    damaged[SMALL.index(b"b\0\0\0")] = ord("c")
    assert f"byte {SMALL.index(b'b' + bytes(9))}" in refused(bytes(damaged)).reason


@pytest.mark.parametrize("claim", [10 << 30, 1 << 80])
def test_a_claimed_size_is_never_believed(claim: int):
    size = b"\x80" + claim.to_bytes(11, "big")
    for data in (
        header(b"huge", size) + bytes(4096),
        header(b"huge", size, flag=b"x") + bytes(4096),
        extended(record(b"size", b"%d" % claim)) + header(b"huge") + bytes(4096),
    ):
        reader = Bytes(data)
        with pytest.raises(Refusal):
            list(index(reader, max_entries=10))
        assert reader.largest <= 1 << 20


def test_the_number_of_entries_is_bounded_those_for_all_included():
    assert len(members(header() * 3 + END, max_entries=3)) == 3
    assert refused(header() * 4 + END, max_entries=3).status == 413
    assert refused(extended(b"", b"g") * 4 + END, max_entries=3).status == 413


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("gzip", gzip.compress(SMALL)),
        ("xz", lzma.compress(SMALL)),
        ("bzip2", bz2.compress(SMALL)),
        ("zstd", b"\x28\xb5\x2f\xfd" + bytes(20)),
        ("gzip", gzip.compress(bytes(range(256)) * 400)),
        # Mostly zeros, as compressed zeros are, where a header has its checksum; as signed bytes
        # these and the checksum's eight spaces sum up to nothing.
        ("gzip", b"\x1f\x8b\x80\xd6".ljust(1024, b"\0")),
    ],
)
def test_compressed_bodies_are_refused_by_their_content(name: str, body: bytes):
    refusal = refused(body)
    assert refusal.status == 415
    assert name in refusal.reason


@pytest.mark.parametrize("body", [b"", b"{}", b"x" * 5000, b"PK\x03\x04" + bytes(600)])
def test_what_is_no_tar_is_refused(body: bytes):
    refusal = refused(body)
    assert refusal.status == 400
    assert "not a tar" in refusal.reason


def test_names_in_refusals_are_escaped_and_cut():
    reason = refused(header(b"evil\n\x1b[31m\xff\xe2\x80\xae", flag=b"A") + END).reason
    assert reason.isprintable()
    long = refused(extended(record(b"path", b"n" * 100_000)) + header(flag=b"A") + END).reason
    assert len(long) < 400
    escapes = refused(header(b"\xff" * 100, flag=b"A") + END).reason
    assert len(escapes) < 400
