"""The HTML of the web pages.

Jinja escapes each value, and no template marks one as safe: every text of a build is a tenant's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from function_builder.contract.builds import BuildInfo, BuildState, rfc3339
from function_builder.server.buildkits import UNPRUNED_KINDS, Pruned
from function_builder.server.web.answers import Frame
from function_builder.server.web.usage import Month, by_tenant

_FUNCTION_PORT: Final = 8080
"""The port of OpenFaaS' functions."""


class Pages:
    """Renders the pages.

    Each method returns a whole document.

    Args:
        signed: whether a browser has to sign in.
    """

    def __init__(self, *, signed: bool) -> None:
        self._environment = Environment(
            loader=PackageLoader(__package__),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "clock": _clock,
            "rfc3339": rfc3339,
            "seconds": _seconds,
            "took": _took,
        }
        self._environment.globals |= {
            "kept_kinds": UNPRUNED_KINDS,
            "signed": signed,
            "states": [state.value for state in BuildState],
            "version": version("function-builder"),
        }

    def list(
        self,
        frame: Frame,
        *,
        builds: Sequence[BuildInfo],
        cursor: str,
        status: str,
        repository: str,
        first: bool,
        unready: str,
    ) -> str:
        """The list of builds.

        Args:
            frame: of the page.
            builds: of this page.
            cursor: of the next page; empty on the last one.
            status: the filter's word; empty without one.
            repository: the filter's name; empty without one.
            first: whether it is the first page, which shows new builds.
            unready: why no build can be queued now; empty if one can.
        """
        return self._render(
            "builds.html",
            frame,
            builds=builds,
            cursor=cursor,
            status=status,
            repository=repository,
            first=first,
            unready=unready,
        )

    def build(self, frame: Frame, info: BuildInfo, *, may_build: bool) -> str:
        """One build; its script reads the log.

        Args:
            frame: of the page.
            info: the build.
            may_build: whether the browser may cancel it and build it again.
        """
        pinned = _pinned(info)
        name = info.repository.rpartition("/")[2]
        commands = (
            [
                f"docker run --rm -p {_FUNCTION_PORT}:{_FUNCTION_PORT} {pinned}",
                f"faas-cli deploy --name {name} --image {pinned}",
            ]
            if pinned
            else []
        )
        return self._render(
            "build.html",
            frame,
            build=info,
            pinned=pinned,
            commands=commands,
            may_build=may_build,
        )

    def buildkits(self, frame: Frame, found: Mapping[str, object]) -> str:
        """The BuildKits.

        Args:
            frame: of the page.
            found: the API's document.
        """
        return self._render("buildkits.html", frame, **found)

    def prune(self, frame: Frame, *, address: str, kind: str, pruned: Pruned | None = None) -> str:
        """The question whether to prune a cache, or what was done.

        Args:
            frame: of the page.
            address: of the BuildKit.
            kind: of the records; empty: all.
            pruned: what was removed; None: the browser is asked first.
        """
        return self._render("prune.html", frame, address=address, kind=kind, pruned=pruned)

    def usage(self, frame: Frame, found: Mapping[str, object], month: Month) -> str:
        """What tenants used in a month.

        Args:
            frame: of the page.
            found: the API's document.
            month: of the page.
        """
        rows = by_tenant(found)
        return self._render(
            "usage.html", frame, rows=rows, month=month, since=found.get("since", "")
        )

    def sign_in(self, frame: Frame, fault: str, *, has_tenants: bool, start: str) -> str:
        """The page that asks for a token.

        Args:
            frame: of the page.
            fault: why a token was refused; empty: none was.
            has_tenants: whether a bearer token may be pasted.
            start: where a sign-in at an issuer begins; empty: there is none.
        """
        return self._render(
            "sign-in.html", frame, fault=fault, has_tenants=has_tenants, start=start
        )

    def error(self, frame: Frame, *, title: str, text: str) -> str:
        """A refusal."""
        return self._render("error.html", frame, title=title, text=text)

    def _render(self, name: str, frame: Frame, **values: object) -> str:
        return self._environment.get_template(name).render(frame._asdict() | values)


def _pinned(info: BuildInfo) -> str:
    """The image with its digest; empty if the build pushed none."""
    if info.state is not BuildState.SUCCESS or info.result is None or not info.image:
        return ""
    return f"{info.image}@{info.result.digest}" if info.result.digest else info.image


def _clock(seconds: float) -> str:
    """A time for people, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _took(info: BuildInfo) -> str:
    """How long a build has run; empty before its start."""
    if info.started is None:
        return ""
    until = time.time() if info.ended is None else info.ended
    return _seconds(max(0.0, until - info.started))


def _seconds(seconds: float) -> str:
    """A duration for people: 0.42 s, 12.3 s, 2 min 05 s, 1 h 02 min."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(math.floor(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"
