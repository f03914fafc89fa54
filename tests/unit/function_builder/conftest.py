from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.issuer import Issuer, running_issuer
from tests.unit.function_builder.scripted_builder import Answer, ScriptedBuilder, running


@pytest.fixture
def builder_that() -> Iterator[Callable[..., ScriptedBuilder]]:
    """Start a builder that gives these answers."""
    with ExitStack() as stack:
        yield lambda *answers: stack.enter_context(running(ScriptedBuilder(list[Answer](answers))))


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """An OpenID Connect issuer that runs."""
    with running_issuer() as running:
        yield running


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    """A directory that can be built."""
    directory = tmp_path / "hello"
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM busybox\nRUN echo hello\n")
    return directory
