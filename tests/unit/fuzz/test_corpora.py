"""What fuzzing has found worth keeping, run again without a fuzzer."""

import random
import time

import pytest

from fuzz import corpora

INPUTS = [
    pytest.param(target, path, id=f"{target}-{path.name}")
    for target in corpora.TARGETS
    for path in corpora.corpus(target)
]


@pytest.mark.parametrize("target", corpora.TARGETS)
def test_a_corpus_is_there_and_small(target):
    sizes = [path.stat().st_size for path in corpora.corpus(target)]
    assert 5 <= len(sizes) <= 80
    assert max(sizes) <= corpora.LONGEST


@pytest.mark.parametrize(("target", "path"), INPUTS)
def test_kept_inputs_find_nothing(target, path):
    began = time.thread_time()
    corpora.runner(target)(path.read_bytes())
    assert time.thread_time() - began < 20


@pytest.mark.parametrize("target", corpora.TARGETS)
def test_kept_inputs_that_are_damaged_find_nothing(target):
    """What a fuzzer does first, so that a target that has gone stale is noticed."""
    run = corpora.runner(target)
    chance = random.Random(target)
    for path in corpora.corpus(target):
        data = bytearray(path.read_bytes())
        for _ in range(3):
            data[chance.randrange(len(data)) : chance.randrange(len(data))] = chance.randbytes(2)
            run(bytes(data) or b"\0")
            data = data or bytearray(b"\0")
