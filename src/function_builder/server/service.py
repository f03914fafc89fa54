"""What the endpoints share, and the order in which the service leaves the stage."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from function_builder.builds.build import Build, Outcome
from function_builder.builds.builder import Builder
from function_builder.builds.monitor import BuildKitMonitor
from function_builder.builds.slots import Slots
from function_builder.server.uploads import Uploads
from function_builder.settings import Settings
from function_builder.telemetry import Metrics
from function_builder.tracing import Tracing, handed_on

_MIN_DISK_FREE = 0.05


class Phase(Enum):
    """Where the service stands between its start and its end."""

    SERVING = "serving"
    LEAVING = "leaving"
    """Not ready any more, but requests that still come are taken."""
    DRAINING = "draining"
    """New requests are refused; those that were taken may be built to their end."""
    ENDING = "ending"
    """No build is begun any more: it could not tell its client how it ended."""


class Disk(NamedTuple):
    """A file system's room, in bytes."""

    available: int
    size: int


@dataclass(slots=True, eq=False)
class Service:
    """The state of one builder process.

    Attributes:
        uploads: bodies under way whose signature is not proven: a cap of their own keeps strangers
            from holding the build slots.
        tracing: enters the trace of a request.
        running: the task of each build under way.
        taken: the task of each request to build that was not refused at sight, until it is
            answered.
    """

    settings: Settings
    builder: Builder
    monitor: BuildKitMonitor
    metrics: Metrics
    slots: Slots
    uploads: Uploads
    tracing: Tracing = handed_on
    phase: Phase = Phase.SERVING
    running: set[asyncio.Task[None]] = field(default_factory=set)
    taken: set[asyncio.Task[None]] = field(default_factory=set)

    def take(self) -> None:
        """Note that the request which this task answers is taken: a drain waits for it."""
        task = asyncio.current_task()
        assert task is not None
        self.taken.add(task)
        task.add_done_callback(self.taken.discard)

    def start(self, build: Build) -> asyncio.Task[None]:
        """Run a build; its task is cancelled when the drain's time is over."""
        task = asyncio.create_task(self.builder.run(build), name=f"build {build.id}")
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        task.add_done_callback(lambda _: _settle(build))
        return task

    def unready_because(self) -> str:
        """Why no build should be sent here; empty when one may."""
        if self.phase is not Phase.SERVING:
            return "the builder is shutting down"
        if self.slots.full:
            return "every build slot is taken"
        if not self.monitor.reachable:
            return "BuildKit cannot be reached"
        disk = self.spool_disk()
        if disk.available < disk.size * _MIN_DISK_FREE:
            return "the disk for request bodies is nearly full"
        return ""

    def cancel_builds(self, reason: str) -> None:
        """End every build; each says so to its client."""
        for task in self.running:
            task.cancel(reason)

    def spool_disk(self) -> Disk:
        """The disk for request bodies; one that cannot be read has no room."""
        try:
            disk = os.statvfs(self.settings.spool_dir)
        except OSError:
            return Disk(0, 1)
        return Disk(disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)


def _settle(build: Build) -> None:
    """A task that is cancelled before its first step tells its build nothing."""
    if build.result is None:
        build.fail(Outcome.CANCELLED, "the build was cancelled before it began")
