"""Offers of generations in two key-value buckets, `contents` and `buildkits`.

`buildkits/offers.py` has the reasons. The key of an offer is a digest of BuildKit's identity and of
the function. Its value is a small document. The generation is in parts beside it, because a message
of NATS has at most 1 MiB. An empty value means that a build has claimed the offer.

A BuildKit that was unreachable may have lost files. So each BuildKit has an era. Builders that get
answers from it renew the era; otherwise it expires. A builder that got no answer starts a new era.
An offer of another era is ignored.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, NamedTuple

import structlog

from function_builder.buildkits.daemon import Daemon
from function_builder.buildkits.offers import Claim
from function_builder.context.generations import Generation, decode, encode
from function_builder.queue.bucket import Bucket
from function_builder.queue.connection import Changed, Full, Unavailable
from function_builder.queue.jetstream import JetStream

_log = structlog.get_logger(__name__)

_KEPT_SECONDS: Final = 24 * 3600.0
_ERA_SECONDS: Final = 30.0
"""If BuildKit answers no builder for this time, it has a new era."""

_RENEWAL_SECONDS: Final = 5.0
_PATIENCE_SECONDS: Final = 2.0
"""How long a build waits for NATS."""

_SIZES: Final = (64 << 20, 16 << 20, 4 << 20)
"""Bytes of all offers, of which the oldest are removed first. 10,000 files take about half a MiB.
NATS reserves the first size that the account has room for."""

_PART_BYTES: Final = 512 * 1024
_ATTEMPTS: Final = 3


class _Era(NamedTuple):
    """The era of a BuildKit.

    Attributes:
        name: as all builders know it.
        own: that of this builder's records.
    """

    name: str
    own: object


class StoredOffers:
    """The buckets.

    Args:
        jetstream: a connection.
        replicas: on how many servers each value is kept.
        daemons: all BuildKits of this builder.
    """

    def __init__(
        self, jetstream: JetStream, replicas: int, daemons: Callable[[], Iterable[Daemon]]
    ) -> None:
        self._jetstream = jetstream
        self._daemons = daemons
        self._contents = Bucket(
            *(jetstream, "contents"), kept=_KEPT_SECONDS, replicas=replicas, sizes=_SIZES
        )
        self._buildkits = Bucket(jetstream, "buildkits", kept=_ERA_SECONDS, replicas=replicas)
        self._eras: dict[str, _Era] = {}
        self._has_room = True

    async def watch(self) -> None:
        """Renew the eras of the BuildKits that answer, forever."""
        while True:
            for daemon in list(self._daemons()):
                if daemon.reachable and self._jetstream.connected:
                    with suppress(Unavailable, Changed):
                        await self._renew(daemon)
            await asyncio.sleep(_RENEWAL_SECONDS)

    async def look(self, daemon: Daemon, cache_scope: str) -> None:
        """As `Offers.look`."""
        await self._within(daemon, cache_scope, claims=False)

    async def claim(self, daemon: Daemon, cache_scope: str) -> Claim | None:
        """As `Offers.claim`."""
        return await self._within(daemon, cache_scope, claims=True)

    async def offer(self, claim: Claim, generation: Generation) -> bool:
        """As `Offers.offer`."""
        if generation.era is not claim.records.era or not self._jetstream.connected:
            return True
        value, parts = await asyncio.to_thread(_written, generation, claim.era)
        if not value:
            return True
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                subject = self._subject(claim.key)
                last = await self._jetstream.last(self._contents.stream, subject) if parts else None
                if last is not None and last.sequence != claim.version:
                    # Its parts would replace those of a later offer.
                    return True
                for number, part in enumerate(parts):
                    await self._jetstream.publish(self._subject(claim.key, number), part)
                version = await self._jetstream.publish(subject, value, last=claim.version)
        except Changed:
            # Another build of the function has claimed it, whose generation is the later one.
            return True
        except (Unavailable, TimeoutError) as error:
            _log.warning("a record of content is lost", reason=str(error) or "no answer")
            return False
        generation.version = version
        generation.offer = generation.written, value
        return True

    async def _within(self, daemon: Daemon, cache_scope: str, *, claims: bool) -> Claim | None:
        if self._jetstream.connected:
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    return await self._exchange(daemon, cache_scope, claims=claims)
            except (Unavailable, Changed, TimeoutError, ValueError) as error:
                _log.debug("the records of other builders are not known", reason=str(error))
        # Another builder may have claimed it.
        daemon.records.withdraw(cache_scope, own=False)
        return None

    async def _exchange(self, daemon: Daemon, cache_scope: str, *, claims: bool) -> Claim | None:
        key = hashlib.sha256(f"{daemon.identity}\0{cache_scope}".encode()).hexdigest()[:32]
        for _ in range(_ATTEMPTS):
            with suppress(Changed):
                era = self._eras.get(daemon.identity)
                if era is None or era.own is not daemon.records.era:
                    era = await self._renew(daemon)
                version = await self._look(daemon, cache_scope, key, era)
                if not claims:
                    return None
                claimed = await self._jetstream.publish(self._subject(key), b"", last=version)
                daemon.records.withdraw(cache_scope, own=True)
                return Claim(daemon.records, key, claimed, era.name)
        raise Changed

    async def _look(self, daemon: Daemon, cache_scope: str, key: str, era: _Era) -> int:
        """The version of the offer's key; the offer is then in the records, if it is one."""
        subject, records = self._subject(key), daemon.records
        stored = await self._jetstream.last(self._contents.stream, subject)
        if stored is not None and stored.data and records.offered(cache_scope) == stored.sequence:
            return stored.sequence
        records.withdraw(cache_scope, own=False)
        if stored is None or not stored.data:
            return 0 if stored is None else stored.sequence
        value = json.loads(stored.data)
        if value["era"] == era.name:
            subjects = [self._subject(key, number) for number in range(value["parts"])]
            found = await self._jetstream.last_of(self._contents.stream, subjects)
            parts = {part.subject: part.data for part in found}
            data = b"".join(parts.get(name, b"") for name in subjects)
            # Parts are of another offer if two builds ended at once, or if the oldest were removed.
            if hashlib.sha256(data).hexdigest() == value["digest"]:
                generation = await asyncio.to_thread(decode, data, era.own)
                generation.version = stored.sequence
                generation.offer = generation.written, stored.data
                records.adopt(cache_scope, generation)
        return stored.sequence

    async def _renew(self, daemon: Daemon) -> _Era:
        """Write the era of a BuildKit that answers this builder.

        Raises:
            Unavailable: it is not written.
            Changed: another builder has just written it, and this one starts a new one.
        """
        await self._prepare()
        own, known = daemon.records.era, self._eras.get(daemon.identity)
        key = hashlib.sha256(daemon.identity.encode()).hexdigest()[:32]
        subject = f"{self._buildkits.subjects}.{key}"
        stored = await self._jetstream.last(self._buildkits.stream, subject)
        lost = known is not None and known.own is not own
        name = secrets.token_hex(8) if stored is None or lost else stored.data.decode()
        last = 0 if stored is None else stored.sequence
        try:
            await self._jetstream.publish(subject, name.encode(), last=last)
        except Changed:
            # Another builder, or this one, has just written it. Only a new era must fail here.
            stored = await self._jetstream.last(self._buildkits.stream, subject)
            if stored is None or lost:
                raise
            name = stored.data.decode()
        era = self._eras[daemon.identity] = _Era(name, own)
        return era

    async def _prepare(self) -> None:
        """Create the buckets.

        Raises:
            Full: there is no room. It is not tried again, because each build would.
            Unavailable: JetStream did not create them for another reason.
        """
        if not self._has_room:
            raise Full("no room")
        try:
            await self._contents.prepare()
        except Full as error:
            self._has_room = False
            _log.warning(
                "NATS has no room for the records of contexts, so this builder does not share"
                " them: raise the storage limit of its account, and restart the builder",
                needs_bytes=_SIZES[-1],
                reason=str(error),
            )
            raise
        await self._buildkits.prepare()

    def _subject(self, key: str, part: int | None = None) -> str:
        name = f"{self._contents.subjects}.{key}"
        return name if part is None else f"{name}.{part}"


def _written(generation: Generation, era: str) -> tuple[bytes, list[bytes]]:
    """The value of an offer, and the parts to write before it; b"": it is too large."""
    written, value = generation.offer
    if value and written == generation.written and json.loads(value)["era"] == era:
        return value, []
    data = encode(generation)
    if data is None:
        return b"", []
    parts = [data[start : start + _PART_BYTES] for start in range(0, len(data), _PART_BYTES)]
    document = {"era": era, "parts": len(parts), "digest": hashlib.sha256(data).hexdigest()}
    return json.dumps(document).encode(), parts
