"""Whether a builder understands manifests, as far as its last answer to this user said.

It is an empty file for each builder that does, in `$XDG_CACHE_HOME/function-builder/builders`. It
may be lost at any time, which costs one question.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path


class KnownBuilder:
    """What is remembered of a builder.

    Args:
        url: its address, without credentials.
        folder: where it is kept; None keeps nothing.
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
        """Keep what an answer said; nothing is written if it said the same before."""
        if self._file is None or understands == self.understands:
            return
        with suppress(OSError):
            if understands:
                self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._file.touch()
            else:
                self._file.unlink()
