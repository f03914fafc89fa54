"""What can go wrong with the programs that the engine runs.

EngineError
├── ToolMissing      a program is not installed
├── AddressTaken     something else listens there
├── RootlessRefused  this machine does not let an ordinary user run BuildKit
└── StartFailed      a program ended, or stayed silent, instead of getting ready

Each one's text is a single line that says what to do, fit to be a command's last line.
"""


class EngineError(Exception):
    """A program of the engine cannot run; the text says why and what helps."""


class ToolMissing(EngineError):
    """A program is neither on PATH nor in the tools cache."""


class AddressTaken(EngineError):
    """Another program listens on an address that one of ours needs."""

    def __init__(self, address: str) -> None:
        super().__init__(f"{address} is taken by another program")
        self.address = address


class RootlessRefused(EngineError):
    """User namespaces, the maps they need, or a network are refused to this user."""


class StartFailed(EngineError):
    """A program did not become ready."""
