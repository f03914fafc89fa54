"""The attributes that BuildKit's frontend gets for a request."""

import pytest

from function_builder.builds.options import frontend_attrs
from function_builder.contract.config import BuildConfig
from tests.support.build_requests import build_request

ARGUMENT = "BUILDKIT_ATTEST_sbom"


def attesting(value: str, generator: str) -> str:
    """What BuildKit gets for a build argument that asks for an SBOM."""
    config = BuildConfig(build_args={ARGUMENT: value})
    request = build_request(config=config, sbom_generator=generator)
    return frontend_attrs(request, {})[f"build-arg:{ARGUMENT}"]


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("", "generator=r/scanner:1"),
        ("true", "generator=r/scanner:1,true"),
        # Go's encoding/csv, in older frontends, reads one line.
        ("true\n", "generator=r/scanner:1,true\n"),
    ],
    ids=["empty", "true", "a newline"],
)
def test_an_sbom_that_an_argument_asks_for_has_the_operators_generator(value, sent):
    assert attesting(value, "r/scanner:1") == sent


def test_without_a_generator_an_argument_is_as_it_was_given():
    assert attesting("true", "") == "true"
