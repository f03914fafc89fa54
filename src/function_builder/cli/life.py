"""What `up` shows of builds: a line for each as it is queued, starts and ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

from function_builder.cli.steps import printable

_MAX_ERROR_CHARS: Final = 200


class Life:
    """A processor of log lines that also shows each event of a build on a line.

    Args:
        url: the builder's, for the link to a build's page.
        say: shows a line.
        clock: seconds since the epoch.
    """

    def __init__(
        self, url: str, say: Callable[[str], None], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._url = url
        self._say = say
        self._clock = clock
        self._begun = False

    def begin(self) -> None:
        """Show builds from now on. The example before has a view of its own."""
        self._begun = True

    def __call__(
        self,
        _logger: structlog.typing.WrappedLogger,
        _method: str,
        event: structlog.typing.EventDict,
    ) -> structlog.typing.EventDict:
        """Show a line of the log, if it is about a build; returns it as it was."""
        if self._begun and (text := self._line(event)):
            at = time.strftime("%H:%M:%S", time.localtime(self._clock()))
            self._say(f"{at}  {printable(text)}")
        return event

    def _line(self, event: structlog.typing.EventDict) -> str:
        image = event.get("image") or "an image that is not pushed"
        sender = f"from {event['client']}" if event.get("client") else ""
        match event.get("event"):
            case "build queued":
                return f"queued     {image}  {sender}"
            case "build started":
                return f"started    {image}  {sender}"
            case "build ended":
                page = f"{self._url}/web/builds/{event.get('build')}"
                took = f"{event.get('seconds', 0):.1f} s"
                error = str(event.get("error") or "").partition("\n")[0][:_MAX_ERROR_CHARS]
                said = f"  {error}" if error else ""
                return f"{event.get('outcome'):<9}  {image}  {took}{said}  {page}"
            case "build refused":
                return f"refused    {event.get('error')}  {sender}"
        return ""
