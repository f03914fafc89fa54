"""The page of usage: a month of `GET /usage`, summed up by tenant."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from function_builder.contract.errors import Refusal
from function_builder.contract.usage import Usage, parse_day


class Month(NamedTuple):
    """A month of the calendar.

    Attributes:
        first: its first day.
        last: its last day.
    """

    first: date
    last: date

    @classmethod
    def parse(cls, text: str) -> Month:
        """Read a month; empty: the present one, in UTC.

        Raises:
            Refusal: 400.
        """
        try:
            first = parse_day(f"{text}-01") if text else datetime.now(UTC).date().replace(day=1)
            return cls(first, (first + timedelta(31)).replace(day=1) - timedelta(1))
        except (ValueError, OverflowError):
            raise Refusal(400, "month must be one such as 2026-11") from None

    def __str__(self) -> str:
        return f"{self.first:%Y-%m}"

    @property
    def previous(self) -> str:
        """The month before."""
        return f"{self.first - timedelta(1):%Y-%m}"

    @property
    def next(self) -> str:
        """The month after; empty if it has not started."""
        after = self.last + timedelta(1)
        return f"{after:%Y-%m}" if after <= datetime.now(UTC).date() else ""


def by_tenant(document: Mapping[str, Any]) -> dict[str, Usage]:
    """The sums of the API's document, by tenant."""
    sums: dict[str, Usage] = {}
    for row in document["usage"]:
        sums.setdefault(row["tenant"], Usage()).add(Usage.parse(row))
    return sums
