"""The table of steps and victims, as a run has seen it."""

from pathlib import Path

from function_builder.engine import BuildKitConfig, Registry
from function_builder.engine.base_image import seed_base_image
from tests.adversarial.faults.stack import stack_at
from tests.adversarial.faults.steps import (
    STEPS,
    VICTIMS,
    WAITING_STEPS,
    Seen,
    kill_at,
)
from tests.support import free_address

_PATH = (*STEPS[:4], *WAITING_STEPS, *STEPS[4:])
"""In the order in which a build takes them."""


async def table_of_steps(root: Path) -> str:
    """Kill each program at each step; returns what was seen."""
    seen: dict[str, dict[str, Seen]] = {}
    async with Registry(root / "registry", listen=free_address(), log=root / "log") as registry:
        await seed_base_image(registry.address)
        address = registry.address
        config = BuildKitConfig(mirrors={"docker.io": [address]}, plain_http=[address])
        async with stack_at(root, address, config) as stack:
            for victim in VICTIMS:
                found = await kill_at(stack, (*STEPS, *WAITING_STEPS), victim)
                seen[victim] = {each.step: each for each in found}
    lines = [
        f"| Step | {' | '.join(f'{victim} killed' for victim in VICTIMS)} |",
        "|---" * (len(VICTIMS) + 1) + "|",
    ]
    for step in _PATH:
        cells = [_cell(seen[victim][step.name]) for victim in VICTIMS]
        lines.append(f"| {step.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(seen: Seen) -> str:
    refusals = sorted(set(seen.refusals))
    parts = [
        f"refused ({', '.join(refusals)}), then accepted" if refusals else "",
        f"started {seen.attempts} times" if seen.attempts > 1 else "",
        f"callback sent {seen.callbacks} times" if seen.callbacks > 1 else "",
    ]
    return "; ".join(filter(None, parts)) or "continues"
