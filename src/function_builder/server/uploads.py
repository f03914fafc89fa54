"""The limit of simultaneous uploads, and the choice of the upload to end beyond it.

A client whose headers prove that it has the payload secret (`X-Build-Timestamp`, see docs/api.md)
counts among the proven uploads. All other uploads share the same number of separate places, because
a client without the secret can start an upload and make it slow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from function_builder.server.crowd import Crowd
from function_builder.server.places import Closed, NoSlot
from function_builder.server.receiving import Intake

HEAD_START_BYTES: Final = 16 * 1024
HEAD_START_SECONDS: Final = 1.0
"""Bytes and seconds that are added to each upload, because its speed is unknown at the start.

So a new upload counts as one of 16 KiB/s, and its speed falls while it sends nothing. No upload is
protected by its age.
"""


class TooManyUploads(NoSlot):
    """Too many bodies are being received; a build slot may be free."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit, "max_uploads")


class Uploads:
    """The current uploads.

    Beyond the limit, the slowest upload is ended, of the source that has the most. A source is an
    address, or a network (`source_of`). So an attacker with few addresses ends its own uploads.

    Args:
        limit: the most proven uploads, and the most others.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._proven: Crowd[Intake] = Crowd()
        self._others: Crowd[Intake] = Crowd()
        self._proofs: set[bytes] = set()
        self._only_proven = asyncio.Event()
        self._only_proven.set()

    @property
    def taken(self) -> int:
        """The number of uploads."""
        return len(self._proven) + len(self._others)

    @contextmanager
    def place(self, intake: Intake, source: str, proof: bytes | None = None) -> Iterator[None]:
        """Count an upload until the block ends; this may end a slower one.

        Args:
            intake: the upload.
            source: of the client's address, from `source_of`.
            proof: shows that the client has the payload secret. It is valid for one upload at a
                time, because recorded headers can be sent again.

        Raises:
            TooManyUploads: the limit is reached, and this upload is the slowest.
        """
        if proof is None or proof in self._proofs:
            with self._among(self._others, intake, source):
                yield
            return
        self._proofs.add(proof)
        try:
            with self._among(self._proven, intake, source):
                yield
        finally:
            self._proofs.remove(proof)

    def end_unproven(self) -> None:
        """End the uploads that are not proven, because the builder is shutting down."""
        for intake in self._others:
            intake.abort(Closed())

    def end_all(self) -> None:
        """End all uploads, because the builder is shutting down."""
        self.end_unproven()
        for intake in self._proven:
            intake.abort(Closed())

    async def only_proven(self) -> None:
        """Wait until all uploads are proven."""
        await self._only_proven.wait()

    @contextmanager
    def _among(self, crowd: Crowd[Intake], intake: Intake, source: str) -> Iterator[None]:
        crowd.add(intake, source)
        try:
            if len(crowd) > self.limit:
                self._make_room(crowd, intake)
            self._note_others()
            yield
        finally:
            crowd.discard(intake)
            self._note_others()

    def _make_room(self, crowd: Crowd[Intake], newcomer: Intake) -> None:
        now = time.monotonic()
        # Of equally slow uploads, the oldest.
        slowest = min(crowd.largest(), key=lambda intake: _speed(intake, now))
        if slowest is newcomer:
            raise TooManyUploads(self.limit)
        crowd.discard(slowest)
        slowest.abort(TooManyUploads(self.limit))

    def _note_others(self) -> None:
        if self._others:
            self._only_proven.clear()
        else:
            self._only_proven.set()


def _speed(intake: Intake, now: float) -> float:
    return (intake.received + HEAD_START_BYTES) / (now - intake.started + HEAD_START_SECONDS)
