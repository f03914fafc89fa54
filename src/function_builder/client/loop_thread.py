"""An event loop in its own thread, for threads without asyncio.

One loop serves all threads that share a client: a loop for each call would need locks around the
connections, and a loop for each thread could not be closed by another.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Generic, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

_CANCEL_SECONDS: Final = 10.0
"""How long an interrupted call waits until its connection is closed."""


class _Call(Generic[_T]):
    """A call of a coroutine function in a loop, while another thread waits for its result.

    `asyncio.run_coroutine_threadsafe` is not used, because its future is done as soon as it is
    cancelled. An interrupted thread must wait until the call has cleaned up.
    """

    def __init__(self, function: Callable[[], Coroutine[Any, Any, _T]]) -> None:
        self.outcome: concurrent.futures.Future[_T] = concurrent.futures.Future()
        self._function = function
        self._task: asyncio.Task[_T] | None = None

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._function())
        self._task.add_done_callback(self._settle)

    def cancel(self) -> None:
        if self._task is None:
            self.outcome.cancel()
        else:
            self._task.cancel()

    def _settle(self, task: asyncio.Task[_T]) -> None:
        if task.cancelled():
            self.outcome.cancel()
        elif error := task.exception():
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(task.result())


class LoopThread:
    """An event loop in a thread of its own, which starts with the first call.

    Args:
        finish: called last in the loop, if it was started.
    """

    def __init__(self, finish: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.closed = False
        self._finish = finish
        self._lock = threading.Lock()
        self._process: int | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    def run(
        self,
        function: Callable[_P, Coroutine[Any, Any, _T]],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Call a coroutine function in the loop, and wait for its result.

        An interrupt of the waiting thread (KeyboardInterrupt) cancels the call.
        """
        # Before the lock: the thread that held it at a fork is not in the child.
        if self._process not in (None, os.getpid()):
            raise RuntimeError("the client was used before a fork: make one in this process")
        if self._thread is threading.current_thread():
            raise RuntimeError("the client was called from its own on_retry")
        call = _Call(functools.partial(function, *args, **kwargs))
        try:
            self._schedule(call.begin)
            return call.outcome.result()
        except concurrent.futures.CancelledError:
            raise RuntimeError(
                "the client was closed before the build ended; the builder cancels the build"
            ) from None
        except BaseException:
            if not call.outcome.done() and self._loop is not None and not self.closed:
                self._loop.call_soon_threadsafe(call.cancel)
                # By then the connection is closed, which cancels the build.
                with suppress(Exception):
                    call.outcome.result(_CANCEL_SECONDS)
            raise

    def _schedule(self, begin: Callable[[], None]) -> None:
        with self._lock:
            if self.closed:
                raise RuntimeError("the client is closed")
            loop = self._loop or self._start()
            loop.call_soon_threadsafe(begin)

    def close(self) -> None:
        """Cancel all calls, and end the thread."""
        if self._process not in (None, os.getpid()):
            self.closed = True
            return
        with self._lock:
            if self._loop is not None and not self.closed:
                self._loop.call_soon_threadsafe(self._stop.set)
            self.closed = True
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _start(self) -> asyncio.AbstractEventLoop:
        begun: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
        # A daemon thread, so that a program that does not close its client can end.
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(begun)), name="function-builder", daemon=True
        )
        self._thread.start()
        self._process = os.getpid()
        self._loop = begun.result()
        return self._loop

    async def _serve(self, begun: concurrent.futures.Future[asyncio.AbstractEventLoop]) -> None:
        begun.set_result(asyncio.get_running_loop())
        await self._stop.wait()
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._finish()
