"""Generations of content records as bytes, for other builders of one BuildKit."""

from __future__ import annotations

import json
import zlib
from typing import Final

from function_builder.context.contents import Contents
from function_builder.context.mtimes import Generation

MAX_BYTES: Final = 64 << 20
"""The most bytes of a generation before it is compressed; a larger one is not written."""

_LEVEL: Final = 1


def encode(generation: Generation) -> bytes | None:
    """A generation for other builders; None: it is too large."""
    contents = Contents.unpack(generation.packed)
    document = {
        "key": generation.shared_key,
        "settled": generation.settled.hex(),
        "present": [[p, digest.hex(), mtime] for p, (digest, mtime) in contents.present.items()],
        "past": [
            [path, [[digest.hex(), mtime] for digest, mtime in said]]
            for path, said in contents.past.items()
        ],
        "directories": contents.directory_modes,
        "newest": contents.newest,
        "modes": contents.file_modes,
    }
    data = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return zlib.compress(data, _LEVEL) if len(data) <= MAX_BYTES else None


def decode(data: bytes, era: object) -> Generation:
    """Undo `encode`.

    Args:
        data: the encoded generation.
        era: of the records that get it.

    Raises:
        ValueError: it is not one.
    """
    try:
        document = json.loads(zlib.decompressobj().decompress(data, MAX_BYTES))
        contents = Contents(
            {path: (bytes.fromhex(digest), mtime) for path, digest, mtime in document["present"]},
            {
                path: tuple((bytes.fromhex(digest), mtime) for digest, mtime in said)
                for path, said in document["past"]
            },
            document["directories"],
            document["newest"],
            document["modes"],
        )
        return Generation(
            era,
            document["key"],
            bytes.fromhex(document["settled"]),
            contents.paths,
            contents.pack(),
        )
    except (zlib.error, KeyError, TypeError) as error:
        raise ValueError("not a generation") from error
