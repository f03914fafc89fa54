"""Generations of content records, and their bytes for other builders of one BuildKit."""

from __future__ import annotations

import json
import secrets
import zlib
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from function_builder.context.contents import Contents
from function_builder.context.fingerprint import Fingerprint

MAX_BYTES: Final = 64 << 20
"""The most bytes of a generation before it is compressed; a larger one is not written."""

_LEVEL: Final = 1


class Sent(NamedTuple):
    """The last context that was announced under a generation.

    Attributes:
        session: the ID of the session that sent it; empty: no build may name it.
        exact: its fingerprint; empty if other times were announced.
        timeless: its fingerprint without times.
    """

    session: str = ""
    exact: bytes = b""
    timeless: bytes = b""

    def is_again(self, whole: Fingerprint | None) -> bool:
        """Whether a build of the context with this fingerprint may name the session."""
        return bool(self.session) and whole is not None and self.exact == whole.exact


NOTHING_SENT: Final = Sent()


@dataclass(slots=True, eq=False)
class Generation:
    """A shared key, and all announcements under it since BuildKit's last restart.

    Attributes:
        era: of its records.
        shared_key: the key.
        settled: the result of `in_directories` for each build under it; empty if they differed.
        paths: the number of paths in it.
        packed: its `Contents`.
        sent: the last context.
        version: of the offer to other builders, while it is idle; 0: it is not offered.
        offer: what was written for the last such offer: of `written`, and its value.
    """

    era: object
    shared_key: str = field(default_factory=lambda: secrets.token_hex(16))
    settled: bytes = b""
    paths: int = 0
    packed: bytes = b""
    sent: Sent = NOTHING_SENT
    version: int = 0
    offer: tuple[object, bytes] = (None, b"")

    @property
    def written(self) -> object:
        """What an offer of it says."""
        return self.packed, self.settled, self.sent


def encode(generation: Generation) -> bytes | None:
    """A generation for other builders; None: it is too large."""
    contents = Contents.unpack(generation.packed)
    document = {
        "key": generation.shared_key,
        "settled": generation.settled.hex(),
        "sent": [generation.sent.session, *(each.hex() for each in generation.sent[1:])],
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
        session, exact, timeless = document["sent"]
        return Generation(
            era,
            document["key"],
            bytes.fromhex(document["settled"]),
            contents.paths,
            contents.pack(),
            Sent(session, bytes.fromhex(exact), bytes.fromhex(timeless)),
        )
    except (zlib.error, KeyError, TypeError) as error:
        raise ValueError("not a generation") from error
