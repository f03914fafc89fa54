"""kill -9 of each program while builds are at each step of their path."""

import pytest
import pytest_asyncio

from tests.adversarial.faults.stack import stack_at
from tests.adversarial.faults.steps import STEPS, VICTIMS, WAITING_STEPS, kill_at

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(engine_root, registry, buildkit_config):
    root = engine_root / "steps"
    root.mkdir()
    async with stack_at(root, registry, buildkit_config) as made:
        yield made


@pytest.mark.parametrize("victim", VICTIMS)
async def test_each_build_ends_once_at_whatever_step_a_program_is_killed(stack, victim):
    seen = await kill_at(stack, (*STEPS, *WAITING_STEPS), victim)
    if victim == "builder":
        (running,) = (each for each in seen if each.step == "a RUN step runs")
        # It is lost again if the machine pauses for as long.
        assert running.attempts >= 2
        assert ": the builder that ran this build was lost." in running.log
