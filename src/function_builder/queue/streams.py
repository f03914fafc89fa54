"""The streams of the queue: their names, their subjects and how long each keeps a message.

The callbacks' stream is in `callback_stream`, because its consumer belongs to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nats.js.api import RetentionPolicy, StreamConfig

JOBS: Final = "BUILD_JOBS"
"""The stream of queued builds; a message is removed when its build has ended."""

JOB_SUBJECTS: Final = "builds.queue"
_DUPLICATES_SECONDS: Final = 3600.0
"""How long a repeated request finds the job that the interrupted request has stored."""

KEYS: Final = "KV_build_keys"
KEY_SUBJECTS: Final = "$KV.build_keys"
_KEY_SECONDS: Final = 24 * 3600.0

LOGS: Final = "BUILD_LOGS"
LOG_SUBJECTS: Final = "builds.log"
_LOG_SECONDS: Final = 24 * 3600.0

BUILDERS: Final = "KV_builders"
BUILDER_SUBJECTS: Final = "$KV.builders"
_ALIVE_FACTOR: Final = 2
"""A builder's heartbeat is stored for so many times `lost_after`."""

WAKE: Final = "builds.wake"
"""A message that no stream stores: a tenant has a new job."""

CANCEL: Final = "builds.cancel"
"""A message that no stream stores: a build was cancelled."""


def streams(replicas: int, lost_after: float) -> Sequence[StreamConfig]:
    """All streams except that of the records.

    Args:
        replicas: on how many servers of the cluster each message is kept.
        lost_after: seconds of silence after which a builder is lost.
    """
    alive = _ALIVE_FACTOR * lost_after
    return (
        StreamConfig(
            name=JOBS,
            subjects=[f"{JOB_SUBJECTS}.*"],
            retention=RetentionPolicy.WORK_QUEUE,
            duplicate_window=_DUPLICATES_SECONDS,
            num_replicas=replicas,
        ),
        StreamConfig(
            name=LOGS,
            subjects=[f"{LOG_SUBJECTS}.*"],
            max_age=_LOG_SECONDS,
            num_replicas=replicas,
        ),
        StreamConfig(
            name=KEYS,
            subjects=[f"{KEY_SUBJECTS}.>"],
            max_age=_KEY_SECONDS,
            max_msgs_per_subject=1,
            num_replicas=replicas,
        ),
        StreamConfig(
            name=BUILDERS,
            subjects=[f"{BUILDER_SUBJECTS}.*"],
            max_age=alive,
            duplicate_window=alive,
            max_msgs_per_subject=1,
            num_replicas=replicas,
        ),
    )
