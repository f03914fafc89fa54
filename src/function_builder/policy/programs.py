"""Refuse pushes that replace an image whose program BuildKit runs for other builds.

Builders share such an image by its name: a frontend's program can use the session of each build,
with its secrets, and an SBOM generator's reads each image. A digest cannot be replaced.
"""

from __future__ import annotations

from collections.abc import Iterable

from function_builder.contract.errors import Refusal, shown
from function_builder.contract.references import full_repository


def refuse_program(image: str, programs: Iterable[str]) -> None:
    """Refuse a push to the repository of a program that is used by its tag.

    Args:
        image: the reference to push.
        programs: references or repositories of these images; one with a digest does not count.

    Raises:
        Refusal: 403.
    """
    repository = full_repository(image)
    if any("@" not in each and full_repository(each) == repository for each in programs):
        raise Refusal(
            403,
            f"the image {shown(image)} would replace a program that BuildKit runs for other builds "
            "(allowed_frontends, sbom_generator): push to another repository",
        )
