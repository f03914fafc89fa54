"""Usage in NATS: the sum over all builders, and over their restarts."""

from collections import Counter
from datetime import date

import pytest

from function_builder.contract.usage import Usage
from function_builder.engine import NatsServer
from function_builder.queue.access import Access
from function_builder.queue.jetstream import JetStream
from function_builder.queue.usage import StoredUsage

pytestmark = pytest.mark.integration

DAY, NEXT = date(2026, 11, 29), date(2026, 11, 30)


async def test_each_process_counts_once_and_all_are_summed(tmp_path):
    async with NatsServer(tmp_path / "nats", log=tmp_path / "nats.log") as server:
        jetstream = JetStream(Access(url=server.url))
        await jetstream.connect()
        first, second = (StoredUsage(jetstream, owner, 1) for owner in ("a-1", "a-2"))
        for store in (first, second):
            await store.prepare()
        # The same numbers again, as after an answer that was lost.
        for _ in range(2):
            await first.write(DAY, "acme", Usage(Counter(success=2), 1.5, 100))
        await second.write(DAY, "acme", Usage(Counter(success=1, failed=1), 0.25, 10))
        await second.write(NEXT, "acme", Usage(Counter(lost=1), 0.0, 1))
        await second.write(NEXT, "zeta", Usage(Counter(), 0.0, 7))
        summed = Usage(Counter(success=3, failed=1), 1.75, 110)
        assert await first.read(DAY, DAY, "") == {(DAY, "acme"): summed}
        assert await first.read(DAY, NEXT, "zeta") == {(NEXT, "zeta"): Usage(Counter(), 0.0, 7)}
        assert len(await second.read(DAY, NEXT, "")) == 3
        await jetstream.close()
