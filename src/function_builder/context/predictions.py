"""Predictions: what would be announced for a context under a generation that is idle.

`mtimes.py` has the reasons. A question for missing contents needs the announcement that the build
then makes, so both take one prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from function_builder.context.contents import Announced, Contents
from function_builder.context.fingerprint import Fingerprint, in_directories
from function_builder.context.generations import Generation
from function_builder.contract.context import ContextEntry


class Prediction(NamedTuple):
    """The announcement of a context under a generation, which no build has leased for it yet.

    Attributes:
        generation: the one that was idle; None: there was none.
        packed: its record then.
        entries: the context.
        digests: of its entries.
        view: as for `ContentRecords.lease`.
        last: whether the function's last build used the generation.
        contents: the record after the announcement.
        announced: the announcement; None: it needs a new generation.
        settled: of the context, as for a generation.
        fresh: whether the context is a fresh copy.
    """

    generation: Generation | None
    packed: bytes
    entries: Sequence[ContextEntry]
    digests: Sequence[bytes]
    view: bytes
    last: bool
    contents: Contents
    announced: Announced | None
    settled: bytes
    fresh: bool

    def session(self, whole: Fingerprint | None) -> str:
        """The session that sent BuildKit the context of which this is a fresh copy, or empty."""
        if self.generation is None or whole is None or not self.fresh or self.announced is None:
            return ""
        sent = self.generation.sent
        return sent.session if sent.timeless == whole.timeless else ""

    def holds(
        self,
        generation: Generation | None,
        entries: Sequence[ContextEntry],
        digests: Sequence[bytes],
        view: bytes,
        *,
        last: bool,
    ) -> bool:
        """Whether it is that of this context, and no other build has changed the record."""
        return (
            generation is not None
            and generation is self.generation
            and generation.packed is self.packed
            and last == self.last
            and entries is self.entries
            and digests is self.digests
            and view == self.view
        )


def predict(
    generation: Generation | None,
    entries: Sequence[ContextEntry],
    digests: Sequence[bytes],
    view: bytes,
    *,
    last: bool,
) -> Prediction:
    """Predict the announcement of a context; the arguments are as in `Prediction`."""
    settled = in_directories(entries, digests, view) if view else b""
    packed = generation.packed if generation else b""
    contents, announced, fresh = Contents(), None, False
    if generation and not (settled and generation.settled != settled):
        contents = Contents.unpack(packed)
        fresh = last and not view and contents.fresh_copy(entries, digests)
        announced = contents.announce(entries, digests, fresh=fresh)
    return Prediction(
        *(generation, packed, entries, digests, view, last),
        *(contents, announced, settled, fresh),
    )


def announce_again(
    generation: Generation, entries: Sequence[ContextEntry], digests: Sequence[bytes], view: bytes
) -> Announced:
    """The announcement of the context that was the last under a generation."""
    announced = predict(generation, entries, digests, view, last=False).announced
    # If it would have a new generation, the record does not say which files BuildKit has.
    every = frozenset(range(len(entries)))
    return announced or Announced([entry.mtime for entry in entries], every, every)
