"""The manifest of a request: any bytes are refused, or are the table of one context.

Input that begins as a manifest is one. Other input is the number of rows in a byte, their digests,
and the table before its compression, because changed bytes are seldom compressed ones.
"""

from function_builder.context.digests import content_digests
from function_builder.contract.archive import open_archive
from function_builder.contract.context import read_context
from function_builder.contract.manifest import pack_manifest, read_manifest
from function_builder.contract.tar import Kind, Member
from fuzz.refusals import unless_refused
from tests.support.archives import Bytes
from tests.support.manifests import manifest_tar, raw_manifest

MAX_ENTRIES = 100
_CONTENTS = (b"FROM scratch\n", b"content\n")


def run(data: bytes) -> None:
    """Read `data` as a manifest, beside two contents that it may name."""
    count, rest = int.from_bytes(data[:1]) % MAX_ENTRIES, data[1:]
    if not data.startswith(b"FBM2"):
        data = raw_manifest(count, rest[: 32 * count], rest[32 * count :])
    unless_refused(lambda: _check(data), 400, 409, 413)


def _check(data: bytes) -> None:
    member = Member("manifest", Kind.FILE, 0, len(data), 0, "", 0)
    rows = read_manifest(Bytes(data), member, max_entries=MAX_ENTRIES)
    again = pack_manifest(rows)
    member = member._replace(size=len(again))
    assert read_manifest(Bytes(again), member, max_entries=MAX_ENTRIES) == rows
    archive = open_archive(Bytes(manifest_tar(data, {}, _CONTENTS)), max_entries=MAX_ENTRIES)
    context = read_context(archive)
    digests = content_digests(archive.reader, context.entries, archive.claims)
    for entry, digest in zip(context.entries, digests, strict=True):
        assert not {"", ".", ".."} & {*entry.path.split("/")}
        if entry.offset < 0:
            assert digest[:32] == rows[-1 - entry.offset].digest
        elif entry.offset:
            assert archive.reader.read(entry.offset, entry.size) in _CONTENTS
