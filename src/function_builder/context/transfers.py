"""Whether BuildKit has stored each transfer of a build's context."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aiobuildkit import StatusEvent, Transfer

CONTEXT_TREE: Final = "context"
"""The session's directory for the build context."""


class ContextLoads:
    """Reads the loads of the context, and of named contexts, from a build's status.

    After the end of a transfer (FIN was exchanged), BuildKit still has to store the checksums of
    the files, some ten milliseconds later. If it is killed before that, or the load is cancelled
    and BuildKit is then killed, it has new files with old checksums. The checksums are stored when
    the load's vertex is completed.

    A vertex completes twice: when its cache key is known, and when it has run. Only the second one
    has the progress of the transfer.

    Args:
        trees: the session's directories of these contexts.
        known: whether BuildKit need not load them, because it has them of an earlier session.
    """

    def __init__(self, trees: Iterable[str] = (CONTEXT_TREE,), *, known: bool = False) -> None:
        self._known = known
        # Whether a step that needs another one has started.
        self._continues = False
        self._trees = frozenset(trees)
        # The name in `source/local/source.go` for the progress of a transfer from such a directory.
        self._transferring = frozenset(f"transferring {tree}:" for tree in self._trees)
        self._began: dict[str, int] = {}
        self._stored: set[str] = set()

    def observe(self, event: StatusEvent) -> None:
        """Read the next status event."""
        for status in event.statuses:
            if status.id in self._transferring and status.started is not None:
                self._began[status.vertex] = status.started
        for vertex in event.vertexes:
            self._continues |= bool(vertex.inputs and vertex.started is not None)
            began = self._began.get(vertex.digest)
            if began is None or vertex.started is None or vertex.completed is None:
                continue
            if vertex.started <= began <= vertex.completed and not vertex.error:
                self._stored.add(vertex.digest)

    def are_complete(self, transfers: Iterable[Transfer]) -> bool:
        """Whether BuildKit has the context.

        Args:
            transfers: all transfers of all trees.
        """
        begun = self._stored or (self._known and self._continues)
        return bool(begun) and self.all_stored(transfers)

    def all_stored(self, transfers: Iterable[Transfer]) -> bool:
        """Whether BuildKit has stored each transfer of the context that began.

        Args:
            transfers: all transfers of all trees.
        """
        # Each load makes at least one transfer, so with equal numbers all are stored.
        asked = sum(transfer.dir_name in self._trees for transfer in transfers)
        return asked <= len(self._stored)
