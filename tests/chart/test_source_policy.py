"""The source policy of the values is a file that the builder accepts."""

from function_builder.policy.source_policy_file import parse_source_policy
from tests.chart.render import refused, render

RULES = [
    {
        "name": "only ours",
        "action": "DENY",
        "selector": {"identifier": "^docker-image://", "match_type": "REGEX"},
    },
    {
        "action": "CONVERT",
        "selector": {"identifier": "docker-image://docker.io/library/alpine:3"},
        "updates": {"identifier": "docker-image://r.example.com/alpine:3"},
    },
]


def test_rules_are_mounted_as_a_file_that_the_builder_reads():
    release = render({"sourcePolicy": {"rules": RULES}})
    config = release.one("ConfigMap", "pro-builder-source-policy")
    rules = parse_source_policy(config["data"]["policy.json"].encode(), "policy.json")
    assert [str(each) for each in rules] == ["only ours", RULES[1]["selector"]["identifier"]]  # type: ignore[index]
    volumes = {each["name"]: each for each in release.builders["spec"]["volumes"]}
    assert volumes["source-policy"]["configMap"]["name"] == config["metadata"]["name"]
    mounts = release.container("pro-builder")["volumeMounts"]
    (mount,) = (each for each in mounts if each["name"] == "source-policy")
    assert release.environment["source_policy"] == f"{mount['mountPath']}/policy.json"
    changed = render({"sourcePolicy": {"rules": RULES[:1]}})
    annotation = "checksum/source-policy"
    before, after = (each.builders["metadata"]["annotations"] for each in (release, changed))
    assert before[annotation] != after[annotation]


def test_without_rules_there_is_no_file():
    release = render()
    assert "source_policy" not in release.environment
    assert "pro-builder-source-policy" not in {
        each["metadata"]["name"] for each in release.all("ConfigMap")
    }


def test_a_misspelled_rule_is_refused():
    assert "rules/0/action" in refused(
        {"sourcePolicy": {"rules": [{"action": "deny", "selector": {}}]}}
    )
