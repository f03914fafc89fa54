"""What tenants have used: builds, seconds and bytes, by tenant and day (UTC)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final, TypeAlias

KEPT_DAYS: Final = 400
"""How long a day's usage is kept: a year, and a month to send its last bill."""


@dataclass(slots=True)
class Usage:
    """The usage of one tenant on one day.

    Attributes:
        builds: builds that ended, by outcome.
        seconds: for which its builds had slots.
        received_bytes: bodies of requests to build.
    """

    builds: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    received_bytes: int = 0

    def add(self, other: Usage) -> None:
        """Add another usage."""
        self.builds.update(other.builds)
        self.seconds += other.seconds
        self.received_bytes += other.received_bytes

    def to_document(self) -> dict[str, Any]:
        """Its form in JSON."""
        return {
            "builds": dict(sorted(self.builds.items())),
            "buildSeconds": round(self.seconds, 3),
            "receivedBytes": self.received_bytes,
        }

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Usage:
        """Read what `to_document` made."""
        return cls(
            Counter({str(name): int(count) for name, count in document["builds"].items()}),
            float(document["buildSeconds"]),
            int(document["receivedBytes"]),
        )


UsageRows: TypeAlias = Mapping[tuple[date, str], Usage]
"""Usage by day and tenant."""


def parse_day(text: str) -> date:
    """Read a day.

    Raises:
        ValueError: it is not one, as `YYYY-MM-DD`.
    """
    if len(text) != len("YYYY-MM-DD") or not text.isascii():
        raise ValueError
    return date.fromisoformat(text)
