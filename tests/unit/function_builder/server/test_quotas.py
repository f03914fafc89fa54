"""Builds of a tenant in an hour."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.contract.errors import Refusal
from function_builder.contract.tenancy import NO_LIMITS, Limits
from function_builder.queue.port import QueueUnavailable
from function_builder.server.quotas import OverQuota, Quotas


@given(st.integers(1, 50), st.lists(st.integers(0, 900), min_size=1, max_size=200))
async def test_no_hour_has_more_than_twice_the_quota_and_what_was_refused_may_come_later(
    quota, pauses
):
    now = 1.0
    quotas = Quotas(lambda _: Limits(builds_per_hour=quota), lambda: now)
    begun: list[float] = []
    for pause in pauses:
        now += pause
        try:
            await quotas.count("a")
        except OverQuota as refused:
            now += int(refused.headers["Retry-After"])
            await quotas.count("a")
        begun.append(now)
    for first in begun:
        assert sum(first <= each < first + 3600 for each in begun) <= 2 * quota


async def test_a_whole_hour_may_be_used_at_once_and_then_one_by_one():
    now = 1.0
    quotas = Quotas(lambda _: Limits(builds_per_hour=60), lambda: now)
    for _ in range(60):
        await quotas.count("a")
    for _ in range(3):
        with pytest.raises(OverQuota) as refused:
            await quotas.count("a")
        assert refused.value.headers["Retry-After"] == "60"
        now += 60
        await quotas.count("a")


async def test_without_a_quota_nothing_is_counted():
    quotas = Quotas(lambda _: NO_LIMITS)
    for _ in range(100):
        await quotas.count("a")


async def test_a_build_that_is_not_queued_is_not_counted():
    quotas = Quotas(lambda _: Limits(builds_per_hour=1), lambda: 1.0)
    for _ in range(2):
        with pytest.raises(Refusal, match="full"):
            async with quotas.counted("a"):
                raise Refusal(429, "the queue is full")
    async with quotas.counted("a"):
        pass
    with pytest.raises(OverQuota):
        async with quotas.counted("a"):
            raise AssertionError


class Away:
    """Marks that cannot be reached."""

    async def move(self, _tenant: str, _change: Callable[[float], float]) -> float:
        raise QueueUnavailable


async def test_without_the_queue_a_builder_counts_alone():
    quotas = Quotas(lambda _: Limits(builds_per_hour=1))
    quotas.marks = Away()
    await quotas.count("a")
    with pytest.raises(OverQuota):
        await quotas.count("a")
