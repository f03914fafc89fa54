"""Turn a month's usage into a bill for each tenant.

    function-builder usage --from 2026-11-01 --to 2026-11-30 --json | python bill.py prices.json

`prices.json` has the prices, such as
{"currency": "EUR", "build": "0.01", "second": "0.0002", "gigabyte": "0.05"}.
Builds that ended for no fault of the tenant cost nothing.
"""

import json
import sys
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

BILLED = ("success", "failed", "timeout")


def bill(usage, prices):
    """Each tenant's builds, seconds, received bytes and cost, sorted by tenant."""
    totals = defaultdict(lambda: [0, Decimal(0), 0])
    for row in usage["usage"]:
        total = totals[row["tenant"]]
        total[0] += sum(row["builds"].get(outcome, 0) for outcome in BILLED)
        total[1] += Decimal(str(row["buildSeconds"]))
        total[2] += row["receivedBytes"]
    for tenant, (builds, seconds, received) in sorted(totals.items()):
        cost = (
            builds * Decimal(prices["build"])
            + seconds * Decimal(prices["second"])
            + received * Decimal(prices["gigabyte"]) / 10**9
        )
        yield tenant, builds, seconds, received, cost.quantize(Decimal("0.01"))


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: function-builder usage --json | python bill.py prices.json")
    prices = json.loads(Path(sys.argv[1]).read_text())
    usage = json.load(sys.stdin)
    if "since" in usage:
        sys.exit(f"one builder's usage since {usage['since']} is no month: set nats_url")
    print(f"{usage['from']} to {usage['to']}")
    for tenant, builds, seconds, received, cost in bill(usage, prices):
        print(
            f"{tenant}: {builds} builds, {seconds} s, {received} bytes: {cost} {prices['currency']}"
        )


if __name__ == "__main__":
    main()
