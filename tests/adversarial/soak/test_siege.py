"""The short form of `make soak ARGS=--siege`."""

from pathlib import Path

import pytest

from tests.adversarial.soak.siege import KINDS, besiege

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

LATEST_SECONDS = 10.0
"""An idle machine answers within a tenth of it: this is for one that is busy with other tests."""


async def test_signed_requests_are_served_while_strangers_do_what_they_can(
    tmp_path: Path, buildkitd: str
) -> None:
    siege = await besiege(tmp_path / "b", buildkitd, seconds=8)
    for name, served in siege.served.items():
        assert served.share >= 0.95, f"{name}\n{siege.report()}"
        # How many requests fit in the time is the machine's affair.
        assert served.statuses.total() > 0, siege.report()
    assert max(siege.served["/healthz"].took) < LATEST_SECONDS, siege.report()
    assert siege.memory < 400, siege.report()
    assert siege.strangers.keys() == KINDS.keys()
