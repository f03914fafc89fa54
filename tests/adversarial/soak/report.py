"""A soak in tables: for people, and as Markdown for the documents."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from tests.adversarial.soak.gauges import GAUGES, mean, summary, third
from tests.adversarial.soak.soak import Outcome

_UNITS = {"memory": "MB", "buildkit_disk": "MB"}


def tables(outcome: Outcome) -> str:
    """Everything that a soak gave, in Markdown."""
    return "\n\n".join([_requests(outcome), _faults(outcome), _gauges(outcome), _verdict(outcome)])


def _requests(outcome: Outcome) -> str:
    rows = []
    for kind in sorted({kind for kind, _ in outcome.tally}):
        ends = {end: number for (of, end), number in outcome.tally.items() if of == kind}
        told = ", ".join(f"{number} {end}" for end, number in sorted(ends.items()))
        rows.append((kind, str(sum(ends.values())), told))
    return _table(("requests", "sent", "result"), rows)


def _faults(outcome: Outcome) -> str:
    numbers = Counter(window.name for window in outcome.faults)
    longest = {
        name: max(each.end - each.begin for each in outcome.faults if each.name == name)
        for name in numbers
    }
    rows = [(name, str(numbers[name]), f"{longest[name]:.1f} s") for name in numbers]
    return _table(("faults", "times", "longest"), rows)


def _gauges(outcome: Outcome) -> str:
    looks: Sequence[Callable[[str], float]] = [
        lambda name: getattr(outcome.rest[0], name),
        lambda name: getattr(summary(third(outcome.samples, 0), mean), name),
        lambda name: getattr(summary(third(outcome.samples, 2), mean), name),
        lambda name: getattr(summary(outcome.samples, max), name),
        lambda name: getattr(outcome.rest[1], name),
    ]
    rows = [
        (
            f"{name.replace('_', ' ')} {_UNITS.get(name, '')}".strip(),
            *(f"{look(name):.0f}" for look in looks),
        )
        for name in GAUGES
    ]
    heads = ("", "before", "first third", "last third", "most", "at rest after")
    return _table(heads, rows)


def _verdict(outcome: Outcome) -> str:
    requests = sum(outcome.tally.values())
    said = (
        f"{outcome.seconds:.0f} s, seed {outcome.seed}: {requests} requests, "
        f"{outcome.images} images pulled and compared, {len(outcome.samples)} samples."
    )
    if not outcome.complaints:
        return f"{said} Nothing was lost, nothing grew."
    return "\n".join([said, *(f"- WRONG: {complaint}" for complaint in outcome.complaints)])


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
