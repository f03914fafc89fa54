"""The issuers that are trusted now, and their keys.

Keys are read before a token needs them, and again every 10 minutes. A token with an unknown key has
them read at once, but each issuer is asked at most every 30 seconds, whatever tokens arrive. While
an issuer does not answer, its known keys are accepted for one more day.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import structlog

from function_builder.contract.errors import shown
from function_builder.oidc.fetch import IssuerError, fetch_keys
from function_builder.oidc.keys import Key, Keys, Rejected, read_header, verified
from function_builder.oidc.trust import Issuer

FRESH_SECONDS: Final = 600.0
FLOOR_SECONDS: Final = 30.0
"""Seconds between the starts of two fetches from one issuer."""

KEPT_SECONDS: Final = 86_400.0
"""Seconds for which keys are used after the last answer of their issuer."""

WAIT_SECONDS: Final = 1.0
"""Seconds for which a token waits for its key. The fetch continues after it, for the next token."""

Fetch: TypeAlias = Callable[[Issuer], Awaitable[Keys]]
"""Reads an issuer's keys, or raises IssuerError."""

_log = structlog.get_logger(__name__)


class IssuerKeys:
    """The keys of one issuer.

    Args:
        issuer: of the keys.
        fetch: reads them.
        clock: in seconds.
        failed: called with the issuer's URL when its keys cannot be read.
    """

    def __init__(
        self,
        issuer: Issuer,
        fetch: Fetch = fetch_keys,
        clock: Callable[[], float] = time.monotonic,
        failed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._keys: Keys = {}
        self._failed = failed
        self._begun = clock()
        self._asked = self._read = float("-inf")
        self._task: asyncio.Task[None] | None = None

    @property
    def age(self) -> float:
        """Seconds since the keys were read; since the start if they never were."""
        return self._clock() - max(self._read, self._begun)

    async def find(self, kid: str) -> Key | None:
        """The key of a token; None if the issuer has no such key, or does not answer."""
        if (key := self._known(kid)) is None:
            self._ask()
            if self._task is not None:
                await asyncio.wait([self._task], timeout=WAIT_SECONDS)
            key = self._known(kid)
        return key

    def refresh(self) -> None:
        """Start to read the keys again if they are old."""
        if self._clock() - self._read >= FRESH_SECONDS:
            self._ask()

    def close(self) -> None:
        """Cancel a running fetch."""
        if self._task is not None:
            self._task.cancel()

    def _known(self, kid: str) -> Key | None:
        if self._clock() - self._read >= KEPT_SECONDS:
            self._keys = {}
        if not kid and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    def _ask(self) -> None:
        now = self._clock()
        if self._task is None and now - self._asked >= FLOOR_SECONDS:
            self._asked = now
            self._task = asyncio.create_task(self._update(now), name="oidc keys")

    async def _update(self, now: float) -> None:
        try:
            self._keys = await self._fetch(self.issuer)
            self._read = now
        except IssuerError as error:
            self._failed(self.issuer.url)
            _log.warning(
                "the keys of an OIDC issuer cannot be read: its known keys are still accepted",
                issuer=self.issuer.url,
                why=str(error),
                known=len(self._keys),
            )
        finally:
            self._task = None


class Issuers:
    """All issuers that are trusted.

    Args:
        fetch: reads an issuer's keys.
        failed: called with the URL of an issuer whose keys cannot be read.
    """

    def __init__(
        self, fetch: Fetch = fetch_keys, failed: Callable[[str], None] = lambda _: None
    ) -> None:
        self._fetch = fetch
        self._failed = failed
        self._by_url: dict[str, IssuerKeys] = {}

    def use(self, issuers: Iterable[Issuer]) -> None:
        """Trust only these issuers. The keys of an issuer that stays are kept."""
        old, self._by_url = self._by_url, {}
        for issuer in issuers:
            known = old.get(issuer.url)
            keep = known is not None and known.issuer == issuer
            self._by_url[issuer.url] = (
                known
                if keep and known is not None
                else IssuerKeys(issuer, self._fetch, failed=self._failed)
            )
        kept = set(self._by_url.values())
        for keys in old.values():
            if keys not in kept:
                keys.close()

    def refresh(self) -> None:
        """Start to read keys that are old."""
        for keys in self._by_url.values():
            keys.refresh()

    def ages(self) -> Mapping[str, float]:
        """Seconds since the keys of each issuer were read, by its URL."""
        return {url: keys.age for url, keys in self._by_url.items()}

    def close(self) -> None:
        """Trust none."""
        self.use(())

    async def verify(self, token: str) -> Mapping[str, Any]:
        """The claims of a token of a trusted issuer; the audience is not checked.

        Raises:
            Rejected: it is not valid, or its key is not known.
        """
        header = read_header(token)
        keys = self._by_url.get(header.issuer)
        if keys is None:
            raise Rejected(f"its issuer {shown(header.issuer)} is not trusted")
        key = await keys.find(header.kid)
        if key is None:
            raise Rejected(f"{header.issuer} has no key {shown(header.kid)} that is known here")
        return verified(token, header.issuer, key)
