"""Which repositories stand in for another registry's."""

import pytest

from function_builder.contract.errors import Refusal
from function_builder.policy.mirrors import refuse_mirror

MIRRORS = (
    ("docker.io", "127.0.0.1:5000"),
    ("ghcr.io", "127.0.0.1:5000"),
    ("ghcr.io", "mirror.internal/ghcr"),
    ("fe.example", "mirror.internal:5000"),
)
FRONTENDS = ("docker.io/docker/dockerfile", "docker.io/custom/frontend", "fe.example/a/fe")


@pytest.mark.parametrize(
    "image",
    [
        "127.0.0.1:5000/library/alpine:3",
        "127.0.0.1:5000/docker/dockerfile:9",
        "127.0.0.1:5000/docker/buildkit-syft-scanner",
        "127.0.0.1:5000/custom/frontend:1",
        "127.0.0.1:5000/openfaas/of-watchdog:0.10",
        "localhost:5000/library/alpine",
        "127.9.9.9:5000/library/alpine",
        "[::1]:5000/library/alpine",
        "LOCALHOST:5000/Library/Alpine",
        "mirror.internal/ghcr/anything/at/all",
        "mirror.internal:5000/a/fe:latest",
    ],
)
def test_what_stands_in_is_not_pushed_to(image):
    with pytest.raises(Refusal, match="would take the place of one of") as refused:
        refuse_mirror(image, MIRRORS, FRONTENDS)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "image",
    [
        "127.0.0.1:5000/mine:1",
        "127.0.0.1:5000/mine/library/x",
        "127.0.0.1:5001/library/alpine",
        "127.0.0.1:5000/librarian/x",
        "library/alpine",
        "alpine",
        "docker.io/library/alpine",
        "mirror.internal/ghcrx/y",
        "mirror.internal/mine/ghcr/y",
        "mirror.internal:5000/a/feature",
        "mirror.internal:5000/library/alpine",
        "127.0.0.1.example:5000/library/x",
    ],
)
def test_all_else_is(image):
    refuse_mirror(image, MIRRORS, FRONTENDS)
    refuse_mirror("127.0.0.1:5000/library/alpine", (), FRONTENDS)
