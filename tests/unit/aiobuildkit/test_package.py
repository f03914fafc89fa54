"""The package's names, each of which is imported when it is first used."""

import subprocess
import sys
from importlib import import_module

import pytest

import aiobuildkit

PROGRAM = "import sys; {}; print(*sys.modules)"


def loaded(statement: str) -> set[str]:
    """The modules of a new process after one statement."""
    command = [sys.executable, "-c", PROGRAM.format(statement)]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_each_name_is_that_of_its_module():
    modules = vars(aiobuildkit)["_MODULES"]
    assert set(modules) == set(aiobuildkit.__all__)
    assert set(aiobuildkit.__all__) <= set(dir(aiobuildkit))
    for name in aiobuildkit.__all__:
        module = import_module(f"aiobuildkit.{modules[name]}")
        assert name in module.__all__
        assert getattr(aiobuildkit, name) is getattr(module, name)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    name = "Cleint"
    with pytest.raises(AttributeError, match=f"'aiobuildkit' has no attribute '{name}'"):
        getattr(aiobuildkit, name)


def test_the_matcher_of_ignore_files_loads_neither_asyncio_nor_protobuf():
    modules = loaded("from aiobuildkit.fsutil.ignorefile import ignore_matcher")
    assert modules.isdisjoint({"asyncio", "google.protobuf", "aiobuildkit.client"})
    assert {"asyncio", "google.protobuf"} <= loaded("from aiobuildkit import Client")
