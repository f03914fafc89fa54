"""What a BuildKit that was killed leaves among its snapshots."""

import re
from typing import Final

_IN_THE_WAY: Final = re.compile(
    r": failed to rename: rename \S+/snapshots/new-[0-9]+ \S+/snapshots/[0-9]+: file exists\Z"
)


def leftover_was_met(message: str) -> bool:
    """Whether a build failed on a leftover, which is away now, so that it may begin again.

    A snapshot has its directory before the database that numbers it is written: killed between the
    two, BuildKit gives the number again, to whoever comes first. Then it removes what was in the
    way (`createSnapshot` in containerd's `plugins/snapshots/overlay/overlay.go`).
    """
    return _IN_THE_WAY.search(message) is not None
