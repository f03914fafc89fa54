"""The short form of `make soak`."""

import asyncio
from pathlib import Path

import pytest

from tests.adversarial.soak.report import tables
from tests.adversarial.soak.soak import soak

# For 45 s it gives all cores as much to do as they can.
pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(400)]


async def test_nothing_is_lost_and_nothing_grows_whatever_breaks(engine_root: Path):
    root = engine_root / "soak"
    await asyncio.to_thread(root.mkdir)
    outcome = await soak(root, seconds=45, seed=1)
    assert not outcome.complaints, tables(outcome)
    # It has seen what it is for.
    assert len({window.name for window in outcome.faults}) == 5, tables(outcome)
    ends = {end.partition(":")[0] for _, end in outcome.tally}
    assert ends == {"built", "busy", "failed", "left", "refused"}, tables(outcome)
