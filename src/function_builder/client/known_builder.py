"""Whether a builder understands manifests, by its last answer to this user.

Each builder that does has an empty file in `$XDG_CACHE_HOME/function-builder/builders`. The file
may be lost at any time, which costs one request.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path


class KnownBuilder:
    """What the client remembers about a builder.

    Args:
        url: its address, without credentials.
        folder: the directory of the file; None: nothing is stored.
    """

    def __init__(self, url: str, folder: Path | None) -> None:
        name = hashlib.sha256(url.encode()).hexdigest()[:32]
        self._file = folder / name if folder else None

    @property
    def understands(self) -> bool:
        """Whether its last answer said so."""
        with suppress(OSError):
            return self._file is not None and self._file.exists()
        return False

    def note(self, *, understands: bool) -> None:
        """Store what an answer said; nothing is written if that has not changed."""
        if self._file is None or understands == self.understands:
            return
        with suppress(OSError):
            if understands:
                self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._file.touch()
            else:
                self._file.unlink()
