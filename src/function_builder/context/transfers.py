"""What BuildKit said of its loads of a build's context: whether each was stored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aiobuildkit import StatusEvent, Transfer

CONTEXT_TREE: Final = "context"
"""The directory of a session that holds the build context."""


class ContextLoads:
    """Follows a build's status for the loads of its context, and of its named contexts.

    That a transfer was finished (FIN exchanged) does not say that BuildKit has stored what goes
    with the files: their checksums are written some ten milliseconds later. A BuildKit that is
    killed in between, or gives the load up because the build was cancelled and is killed then,
    keeps new files beside old checksums. The completion of the load's vertex says it.

    A vertex completes twice: once its cache key is known, and once it was run. Only the second
    encloses the transfer's progress.

    Args:
        trees: the directories of the session that hold them.
    """

    def __init__(self, trees: Iterable[str] = (CONTEXT_TREE,)) -> None:
        self._trees = frozenset(trees)
        # What `source/local/source.go` calls the progress of a transfer from such a directory.
        self._transferring = frozenset(f"transferring {tree}:" for tree in self._trees)
        self._began: dict[str, int] = {}
        self._stored: set[str] = set()

    def take(self, event: StatusEvent) -> None:
        """Read a status event, in the order in which they come."""
        for status in event.statuses:
            if status.id in self._transferring and status.started is not None:
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
        asked = sum(transfer.dir_name in self._trees for transfer in transfers)
        return asked <= len(self._stored)
