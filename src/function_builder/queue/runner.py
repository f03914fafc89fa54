"""What the queue knows of the server that runs its builds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from function_builder.builds.build import Build
from function_builder.queue.states import Record

Place = TypeVar("Place")


class Runner(Protocol[Place]):
    """What the server does for the queue."""

    def ready(self) -> bool:
        """Whether a build may begin now: BuildKit answers, and the builder is not shutting down."""

    def turn(self, tenant: str) -> AbstractContextManager[Place]:
        """Stand in line for a slot for a tenant; the slot is given back at the end."""

    def max_inflight(self, tenant: str) -> int:
        """How many of a tenant's queued builds may run on all builders; 0: no limit."""

    async def until_slot(self, place: Place) -> bool:
        """Wait until a place in line has its slot; returns whether it has one: the line may end."""

    async def prepare(self, record: Record, body: AsyncIterator[bytes]) -> Build:
        """Read a stored body, check it again, and make a build of it.

        Raises:
            Refusal: it cannot be built.
        """

    async def run(self, build: Build, place: Place) -> None:
        """Run it to its end; canceled, the build ends as canceled."""

    def release(self, build: Build) -> None:
        """Note the end of a build, and give back what it held."""

    def note_redelivery(self) -> None:
        """A job was handed to this builder that another one, or this one, was handed before."""
