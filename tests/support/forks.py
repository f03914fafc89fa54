"""Commands of this project, each in a process forked from one that has loaded them.

To start Python and to load the server takes 0.4 s of processor time, a fork hardly any; a run of
the tests starts some hundreds of builders. What runs in a fork is what `python -m function_builder`
runs, with arguments, an environment, files and signals of its own. That the command starts by
itself is for tests/integration/test_serve.py.

This file is the program of the process that forks, too: it has one thread and no event loop.
"""

import asyncio
import atexit
import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from typing import IO, Any

import function_builder.cli

BOUNDS = "tests_bounds"
"""A variable of a command's environment: values, by `module.NAME`, for constants that are no
settings. A test sets them so that it need not compute for as long as they allow."""

_PR_SET_PDEATHSIG = 1
_MAX_MESSAGE = 1 << 17


class Forked:
    """A process, as `asyncio.subprocess.Process` is one.

    Attributes:
        returncode: None while it runs.
    """

    def __init__(self, control: socket.socket) -> None:
        message, (pidfd,), *_ = socket.recv_fds(control, 16, 1)
        self.pid = int(message)
        self.returncode: int | None = None
        self._pidfd = pidfd
        self._control = control
        self._ended = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        self._control.setblocking(False)
        with self._control:
            status = await asyncio.get_running_loop().sock_recv(self._control, 16)
        self.returncode = int(status)
        os.close(self._pidfd)

    async def wait(self) -> int:
        """Wait for its end; gives its return code, a signal's number with a minus."""
        await asyncio.shield(self._ended)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal.

        Raises:
            ProcessLookupError: it has ended.
        """
        if self.returncode is not None:
            raise ProcessLookupError
        signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


async def fork(*arguments: str, environment: Mapping[str, str], output: IO[bytes]) -> Forked:
    """Run a command in a process that ends with this one; what it prints goes to a file."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    request = {"argv": ["function-builder", *arguments], "environment": dict(environment)}
    with theirs:
        files = [theirs.fileno(), output.fileno()]
        socket.send_fds(_forker(), [json.dumps(request).encode()], files)
    return Forked(ours)


@cache
def _forker() -> socket.socket:
    """Start the process that forks, once in each process that tests."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            # Without the folder of this file among those of modules.
            [sys.executable, "-P", __file__, str(theirs.fileno())],
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def _serve(requests: socket.socket) -> dict[str, Any]:
    """Fork for each request; returns in what was forked, and never in the process that forks."""
    children: dict[int, tuple[int, socket.socket]] = {}
    waiting = select.poll()
    waiting.register(requests, select.POLLIN)
    while True:
        for ready, _ in waiting.poll():
            if ready in children:
                waiting.unregister(ready)
                pid, control = children.pop(ready)
                os.close(ready)
                _, status = os.waitpid(pid, 0)
                with control, contextlib.suppress(OSError):
                    control.send(b"%d" % os.waitstatus_to_exitcode(status))
                continue
            message, files, *_ = socket.recv_fds(requests, _MAX_MESSAGE, 2)
            if not message:
                # The process that tests has ended, and what was forked ends with this one.
                sys.exit()
            control = socket.socket(fileno=files[0])
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                for pidfd, (_, other) in children.items():
                    os.close(pidfd)
                    other.close()
                control.close()
                requests.close()
                _become(parent, files[1])
                request: dict[str, Any] = json.loads(message)
                return request
            pidfd = os.pidfd_open(pid)
            children[pidfd] = (pid, control)
            waiting.register(pidfd, select.POLLIN)
            socket.send_fds(control, [b"%d" % pid], [pidfd])
            os.close(files[1])


def _become(parent: int, output: int) -> None:
    """Print to that file, and end when the parent does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    os.close(output)


def _main() -> None:
    for module in ("cli.serve", "server.queued", "server.spans"):
        importlib.import_module(f"function_builder.{module}")
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["argv"]
    for name, value in json.loads(os.environ.pop(BOUNDS, "{}")).items():
        module, _, constant = name.rpartition(".")
        owner = importlib.import_module(module)
        # A constant that has another name now would bound nothing.
        getattr(owner, constant)
        setattr(owner, constant, value)
    function_builder.cli.main()


if __name__ == "__main__":
    _main()
