"""Members by their source."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.server.crowd import Crowd, source_of


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("2001:db8:0:0:ffff::1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("a name", ""),
    ],
)
def test_the_source_of_an_address(address, source):
    assert source_of(address) == source


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.sampled_from("abc"))))
def test_a_crowd_is_counted_by_source_in_the_order_of_its_members(steps):
    crowd: Crowd[int] = Crowd()
    model: list[tuple[int, str]] = []
    for comes, member, source in steps:
        model = [each for each in model if each[0] != member]
        if comes:
            crowd.add(member, source)
            model.append((member, source))
        else:
            crowd.discard(member)
        counts = [sum(each[1] == name for each in model) for name in "abc"]
        largest = {each[0] for each in model if counts["abc".index(each[1])] == max(counts)}
        assert len(crowd) == len(model)
        assert set(crowd) == {each[0] for each in model}
        assert set(crowd.largest()) == largest
        if model:
            oldest = crowd.oldest_of_largest()
            its = dict(model)[oldest]
            assert oldest == next(each[0] for each in model if each[1] == its)
            assert oldest in largest
