"""The errors of the programs that the engine runs.

EngineError
├── ToolMissing      a program is not installed
├── AddressTaken     another program listens there
├── RootlessRefused  this machine does not let a user without root run BuildKit
└── StartFailed      a program ended, or did not answer

Each text is a single line that says what to do, and can be the last line of a command.
"""

from __future__ import annotations


class EngineError(Exception):
    """A program of the engine cannot run; the text says why, and what to do."""


class ToolMissing(EngineError):
    """A program is neither on PATH nor in the cache of tools."""


class AddressTaken(EngineError):
    """Another program listens on an address that one of ours needs."""

    def __init__(self, address: str) -> None:
        super().__init__(f"{address} is taken by another program")
        self.address = address


class RootlessRefused(EngineError):
    """This user may not use user namespaces, their ID maps, or a network."""


class StartFailed(EngineError):
    """A program did not become ready."""
