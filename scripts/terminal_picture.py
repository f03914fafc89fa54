"""What a command shows on a terminal, as HTML: `make screenshots` takes a picture of it."""

import asyncio
import fcntl
import io
import os
import pty
import re
import struct
import termios
from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

COLUMNS: Final = 92
ROWS: Final = 40

_THEME: Final = TerminalTheme(
    (22, 24, 29),
    (217, 217, 217),
    [
        *((72, 79, 88), (255, 123, 114), (126, 231, 135), (240, 196, 110)),
        *((121, 192, 255), (210, 168, 255), (86, 212, 221), (217, 217, 217)),
    ],
)

_PART: Final = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")

_PAGE: Final = """\
<!doctype html>
<meta charset="utf-8">
<style>
  body {{ margin: 0; background: #16181d; color: #d9d9d9; padding: 18px 22px;
    width: {columns}ch; font: 15px/1.45 "DejaVu Sans Mono", monospace; }}
  pre {{ margin: 0; font: inherit; white-space: pre-wrap; overflow-wrap: anywhere; }}
  .prompt {{ color: #7bd79b; font-weight: 700; }}
</style>
<pre><span class="prompt">$ </span>{command}
{output}</pre>
"""


class Screen:
    """The lines of a terminal, for what Rich writes: text, colors, and lines that it erases."""

    def __init__(self) -> None:
        self._lines = [""]
        self._row = 0

    def feed(self, text: str) -> None:
        """Take in what a program wrote."""
        for number, final, control, plain in _PART.findall(text):
            if control == "\n":
                self._row += 1
                if self._row == len(self._lines):
                    self._lines.append("")
            elif final == "A":
                self._row = max(0, self._row - int(number or 1))
            elif final == "K":
                self._lines[self._row] = ""
            elif final == "m":
                self._lines[self._row] += f"\x1b[{number}m"
            else:
                self._lines[self._row] += plain

    def text(self) -> Text:
        """The lines, with their colors."""
        return Text("\n").join(Text.from_ansi(line) for line in self._lines)


async def run(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run a command on a terminal of its own; returns all that it wrote, in the end's order."""
    above, below = pty.openpty()
    fcntl.ioctl(below, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=below,
        stdout=below,
        stderr=below,
        env=os.environ | {"TERM": "xterm-256color"} | environment,
    )
    os.close(below)
    written = await asyncio.to_thread(_read_all, above)
    await process.wait()
    return written.decode()


def page(shown: str, written: str) -> str:
    """A page with a command as it is typed, and what it left on the screen."""
    screen = Screen()
    screen.feed(written)
    console = Console(record=True, file=io.StringIO(), width=10_000)
    console.print(screen.text(), soft_wrap=True)
    output = console.export_html(theme=_THEME, inline_styles=True, code_format="{code}")
    return _PAGE.format(columns=COLUMNS, command=shown, output=output.rstrip())


def _read_all(descriptor: int) -> bytes:
    read = b""
    try:
        while data := os.read(descriptor, 65536):
            read += data
    except OSError:
        pass  # The command has ended, and with it the other side of the terminal.
    finally:
        os.close(descriptor)
    return read
