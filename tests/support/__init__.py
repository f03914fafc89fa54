"""What tests share that is no fixture."""

import asyncio
import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VECTORS = Path(__file__).parents[1] / "vectors"
"""Requests recorded from real clients, and what opens them."""


# Below where clients' ports begin (ip_local_port_range, ip(7)); not by the tests' own chance, which
# begins anew with each of them.
_ports = iter(random.SystemRandom().sample(range(10_000, 32_768), 22_768))


def free_address() -> str:
    """A loopback `host:port` that nobody listens on, nor anybody is given meanwhile.

    Each is given once: who asks for two has no use for one twice.
    """
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return f"127.0.0.1:{port}"
    raise AssertionError("all ports of 127.0.0.1 are taken")


async def until(condition: Callable[[], object], *, timeout: float = 60) -> None:
    """Wait until `condition` holds, for what tells nobody when it happens, such as a process's end.

    Raises:
        TimeoutError: it did not within `timeout` seconds; says what it gave last.
    """
    deadline = time.monotonic() + timeout
    while not (last := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout:g} s the condition still gives {last!r}")
        await asyncio.sleep(0.05)


async def until_equal(read: Callable[[], object], expected: object, *, timeout: float = 60) -> None:
    """Wait until `read` gives a value, for what another process notes after it has answered.

    A thread calls `read`, so that servers in the test's own loop answer meanwhile.

    Raises:
        TimeoutError: it did not within `timeout` seconds; says what it gave last.
    """
    deadline = time.monotonic() + timeout
    while (last := await asyncio.to_thread(read)) != expected:
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout:g} s it is still {last!r}, not {expected!r}")
        await asyncio.sleep(0.05)


def running(words: str) -> list[int]:
    """The processes, anywhere on this machine, whose command line holds `words`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and words in (entry / "cmdline").read_text(errors="replace"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def is_over(pid: int) -> bool:
    """Whether a process is gone, or only not yet waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "ZX"
    except OSError:
        return True


def children(pid: int) -> list[int]:
    """The processes that one has begun, and that are there yet.

    Raises:
        OSError: it is not there itself.
    """
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


@asynccontextmanager
async def paused(group: int) -> AsyncIterator[None]:
    """Stop the processes of a group meanwhile.

    On a busy machine, threads run on for a while after the signal, and answer.
    """
    os.killpg(group, signal.SIGSTOP)
    try:
        await until(lambda: _states(group) <= {"T", "Z"})
        yield
    finally:
        os.killpg(group, signal.SIGCONT)


def _states(group: int) -> set[str]:
    """The states of all threads of a process group, as in proc_pid_stat(5)."""
    states = set()
    for path in Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
        # A process may end meanwhile.
        with contextlib.suppress(OSError):
            state, _, its_group, *_ = path.read_text().rpartition(") ")[2].split()
            if int(its_group) == group:
                states.add(state)
    return states


@contextmanager
def served(directory: Path, port: int = 0) -> Iterator[str]:
    """A directory's files over HTTP; gives its address, on a free port unless one is named."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = partial(Quiet, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
