import stat
import tracemalloc
import zlib
from struct import pack

import pytest

from function_builder.context.digests import content_digests
from function_builder.context.tree import BuildContext
from function_builder.contract.archive import Archive, open_archive
from function_builder.contract.context import Context, read_context
from function_builder.contract.errors import Refusal
from function_builder.contract.manifest import (
    MANIFEST_NAME,
    PART_BYTES,
    AbsentContent,
    MissingContent,
    Row,
    pack_manifest,
    read_manifest,
)
from function_builder.contract.tar import Kind, Member
from tests.support.archives import Bytes
from tests.support.manifests import digest_of, file_row, manifest_tar, raw_manifest
from tests.support.requests import make_tar

DOCKERFILE = b"FROM scratch\nCOPY . /\n"
CONFIG = {"image": "r/f:1"}
FILES = {"Dockerfile": DOCKERFILE, "a/b": b"one", "a/c": b"one", "empty": b"", "é": b"x" * 600_000}
ROWS = [file_row(path, content) for path, content in FILES.items()]


def opened(body: bytes, *, max_entries: int = 10, max_bytes: int = 1 << 30) -> Archive:
    return open_archive(Bytes(body), max_entries=max_entries, max_bytes=max_bytes)


def read(body: bytes) -> tuple[Archive, Context, list[bytes]]:
    archive = opened(body)
    context = read_context(archive)
    return archive, context, content_digests(archive.reader, context.entries, archive.claims)


def test_a_manifest_with_all_contents_is_the_archive_that_it_stands_for():
    _, context, digests = read(manifest_tar(ROWS, CONFIG, FILES.values()))
    _, plain, same = read(make_tar(FILES, CONFIG, mtime=0))
    assert digests == same
    unplaced = [[each._replace(offset=0) for each in one.entries] for one in (context, plain)]
    assert unplaced[0] == unplaced[1]


def test_contents_that_were_not_sent_are_claims_which_cannot_be_read():
    large = b"y" * (PART_BYTES + 1)
    rows = [file_row("Dockerfile", DOCKERFILE), file_row("large", large)]
    archive, context, digests = read(manifest_tar(rows, CONFIG, [DOCKERFILE]))
    entry = context.entries[1]
    assert entry.offset == -2
    tree = BuildContext(archive.reader, context.entries, [0, 0])
    for offset in (0, 100):
        with pytest.raises(AbsentContent):
            tree.read(tree.entries()[1], offset, 1)
    _, _, same = read(make_tar({"Dockerfile": DOCKERFILE, "large": large}, CONFIG))
    assert digests == same


def test_links_and_folders_need_no_content():
    rows = [
        file_row("Dockerfile", DOCKERFILE),
        Row("context/d", stat.S_IFDIR | 0o700, 0, 1),
        Row("context/d/s", stat.S_IFLNK | 0o777, 0, 2, "../../x"),
        Row("context/h", 0o644, 0, 3, "context/Dockerfile"),
    ]
    _, context, _ = read(manifest_tar(rows, CONFIG, [DOCKERFILE]))
    found = {entry.path: entry for entry in context.entries}
    assert found["d"].mode == stat.S_IFDIR | 0o700
    assert found["d/s"].target == "../../x"
    assert found["h"].link_group == found["Dockerfile"].link_group == 1


def test_what_buildkit_always_reads_must_be_there():
    rows = [*ROWS, file_row(".dockerignore", b"x"), file_row("Dockerfile.dockerignore", b"y")]
    with pytest.raises(MissingContent) as raised:
        read(manifest_tar(rows, CONFIG))
    assert raised.value.ranges == [[0, 1], [5, 2]]
    assert raised.value.status == 409


@pytest.mark.parametrize(
    ("rows", "ranges"),
    [([5], [[5, 1]]), ([3, 1, 2, 2], [[1, 3]]), ([0, 2, 3, 9], [[0, 1], [2, 2], [9, 1]])],
)
def test_rows_are_named_in_ranges(rows, ranges):
    assert MissingContent(rows).ranges == ranges


def test_of_many_ranges_the_nearest_are_joined():
    rows = [*range(0, 3000, 2), *range(10_000, 20_000, 9)]
    ranges = MissingContent(rows).ranges
    assert len(ranges) <= 1000
    named = {row for first, number in ranges for row in range(first, first + number)}
    assert named.issuperset(rows)
    assert not named & set(range(3000, 10_000))


ZEROS = bytes(32)
LINK = stat.S_IFLNK | 0o777
GOOD = pack_manifest(ROWS)
DIGESTS = GOOD[12 : 12 + 32 * len(ROWS)]
TABLE = zlib.decompress(GOOD[12 + len(DIGESTS) :])


