"""The test double of the queue's port behaves as the port."""

import pytest

from tests.support.memory_builds import MemoryBuilds
from tests.support.port_behavior import PortBehavior


@pytest.fixture
def builds() -> MemoryBuilds:
    return MemoryBuilds()


class TestMemoryBuilds(PortBehavior):
    pass
