"""Check that a registry has an image that BuildKit pushed.

BuildKit accepts any 2xx from a registry. If a host answers each request with 200 and a web page,
such as a sign-on proxy, BuildKit concludes that it has all layers and stored the manifest. So the
registry is asked for the tag after the push, and the build fails if the answer is not a manifest.

BuildKit sends this request, because it has the network, proxies, authorities and mirrors of the
push, and gets the credentials from the session. It asks for the tag, because it would answer a
request for the digest from its own store.

The check is a solve, which takes a quarter of the time of a small cached build. So each repository
is checked once in `TRUST_SECONDS` for each BuildKit, because such a proxy answers for a whole host.
An inconclusive answer does not fail the build.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog

from aiobuildkit import Auth, BuildKitError, Client, Exporter, SolveError, StatusCode
from function_builder.builds.failures import Doubt, doubt_of_push
from function_builder.contract.references import full_repository, split_reference

_log = structlog.get_logger(__name__)

TRUST_SECONDS: Final = 600.0
MAX_TRUSTED: Final = 10_000
"""Repositories that are remembered; with more, checks are more frequent."""

ANSWER_SECONDS: Final = 10.0
RETRY_DELAYS: Final = (0.0, 1.0, 2.0)
"""Seconds before each attempt, because replicas of a registry may not know a new tag at once."""


class Pushes:
    """Asks registries for pushed images, and remembers the repositories that had them.

    Args:
        clock: seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: dict[tuple[str, str], float] = {}

    async def check(self, client: Client, exporters: Iterable[Exporter], auth: Auth) -> None:
        """Check the pushed images, except in repositories that were checked recently.

        Args:
            client: of the BuildKit that pushed.
            exporters: of the build.
            auth: credentials for the registries.

        Raises:
            SolveError: a registry does not have an image; the text is like that of a failed push.
        """
        for name in _pushed(exporters):
            key = (client.address, full_repository(name))
            asked = self._asked.pop(key, None)
            if asked is None or self._clock() - asked > TRUST_SECONDS:
                await self._check(client, name, auth)
                asked = self._clock()
            # Moved to the end, so that the oldest ones are first.
            self._asked[key] = asked
            if len(self._asked) > MAX_TRUSTED:
                del self._asked[next(iter(self._asked))]

    async def _check(self, client: Client, name: str, auth: Auth) -> None:
        tag = split_reference(name)[1] or "latest"
        doubt: Doubt | None = None
        for delay in RETRY_DELAYS:
            await asyncio.sleep(delay)
            doubt = await self._ask(client, f"{full_repository(name)}:{tag}", auth)
            if doubt is not Doubt.ABSENT:
                break
        if doubt:
            raise SolveError(StatusCode.UNKNOWN, f"failed to push {name}: {doubt}")

    async def _ask(self, client: Client, reference: str, auth: Auth) -> Doubt | None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await client.resolve_image(reference, attachables=[auth])
        except SolveError as error:
            doubt = doubt_of_push(error.message)
            if doubt is None:
                _log.info("a push could not be confirmed", image=reference, reason=error.message)
            return doubt
        except (BuildKitError, TimeoutError) as error:
            reason = str(error) or f"no answer within {ANSWER_SECONDS:.0f} s"
            _log.info("a push could not be confirmed", image=reference, reason=reason)
        return None


def _pushed(exporters: Iterable[Exporter]) -> Sequence[str]:
    return [
        name
        for exporter in exporters
        if exporter.attrs.get("push") == "true"
        for name in exporter.attrs.get("name", "").split(",")
        if name
    ]
