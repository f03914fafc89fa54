"""What BuildKit said of its loads of a build's context: whether each was stored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aiobuildkit import StatusEvent, Transfer

# What `source/local/source.go` calls the progress of a transfer from the tree of that name.
_TRANSFERRING: Final = "transferring context:"


class ContextLoads:
    """Follows a build's status for the loads of its context.

    That a transfer was finished (FIN exchanged) does not say that BuildKit has stored what goes
    with the files: their checksums are written some ten milliseconds later. A BuildKit that is
    killed in between, or gives the load up because the build was cancelled and is killed then,
    keeps new files beside old checksums. The completion of the load's vertex says it.

    A vertex completes twice: once its cache key is known, and once it was run. Only the second
    encloses the transfer's progress.
    """

    def __init__(self) -> None:
        self._began: dict[str, int] = {}
        self._stored: set[str] = set()

    def take(self, event: StatusEvent) -> None:
        """Read a status event, in the order in which they come."""
        for status in event.statuses:
            if status.id == _TRANSFERRING and status.started is not None:
                self._began[status.vertex] = status.started
        for vertex in event.vertexes:
            began = self._began.get(vertex.digest)
            if began is None or vertex.started is None or vertex.completed is None:
                continue
            if vertex.started <= began <= vertex.completed and not vertex.error:
                self._stored.add(vertex.digest)

    def all_stored(self, transfers: Iterable[Transfer]) -> bool:
        """Whether each transfer of the context that began is known to be stored.

        Args:
            transfers: all that were asked for, of any tree.
        """
        # Each load makes a transfer at least, so equal numbers leave none that is not stored.
        asked = sum(transfer.dir_name == "context" for transfer in transfers)
        return asked <= len(self._stored)
