"""A client that blocks its thread: no event loop, and HTTP/1.1 on a socket of its own.

It is for one short process. It uses no proxy (`has_proxy`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from function_builder.client.address import LOCAL_HOSTS, Address
from function_builder.client.http1 import SocketNetwork
from function_builder.client.runtime import NetworkSettings

_T = TypeVar("_T")


class Blocking:
    """Waits in the calling thread; what it returns is done when it is awaited."""

    async def call(self, function: Callable[[], _T]) -> _T:
        """Call a function."""
        return function()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)  # noqa: ASYNC251 (there is no loop)

    def calling_back(self) -> Callable[..., object]:
        """What calls a function."""
        return _call

    def network(self, settings: NetworkSettings) -> SocketNetwork:
        """A connection for each request."""
        return SocketNetwork(settings)


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine of a client that blocks, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        result: _T = ended.value
        return result
    coroutine.close()
    raise RuntimeError("the coroutine waits for an event loop")


def has_proxy(url: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment may name a proxy for an address, so that it needs `OnAsyncio`."""
    if Address.parse(url).host in LOCAL_HOSTS:
        return False
    return any(value and name.lower().endswith("_proxy") for name, value in environment.items())


def _call(function: Callable[..., object], *args: object) -> None:
    function(*args)
