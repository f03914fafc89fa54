"""Server-sent events (WHATWG HTML, 9.2), written and read, for a build's log.

One event is one line of the log: `id` is its number, `data` its text. A comment is a heartbeat.
The last event is `end`, whose data is the build's document; it has no id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

EVENT_STREAM: Final = "text/event-stream"
LAST_EVENT_ID_HEADER: Final = "Last-Event-ID"
END: Final = "end"
HEARTBEAT: Final = b":\n\n"

_LINE_END: Final = re.compile("\r\n|\n|\r")
_MAX_EVENT_CHARS: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        data: its text; each end of a line in it is read back as a newline.
        name: its type; empty for an ordinary one.
        id: the value of `Last-Event-ID` to resume after it; empty without one.
    """

    data: str
    name: str = ""
    id: str = ""

    def to_bytes(self) -> bytes:
        """The event as it is sent."""
        fields = [f"event: {self.name}"] if self.name else []
        fields += [f"id: {self.id}"] if self.id else []
        fields += [f"data: {line}" for line in _LINE_END.split(self.data)]
        return ("\n".join(fields) + "\n\n").encode("utf-8", "replace")


class EventParser:
    """Reads events out of a stream that comes in pieces; an event that is cut off is dropped."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []
        self._chars = 0
        self._name = self._id = ""

    def receive_data(self, piece: bytes) -> Iterator[Event]:
        """Yield the events that are complete now.

        Raises:
            ValueError: an event exceeds 1 Mi characters.
        """
        text = self._rest + piece
        # A carriage return at the end may be half of a line end.
        held = b"\r" if text.endswith(b"\r") else b""
        *lines, self._rest = re.split(b"\r\n|\n|\r", text[: len(text) - len(held)])
        self._rest += held
        if len(self._rest) > _MAX_EVENT_CHARS:
            raise ValueError("an event is too long")
        for line in lines:
            if event := self._line(line.decode("utf-8", "replace")):
                yield event

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._chars += len(value)
            if self._chars > _MAX_EVENT_CHARS:
                raise ValueError("an event is too long")
        elif name == "event":
            self._name = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> Event | None:
        event = Event("\n".join(self._data), self._name, self._id) if self._data else None
        self._data, self._chars = [], 0
        self._name = self._id = ""
        return event
