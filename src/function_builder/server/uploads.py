"""Uploads under way: how many there may be, and which one makes room for another.

A client that proves at the headers that it has the payload secret (`X-Build-Timestamp`, see
docs/api.md) has its place among the proven uploads. All others share as many places of their own:
they may be strangers, who can begin an upload without a secret and make it last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from function_builder.server.crowd import Crowd
from function_builder.server.receiving import Intake
from function_builder.server.slots import Closed, NoSlot

HEAD_START_BYTES: Final = 16 * 1024
HEAD_START_SECONDS: Final = 1.0
"""What an upload is credited with when it begins, since its speed is not known yet.

So an upload that has just begun counts as one of 16 KiB/s, and one that sends nothing more gets
slower with each moment. No age protects an upload.
"""


class TooManyUploads(NoSlot):
    """As many bodies are on their way as may be; a build slot may be free."""

    setting = "max_uploads"


class Uploads:
    """The uploads under way.

    Beyond the limit, the slowest upload is ended, of the source that has the most. A source is an
    address, or a network (`source_of`). So an attacker with few addresses ends its own uploads.

    Args:
        limit: how many proven ones there may be, and how many others.
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
        """How many there are."""
        return len(self._proven) + len(self._others)

    @contextmanager
    def place(self, intake: Intake, source: str, proof: bytes | None = None) -> Iterator[None]:
        """Hold a place for an upload; a slower one may lose its own.

        Args:
            intake: the upload.
            source: what its client's address counts for.
            proof: shows that the client has the payload secret. Recorded headers can be sent again,
                so that one proof is good for one upload at a time.

        Raises:
            TooManyUploads: there are too many, and this one counts as the slowest.
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
        """End the uploads that are not proven: the builder is shutting down."""
        for intake in self._others:
            intake.give_up(Closed())

    def end_all(self) -> None:
        """End all uploads: the builder is shutting down."""
        self.end_unproven()
        for intake in self._proven:
            intake.give_up(Closed())

    async def only_proven(self) -> None:
        """Wait until there are none but proven ones."""
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
        # Of equally slow ones the first, which is the oldest.
        slowest = min(crowd.largest(), key=lambda intake: _speed(intake, now))
        if slowest is newcomer:
            raise TooManyUploads(self.limit)
        crowd.discard(slowest)
        slowest.give_up(TooManyUploads(self.limit))

    def _note_others(self) -> None:
        if self._others:
            self._only_proven.clear()
        else:
            self._only_proven.set()


def _speed(intake: Intake, now: float) -> float:
    return (intake.received + HEAD_START_BYTES) / (now - intake.begun + HEAD_START_SECONDS)
