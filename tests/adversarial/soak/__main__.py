"""`python -m tests.adversarial.soak`: soak a builder, print tables, fail if anything did."""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from pathlib import Path

from function_builder.settings import Settings
from tests.adversarial.soak.queue import soak_queue
from tests.adversarial.soak.report import tables
from tests.adversarial.soak.siege import alone
from tests.adversarial.soak.soak import soak
from tests.adversarial.soak.steps import table_of_steps


def main() -> None:
    """Read the command line and soak."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--time", default="30m", help="how long, as 90s or 30m (default 30m)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--siege", action="store_true", help="strangers at each phase instead")
    parser.add_argument("--queue", action="store_true", help="three builders of one queue instead")
    parser.add_argument("--steps", action="store_true", help="kill each program at each step")
    parser.add_argument("--builds", type=int, default=10_000, help="with --queue (default 10000)")
    options = parser.parse_args()
    seconds = Settings.from_environment({"build_timeout": options.time}).build_timeout
    root = Path(tempfile.mkdtemp(prefix="fb-soak-"))
    try:
        if options.siege:
            print(asyncio.run(alone(root, seconds=seconds)).report())  # noqa: T201 (as below)
            return
        if options.steps:
            print(asyncio.run(table_of_steps(root)))  # noqa: T201 (as below)
            return
        if options.queue:
            wrong = asyncio.run(soak_queue(root, builds=options.builds, seed=options.seed))
            print("\n".join(wrong) or "nothing was wrong")  # noqa: T201 (as below)
            sys.exit(bool(wrong))
        outcome = asyncio.run(soak(root, seconds=seconds, seed=options.seed))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(tables(outcome))  # noqa: T201 (a command's output)
    sys.exit(bool(outcome.complaints))


main()