@pytest.mark.parametrize(
    ("manifest", "status", "words"),
    [
        pytest.param(b"", 400, "not the table", id="empty"),
        pytest.param(b"FBM1" + GOOD[4:], 400, "not the table", id="another version"),
        pytest.param(raw_manifest(0, b"", b"x"), 400, "not the table", id="no rows"),
        pytest.param(raw_manifest(9, DIGESTS, TABLE[:150]), 400, "cut short", id="fewer rows"),
        pytest.param(raw_manifest(2**32 - 1, b"", b""), 413, "10 entries", id="four billion rows"),
        pytest.param(GOOD[:100], 400, "cut short", id="cut in the digests"),
        pytest.param(GOOD[:-1], 400, "the size that it names", id="cut in the table"),
        pytest.param(GOOD + b"x", 400, "the size that it names", id="a byte too many"),
        pytest.param(GOOD + bytes(999), 400, "follows its table", id="many bytes too many"),
        pytest.param(GOOD[:180] + b"x" * 90, 400, "zlib", id="another compression"),
        pytest.param(
            raw_manifest(5, DIGESTS, TABLE + b"x\0", size=len(TABLE)),
            *(400, "the size that it names"),
            id="more than it names",
        ),
        pytest.param(
            raw_manifest(5, DIGESTS, TABLE, size=len(TABLE) + 1),
            *(400, "the size that it names"),
            id="less than it names",
        ),
        pytest.param(
            raw_manifest(5, DIGESTS, TABLE[:-1]),
            *(400, "one path for each row"),
            id="cut in the last name",
        ),
        pytest.param(
            raw_manifest(5, DIGESTS, TABLE + b"x\0"),
            *(400, "one path for each row"),
            id="a name too many",
        ),
        pytest.param(
            raw_manifest(5, DIGESTS, TABLE.replace(b"a/b", b"a\xffb")),
            *(400, "not UTF-8"),
            id="not UTF-8",
        ),
        pytest.param([ROWS[0], ROWS[0]], 400, "is there twice", id="twice"),
        pytest.param([file_row("../../x", b"")], 400, "leave the archive", id="climbs out"),
        pytest.param([file_row("x/../y", b"")], 400, "leave the archive", id="climbs within"),
        pytest.param([Row("/etc/x", LINK, 0, 0, "y")], 400, "leave the archive", id="absolute"),
        pytest.param(
            [*ROWS, Row("context/h", 0o644, 0, 0, "../../x")], 400, "leave", id="hard link out"
        ),
        pytest.param(
            [*ROWS, Row("context/h", 0o644, 0, 0, "context/x")], 400, "not in the", id="no target"
        ),
        pytest.param(
            [*ROWS, Row("context/l", LINK, 0, 0, "/etc"), file_row("l/x", b"")],
            *(400, "not a folder"),
            id="below a link",
        ),
        pytest.param([Row("context/d", stat.S_IFIFO, 0, 0)], 400, "no kind", id="a fifo"),
        pytest.param([Row("context/d", 1 << 31, 0, 0)], 400, "no kind", id="unknown bits"),
        pytest.param([Row("context/d", stat.S_IFDIR, 1, 0)], 400, "not a file", id="sized folder"),
        pytest.param([ROWS[0]._replace(size=9)], 400, "has 22", id="another size"),
        pytest.param(
            [*ROWS, Row("context/x", stat.S_IFREG, 1 << 40, 0)], 413, "larger than", id="a terabyte"
        ),
        pytest.param([file_row(f"{n}", b"") for n in range(11)], 413, "10 entries", id="eleven"),
        pytest.param([Row("c", stat.S_IFDIR, 0, 0)], 400, "no context/", id="no context"),
    ],
)
def test_manifests_that_are_refused(manifest, status, words):
    with pytest.raises(Refusal, match=words) as raised:
        read(manifest_tar(manifest, CONFIG, FILES.values()))
    assert raised.value.status == status


@pytest.mark.parametrize(("count", "names"), [(1, (1 << 20) + 1025), (100_000, (64 << 20) + 1)])
def test_names_without_end_are_refused_before_they_are_read(count, names):
    head = pack(">4sII", b"FBM2", count, count * 20 + names)
    member = Member(MANIFEST_NAME, Kind.FILE, 0, len(head) + count * 32 + 1, 0, "", 0)
    with pytest.raises(Refusal, match="too long in total"):
        read_manifest(Bytes(head), member, max_entries=100_000)


def test_a_table_that_unfolds_to_more_than_it_names_takes_no_memory():
    bomb = raw_manifest(1, bytes(32), bytes(64 << 20), size=30)
    member = Member(MANIFEST_NAME, Kind.FILE, 0, len(bomb), 0, "", 0)
    short = Member(MANIFEST_NAME, Kind.FILE, 0, 100, 0, "", 0)
    for each, words in ((member, "follows its table"), (short, "the size that it names")):
        tracemalloc.start()
        with pytest.raises(Refusal, match=words):
            read_manifest(Bytes(bomb), each, max_entries=10)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()


def test_a_content_under_another_digest_is_refused():
    body = manifest_tar(ROWS, CONFIG, FILES.values())
    lie = body.replace(b"x" * 512, b"z" * 512)
    with pytest.raises(Refusal, match="does not have the digest"):
        read(lie)


def test_one_content_of_many_files_is_read_once():
    rows = [file_row("Dockerfile", DOCKERFILE), *(file_row(str(n), b"same") for n in range(8))]
    reader = Bytes(manifest_tar(rows, CONFIG, [DOCKERFILE, b"same"]))
    archive = open_archive(reader, max_entries=10)
    context = read_context(archive)
    digests = content_digests(archive.reader, context.entries, archive.claims)
    assert digests.count(digest_of(b"same")) == 8
    assert len({entry.offset for entry in context.entries}) == 2


def test_a_manifest_and_a_context_are_refused():
    folder = make_tar({"Dockerfile": DOCKERFILE}, None)[:1024]
    with pytest.raises(Refusal, match="send one of them"):
        read(folder + manifest_tar(ROWS, CONFIG))
