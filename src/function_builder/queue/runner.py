"""The interface between the queue and the server that runs its builds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from function_builder.builds.build import Build
from function_builder.queue.states import Record

Place = TypeVar("Place")


class Runner(Protocol[Place]):
    """Runs builds of the queue."""

    def ready(self) -> bool:
        """Whether a build may start now: BuildKit answers, and the builder is not shutting down."""

    def turn(self, tenant: str) -> AbstractContextManager[Place]:
        """Wait for a slot for a tenant; the block's end frees the slot."""

    def max_inflight(self, tenant: str) -> int:
        """How many of a tenant's queued builds may run on all builders; 0: no limit."""

    async def until_slot(self, place: Place) -> bool:
        """Wait until a place has its slot; return False if the builder ends before."""

    async def prepare(self, record: Record, body: AsyncIterator[bytes]) -> Build:
        """Read a stored body, check it again, and return its build.

        Raises:
            Refusal: it cannot be built.
        """

    async def run(self, build: Build, place: Place) -> None:
        """Run a build to its end; if this is cancelled, the build ends as cancelled."""

    def release(self, build: Build) -> None:
        """Note the end of a build, and release its resources."""

    def note_redelivery(self) -> None:
        """JetStream has redelivered a job."""
