import base64
import json

import pytest

from aiobuildkit import Platform, SolveResult

DIGEST = "sha256:" + "a" * 64


def described(descriptor: object) -> SolveResult:
    encoded = base64.b64encode(json.dumps(descriptor).encode()).decode()
    return SolveResult({"containerimage.descriptor": encoded})


def test_an_image_has_a_digest_and_one_platform():
    result = SolveResult({"containerimage.digest": DIGEST})
    assert (result.digest, result.platform) == (DIGEST, None)
    arm = described({"platform": {"os": "linux", "architecture": "arm", "variant": "v7"}})
    assert (arm.digest, arm.platform) == (None, Platform("linux", "arm", "v7"))
    assert str(described({"platform": {"os": "linux", "architecture": "amd64"}}).platform) == (
        "linux/amd64"
    )


@pytest.mark.parametrize("descriptor", [{}, [], 1, {"platform": None}, {"platform": {"os": "x"}}])
def test_a_descriptor_without_one_tells_none(descriptor):
    assert described(descriptor).platform is None
