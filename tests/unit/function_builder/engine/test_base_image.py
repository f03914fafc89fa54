import pytest

from function_builder.engine import EngineError, find_tool
from function_builder.engine.base_image import is_static, seed_base_image
from tests.support import free_address


async def test_a_registry_that_is_not_there_is_named():
    address = free_address()
    with pytest.raises(EngineError, match=f"^registry {address} did not accept library/busybox"):
        await seed_base_image(address)


def test_a_dynamic_program_is_no_base():
    assert is_static(find_tool("busybox").read_bytes())
    assert not is_static(find_tool("setpriv").read_bytes())
    assert not is_static(b"#!/bin/sh\n")
