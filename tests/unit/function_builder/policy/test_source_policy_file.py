"""A source policy file is read strictly, with places."""

import json

import pytest

from aiobuildkit import (
    AttrCondition,
    AttrConstraint,
    SourceAction,
    SourceMatch,
    SourceRule,
    SourceUpdate,
)
from function_builder.policy.source_policy_file import SourcePolicyError, parse_source_policy

HUB = "docker-image://docker.io/library/"


def test_all_that_a_file_may_say() -> None:
    text = json.dumps(
        {
            "version": 1,
            "rules": [
                {"action": "DENY", "selector": {"identifier": "*"}},
                {
                    "name": "ours",
                    "action": "ALLOW",
                    "selector": {
                        "identifier": "^git://",
                        "match_type": "REGEX",
                        "constraints": [
                            {"key": "git.checksum", "value": "^[0-9a-f]+$", "condition": "MATCHES"}
                        ],
                    },
                },
                {
                    "action": "CONVERT",
                    "selector": {"identifier": f"{HUB}alpine:3", "match_type": "EXACT"},
                    "updates": {"identifier": f"{HUB}alpine:3.20", "attrs": {"a": ""}},
                },
            ],
        },
        indent="\t",
    )
    rules = parse_source_policy(text.encode(), "policy.json")
    assert [str(each) for each in rules] == ["*", "ours", f"{HUB}alpine:3"]
    assert [each.rule for each in rules] == [
        SourceRule(action=SourceAction.DENY, identifier="*"),
        SourceRule(
            action=SourceAction.ALLOW,
            identifier="^git://",
            match=SourceMatch.REGEX,
            constraints=[AttrConstraint("git.checksum", "^[0-9a-f]+$", AttrCondition.MATCHES)],
        ),
        SourceRule(
            action=SourceAction.CONVERT,
            identifier=f"{HUB}alpine:3",
            match=SourceMatch.EXACT,
            updates=SourceUpdate(f"{HUB}alpine:3.20", {"a": ""}),
        ),
    ]


def rule(text: str) -> str:
    return f'{{"rules": [\n{text}]}}'


def selector(text: str) -> str:
    return rule(f'{{"action": "DENY", "selector": {{"identifier": {text}}}}}')


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "line 1, column 1: not JSON"),
        ("rules: []", "line 1, column 1: not JSON"),
        ("{}", "line 1, column 1: rules is absent"),
        ('{"rules": []}', "line 1, column 11: must be a list that is not empty"),
        ('{"version": 2, "rules": [1]}', "line 1, column 13: must be 1"),
        (rule("1"), "line 2, column 1: must be a mapping"),
        (rule('{"selector": {}}'), "line 2, column 1: action is absent"),
        (rule('{"action": "DENY"}'), "line 2, column 1: selector is absent"),
        (rule('{"action": 1, "selector": {"identifier": "*"}}'), "line 2, column 12: must be a st"),
        (rule('{"action": "deny", "selector": {"identifier": "*"}}'), "'deny' is not one of ALLOW"),
        (rule('{"action": "DENY", "action": "DENY"}'), "column 20: 'action' is there twice"),
        (selector('""'), "must not be empty"),
        (selector('"alpine"'), "can match no source: begin with one of docker-image://"),
        (selector('"docker-image://alpine:*"'), "begin with a registry"),
        (selector(f'"{HUB}alpine"'), "have a tag or a digest"),
        (selector(f'"{HUB}**"'), "** is not a wildcard"),
        (selector('"*", "matchType": "EXACT"'), "did you mean match_type?"),
        (selector('"(?=a)", "match_type": "REGEX"'), "line 2, column 47: not a regular expression"),
        (selector('"*", "constraints": [{"value": ""}]'), "key is absent"),
        (
            rule('{"action": "CONVERT", "selector": {"identifier": "*"}}'),
            "updates is absent",
        ),
        (
            rule('{"action": "ALLOW", "selector": {"identifier": "*"}, "updates": {}}'),
            "updates has no effect with ALLOW",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(text: str, fault: str) -> None:
    with pytest.raises(SourcePolicyError) as caught:
        parse_source_policy(text.encode(), "policy.json")
    assert fault.replace("'", '"') in str(caught.value).replace("'", '"')


@pytest.mark.parametrize("data", [b"\xff", b"[" * 100_000])
def test_what_is_no_text_is_refused(data: bytes) -> None:
    with pytest.raises(SourcePolicyError, match=r"policy\.json: line 1, column 1"):
        parse_source_policy(data, "policy.json")


def test_who_denies_all_tags_of_an_image_denies_its_digests() -> None:
    """`:*` does not match them. What else a rule says is as it stands."""
    denied = json.dumps({"rules": [{"action": "DENY", "selector": {"identifier": f"{HUB}a:*"}}]})
    rules = parse_source_policy(denied.encode(), "policy.json")
    assert [each.rule.identifier for each in rules] == [f"{HUB}a:*", f"{HUB}a@*"]
    assert {str(each) for each in rules} == {f"{HUB}a:*"}
    for other in (denied.replace("DENY", "ALLOW"), denied.replace(":*", "*")):
        assert len(parse_source_policy(other.encode(), "policy.json")) == 1
