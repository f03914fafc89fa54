"""Run one target on atheris: `python -m fuzz archive`, with libFuzzer's options and corpora.

`scripts/fuzz` knows which. A file instead of options is run once: the way to look at a finding.
"""

import importlib
import random
import sys
from collections.abc import Callable

import atheris

from fuzz.corpora import PACKAGES, TARGETS

_UNMENDED = 8
"""One mutation of so many stays as it is."""


def main() -> None:
    """Fuzz until libFuzzer's options end it, which end the process too."""
    name = sys.argv.pop(1)
    if name not in TARGETS:
        sys.exit(f"fuzz: no target {name}: there are {', '.join(TARGETS)}")
    with atheris.instrument_imports(include=list(PACKAGES)):
        target = importlib.import_module(f"fuzz.{name}")
    mend = getattr(target, "mend", None)
    mutator = {"custom_mutator": _mending(mend)} if mend else {}
    atheris.Setup(sys.argv, target.run, **mutator)
    atheris.Fuzz()


def _mending(mend: Callable[[bytes], bytes]) -> Callable[[bytes, int, int], bytes]:
    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        mutated: bytes = atheris.Mutate(data, longest)
        return mend(mutated)[:longest] if random.Random(seed).randrange(_UNMENDED) else mutated

    return mutate


if __name__ == "__main__":
    main()
