"""Rules are evaluated as BuildKit evaluates them, and two policies both hold in one list.

The cases are those of BuildKit's documentation; tests/integration/test_source_policy.py asks a
real one.
"""

from itertools import product

import pytest

from aiobuildkit import AttrConstraint, SourceAction, SourceMatch, SourceRule, SourceUpdate
from function_builder.builds.source_matching import decide, denying_rule
from function_builder.builds.source_policy import PolicyRule, SourcePolicy, denying

HUB = "docker-image://docker.io/library/"
A, B = f"{HUB}a:1", f"{HUB}b:1"


def allow(identifier: str) -> PolicyRule:
    return PolicyRule(SourceRule(action=SourceAction.ALLOW, identifier=identifier))


def deny(identifier: str) -> PolicyRule:
    return PolicyRule(SourceRule(action=SourceAction.DENY, identifier=identifier))


def convert(identifier: str, target: str, match: SourceMatch = SourceMatch.WILDCARD) -> PolicyRule:
    return PolicyRule(
        SourceRule(
            action=SourceAction.CONVERT,
            identifier=identifier,
            match=match,
            updates=SourceUpdate(target),
        )
    )


def is_allowed(policy: SourcePolicy, source: str) -> bool:
    return decide(policy, source).denied_by is None


def test_the_last_rule_that_matches_decides() -> None:
    policy = SourcePolicy([deny("docker-image://*"), allow(f"{HUB}*"), deny(A)])
    assert is_allowed(policy, B)
    assert decide(policy, A).denied_by == policy.rules[2]
    assert decide(policy, "docker-image://r/a:1").denied_by == policy.rules[0]
    assert is_allowed(policy, "git://r/a")
    assert denying_rule(policy, A) == policy.rules[2]


@pytest.mark.parametrize(
    ("rule", "source", "target"),
    [
        (convert(f"{HUB}golang:*", f"{HUB}golang:${{1}}-alpine"), f"{HUB}golang:1.19", "1.19-alpi"),
        (convert(f"{HUB}a:1", "docker-image://r/$1$$b:1"), A, "docker-image://r/$b:1"),
        (convert(A, f"{HUB}x:$1", SourceMatch.EXACT), A, f"{HUB}x:$1"),
        (convert("docker.io/(.*)", "r/$1", SourceMatch.REGEX), A, "docker-image://r/library/a:1"),
        (convert("x", "y", SourceMatch.REGEX), A, A),
    ],
)
def test_a_source_is_converted_once(rule: PolicyRule, source: str, target: str) -> None:
    # A tag that has been added is not added again, because the next rule denies more of them.
    policy = SourcePolicy([deny("nothing://*"), rule])
    if "alpi" in target:
        assert decide(policy, source).endless
    else:
        assert decide(policy, source).source == target


def test_what_is_converted_is_looked_at_again() -> None:
    policy = SourcePolicy([convert(A, B), deny(B)])
    decision = decide(policy, A)
    assert (decision.source, decision.denied_by) == (B, policy.rules[1])
    assert decision.converted_by == (policy.rules[0],)


def test_conditions_of_attributes_are_left_to_buildkit() -> None:
    rule = SourceRule(
        action=SourceAction.DENY, identifier="git://*", constraints=[AttrConstraint("k", "v")]
    )
    decision = decide(SourcePolicy([PolicyRule(rule)]), "git://r/a")
    assert decision.denied_by is None
    assert decision.uncertain == (PolicyRule(rule),)


def test_an_expression_takes_no_longer_with_a_name_that_is_made_for_it() -> None:
    expression = SourceRule(action=SourceAction.DENY, identifier="^(a+)+$", match=SourceMatch.REGEX)
    assert is_allowed(SourcePolicy([PolicyRule(expression)]), "a" * 5000 + "!")


def test_of_two_policies_both_hold() -> None:
    """Each list of up to two rules, with each other one: the list of both allows what both do."""
    rules = [allow(A), deny(A), allow("docker-image://*"), deny("docker-image://*")]
    lists = [[], *([each] for each in rules), *map(list, product(rules, repeat=2))]
    pairs = 0
    for own, other in product(lists, repeat=2):
        builder, tenant = SourcePolicy(own), SourcePolicy(other)
        try:
            builder.check_narrowing(other)
        except ValueError:
            continue
        for source in (A, B):
            pairs += 1
            expected = is_allowed(builder, source) and is_allowed(tenant, source)
            assert is_allowed(builder.narrowed(other), source) is expected, (own, other)
    assert pairs > 300


def test_nothing_allows_what_is_the_builders_own_machine() -> None:
    builder = SourcePolicy([allow("*")], denying([r"^http://127[.]"], "local"))
    assert not is_allowed(builder.narrowed([]), "http://127.0.0.1/x")
    assert not is_allowed(SourcePolicy((), builder.local).narrowed([allow("*")]), "http://127.1/")


def test_rules_deny_blobs_which_no_rule_of_an_image_would_match() -> None:
    blob = "docker-image+blob://docker.io/library/a@sha256:0"
    assert not is_allowed(SourcePolicy([allow("*"), deny(A)]), blob)
    assert is_allowed(SourcePolicy(), blob)


def test_a_name_that_both_convert_is_converted_by_the_builder() -> None:
    builder = SourcePolicy([deny(B), convert(A, f"{HUB}a:pinned")])
    policy = builder.narrowed([allow(B), convert(A, B)])
    assert decide(policy, A).source == f"{HUB}a:pinned"
    assert not is_allowed(builder.narrowed([convert(f"{HUB}c:1", B)]), f"{HUB}c:1")
