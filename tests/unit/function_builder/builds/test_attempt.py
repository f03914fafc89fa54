"""What is checked before a build begins on a BuildKit."""

from types import SimpleNamespace
from typing import Any

import pytest

from aiobuildkit import ConnectionFailed
from function_builder.builds import attempt


class BuildKit:
    address = "unix:///absent"

    def __init__(self, version: str) -> None:
        self._version = version

    async def info(self) -> SimpleNamespace:
        return SimpleNamespace(version=self._version)


@pytest.mark.parametrize("version", ["v0.31.0", "v0.32.2-rootless", "1.0", "v0.0.0+unknown", ""])
async def test_steps_run_on_a_buildkit_with_a_proxy(version: str) -> None:
    buildkit: Any = BuildKit(version)
    await attempt._refuse_without_proxy(buildkit)


@pytest.mark.parametrize("version", ["v0.30.9", "0.13.2+ds1"])
async def test_steps_never_run_on_a_buildkit_that_ignores_the_proxy(version: str) -> None:
    buildkit: Any = BuildKit(version)
    with pytest.raises(ConnectionFailed, match=r"run_proxy needs v0\.31"):
        await attempt._refuse_without_proxy(buildkit)
