"""Which images must not be replaced, because BuildKit runs their programs."""

import pytest

from function_builder.contract.errors import Refusal
from function_builder.policy.programs import refuse_program

DIGEST = f"sha256:{64 * 'a'}"
PROGRAMS = (
    "docker.io/docker/dockerfile",
    "registry.internal:5000/scanner:1",
    f"registry.internal:5000/pinned@{DIGEST}",
    f"registry.internal:5000/also-pinned:1@{DIGEST}",
)


@pytest.mark.parametrize(
    "image",
    [
        "docker/dockerfile:1",
        "index.docker.io/docker/dockerfile",
        "registry.internal:5000/scanner:1",
        "registry.internal:5000/Scanner:another-tag",
    ],
)
def test_a_program_is_not_replaced(image):
    with pytest.raises(Refusal, match="would replace a program") as refused:
        refuse_program(image, PROGRAMS)
    assert refused.value.status == 403


@pytest.mark.parametrize(
    "image",
    [
        "registry.internal:5000/scanner/own:1",
        "other.internal:5000/scanner:1",
        "registry.internal:5000/pinned:1",
        "registry.internal:5000/also-pinned:1",
        "dockerfile:1",
    ],
)
def test_other_images_and_those_that_a_digest_names_are_pushed(image):
    refuse_program(image, PROGRAMS)
