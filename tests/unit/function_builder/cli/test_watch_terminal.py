"""`builds --watch` on a terminal, as a person has it."""

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.function_builder.client.fake_builds import SECRET, serving_builds

ROWS, COLUMNS = 24, 100
SECONDS = 60.0
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """The side of a terminal on which a person sits."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.fd, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        # Without a controlling terminal, Ctrl-C would be a byte and no signal.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=os.environ | environment,
        )
        os.close(slave)
        self.read = ""

    def until(self, shown: Callable[[str], bool]) -> str:
        """What has been written since the last call, when it is what is waited for."""
        begin, deadline = len(self.read), time.monotonic() + SECONDS
        while not shown(self.read[begin:]):
            assert time.monotonic() < deadline, self.read
            if select.select([self.fd], [], [], 1)[0]:
                try:
                    data = os.read(self.fd, 65536)
                except OSError:  # The other side is closed.
                    data = b""
                assert data, self.read
                self.read += data.decode(errors="replace")
        return self.read[begin:]

    def press(self, key: bytes) -> None:
        os.write(self.fd, key)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.fd)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[tuple[Terminal, object]]:
    (tmp_path / "secret").write_bytes(SECRET)
    with serving_builds() as builder:
        environment = {
            "OPENFAAS_REMOTE_BUILDER": builder.url,
            "OPENFAAS_PAYLOAD_SECRET": str(tmp_path / "secret"),
            "TERM": "xterm-256color",
        }
        build = builder.add("queued", image="r/hello:1")
        command = [sys.executable, "-m", "function_builder", "builds", "--watch"]
        opened = Terminal(command, environment)
        try:
            yield opened, build
        finally:
            opened.close()


def test_the_table_is_painted_over_and_ctrl_c_ends_it(terminal) -> None:
    opened, build = terminal
    first = opened.until(lambda text: "r/hello:1" in text)
    assert build.id in first
    assert "queued" in first
    assert "\x1b[?25l" in first, "the cursor is hidden"
    build.status = "running"
    again = opened.until(lambda text: "running" in text and "r/hello:1" in text)
    # It goes up to the table's first line and clears the lines on its way.
    assert "\x1b[1A" in again
    assert "\x1b[2K" in again
    assert max(map(len, ESCAPE.sub("", opened.read).splitlines())) <= COLUMNS
    opened.press(b"\x03")
    rest = opened.until(lambda text: "interrupted" in text)
    assert "\x1b[?25h" in opened.read, "the cursor is shown again"
    assert "Traceback" not in rest
    assert opened.process.wait(SECONDS) == 130
