"""What BuildKit found reaches the author: warnings, the place of a failure, and its reason."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from function_builder.client import AsyncClient, BuildConfig
from function_builder.contract.secrets import SecretsKey, seal
from function_builder.engine import BuildKitDaemon
from tests.integration.test_build import lines_of, log_of, post
from tests.support.builders import running_builder
from tests.support.requests import make_tar

pytestmark = pytest.mark.integration

WARNED = "FROM busybox\nARG DB_PASSWORD\nWORKDIR app\nCMD echo $UNDEFINED\n"
RULES = {
    "SecretsUsedInArgOrEnv": 2,
    "WorkdirRelativePath": 3,
    "JSONArgsRecommended": 4,
    "UndefinedVar": 4,
}


def build(builder, files: dict[str, str], config=None, *, stream=False) -> dict[str, Any]:
    """The last object of an answer, with the whole log."""
    body = make_tar(files, config or {"skipPush": True})
    answer = post(builder, body, stream=stream)
    if stream:
        *_, last = objects = lines_of(answer)
        return last | {"log": log_of(objects)}
    reply: dict[str, Any] = answer.json()
    return reply


@pytest.mark.parametrize("stream", [False, True])
def test_warnings_have_their_rule_line_and_address_in_every_form(builder, stream):
    reply = build(builder, {"Dockerfile": WARNED}, stream=stream)
    assert reply["status"] == "success"
    told = {each["rule"]: each for each in reply["warnings"]}
    assert told.keys() <= RULES.keys()
    assert len(told) >= 3
    for rule, each in told.items():
        assert (each["file"], each["line"]) == ("Dockerfile", RULES[rule])
        assert each["url"].startswith("https://docs.docker.com/go/dockerfile/rule/")
        line = f"WARNING: {rule}: {each['message']} (Dockerfile:{RULES[rule]}) {each['url']}"
        assert any(said.startswith("l: ") and said.endswith(line) for said in reply["log"])


def test_a_check_that_is_an_error_names_its_rules(builder):
    reply = build(builder, {"Dockerfile": "# check=error=true\n" + WARNED})
    assert reply["status"] == "failed"
    assert "WorkdirRelativePath" in reply["error"]
    assert (reply["reason"], reply["retryable"]) == ("dockerfile", False)
    assert {each["line"] for each in reply["warnings"]} == {3, 4, 5}


STAGES = (
    "FROM busybox AS unit\nRUN mkdir /a\nCOPY ok /check\nRUN sh /check\n"
    "FROM busybox AS lint\nRUN mkdir /b\nCOPY bad /check\nRUN sh /check\n"
    "FROM scratch\nCOPY --from=unit /a /a\nCOPY --from=lint /b /b\n"
)


@pytest.mark.parametrize("stream", [False, True])
def test_of_two_stages_with_one_command_the_one_that_failed_is_told(builder, stream):
    files = {"Dockerfile": STAGES, "ok": "true", "bad": "echo broken; exit 3"}
    reply = build(builder, files, stream=stream)
    step = "[lint 4/4] RUN sh /check"
    assert reply["error"] == (
        'failed to solve: process "/bin/sh -c sh /check" did not complete successfully: '
        "exit code: 3"
    )
    assert (reply["reason"], reply["step"], reply["retryable"]) == ("step", step, False)
    excerpt = [
        "Dockerfile:8",
        "--------------------",
        "   6 |     RUN mkdir /b",
        "   7 |     COPY bad /check",
        "   8 | >>> RUN sh /check",
        "   9 |     FROM scratch",
        "  10 |     COPY --from=unit /a /a",
        "--------------------",
    ]
    assert reply["source"] == {
        "file": "Dockerfile",
        "line": 8,
        "endLine": 8,
        "excerpt": "\n".join(excerpt),
    }
    said = [line.split(" ", 2)[2] for line in reply["log"][-len(excerpt) - 1 :]]
    assert said == [f"Failed at {step}", *excerpt]


@pytest.mark.parametrize(
    ("dockerfile", "expected"),
    [
        ("FROM busybox\nCOPY absent /\n", ("step", "[2/2] COPY absent /", 2)),
        ("FROM busybox\nCPY a b\n", ("dockerfile", "", 2)),
        ("FROM busybox AS a\nFROM b AS\n", ("dockerfile", "", 2)),
        (
            "FROM REGISTRY/nothing:1\n",
            ("base-image", "[internal] load metadata for REGISTRY/nothing:1", 1),
        ),
        ('FROM busybox\nRUN --security=insecure ["x"]\n', ("policy", "", None)),
        (
            'FROM busybox\nRUN --mount=type=secret,id=a,required=true ["x"]\n',
            ("step", '[2/2] RUN --mount=type=secret,id=a,required=true ["x"]', 2),
        ),
    ],
)
def test_a_failure_says_what_failed_and_where(builder, registry, dockerfile, expected):
    reply = build(builder, {"Dockerfile": dockerfile.replace("REGISTRY", registry)})
    assert (reply["status"], reply["retryable"]) == ("failed", False)
    step = reply.get("step", "").replace("stage-0 ", "").replace(registry, "REGISTRY")
    assert (reply["reason"], step, reply.get("source", {}).get("line")) == expected


def test_a_push_that_meets_no_registry_may_be_tried_again(builder):
    config = {"image": "127.0.0.1:1/a/b:1"}
    reply = build(builder, {"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}, config)
    assert (reply["reason"], reply["retryable"]) == ("push", True)
    assert reply["step"] == "exporting to image"


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"README.md": ""}, 'has "README.md", but not "readme.md"'),
        ({"docs/readme.md": ""}, 'has "docs/readme.md", but not "readme.md"'),
        ({"readme.md": "", ".dockerignore": "*.md"}, 'has "readme.md", but its ignore file'),
    ],
)
def test_a_near_miss_of_a_copied_file_is_named(builder, files, word):
    reply = build(builder, {"Dockerfile": "FROM scratch\nCOPY readme.md /\n", **files})
    assert reply["reason"] == "step"
    assert word in reply["log"][-1]


def test_a_file_of_another_stage_is_not_looked_for_in_the_context(builder):
    files = {"Dockerfile": "FROM busybox AS a\nFROM scratch\nCOPY --from=a /x /\n", "lib/x": ""}
    reply = build(builder, files)
    assert reply["reason"] == "step"
    assert "lib/x" not in "".join(reply["log"])


async def test_secrets_are_hidden_in_every_finding(tmp_path, buildkitd):
    key = SecretsKey.generate()
    (tmp_path / "key").write_bytes(key.to_text())
    body = make_tar(
        {"Dockerfile": "FROM busybox\nARG canary-7f3a\nWORKDIR canary-7f3a\nRUN canary-7f3a\n"},
        {"skipPush": True},
        secrets=seal({"token": b"canary-7f3a"}, key.public),
    )
    async with running_builder(
        tmp_path / "b", buildkitd, build_secrets_private_key_path=str(tmp_path / "key")
    ) as builder:
        answer = await asyncio.to_thread(post, builder, body)
    reply = answer.json()
    assert reply["step"].endswith("RUN ***")
    assert ">>> RUN ***" in reply["source"]["excerpt"]
    assert any("***" in each["message"] for each in reply["warnings"])
    assert "canary-7f3a" not in answer.text


async def test_a_near_miss_hides_secrets_too(tmp_path, buildkitd):
    key = SecretsKey.generate()
    (tmp_path / "key").write_bytes(key.to_text())
    body = make_tar(
        {"Dockerfile": "FROM scratch\nCOPY a /\n", "canary-7f3a/a": ""},
        {"skipPush": True},
        secrets=seal({"token": b"canary-7f3a"}, key.public),
    )
    async with running_builder(
        tmp_path / "b", buildkitd, build_secrets_private_key_path=str(tmp_path / "key")
    ) as builder:
        answer = await asyncio.to_thread(post, builder, body)
    assert answer.json()["log"][-1].endswith('The context has "***/a", but not "a".')
    assert "canary-7f3a" not in answer.text


async def test_a_step_that_runs_when_the_time_is_up_is_named(tmp_path, buildkitd):
    body = make_tar({"Dockerfile": "FROM busybox\nRUN sleep 1000\n"}, {"skipPush": True})
    for seconds in (4, 16, 64):
        root, limit = tmp_path / f"{seconds}", f"{seconds}s"
        async with running_builder(root, buildkitd, build_timeout=limit) as builder:
            last = lines_of(await asyncio.to_thread(post, builder, body, stream=True))[-1]
        # On a busy machine the time may be up before BuildKit has begun the step.
        if "step" in last:
            break
    assert (last["reason"], last["step"]) == ("timeout", "[2/2] RUN sleep 1000")
    assert last["retryable"] is False


async def test_the_python_client_hands_the_findings_on(builder, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM busybox\nWORKDIR app\nRUN exit 4\n")
    secret = (builder.secrets / "payload-secret").read_bytes().strip()
    async with AsyncClient(builder.url, payload_secret=secret) as client:
        result = await client.build(tmp_path, BuildConfig(skip_push=True))
    assert (result.reason, result.step) == ("step", "[3/3] RUN exit 4")
    assert result.source is not None
    assert (result.source.line, result.retryable) == (3, False)
    assert [each.rule for each in result.warnings] == ["WorkdirRelativePath"]


def test_a_step_may_print_fast_and_what_is_clipped_is_said(builder):
    long = "x" * 400
    dockerfile = (
        f"FROM busybox\nRUN seq 1 100000\nRUN yes {long} | head -n 6000; echo the end; exit 1\n"
    )
    reply = build(builder, {"Dockerfile": dockerfile}, stream=True)
    output = [line.split(" ", 2)[2] for line in reply["log"] if line.startswith("l: ")]
    # The first step's 575 KiB come whole within a second; the second one's are more than 2 MiB.
    assert output[:100_000] == [str(number) for number in range(1, 100_001)]
    (clipped,) = [line for line in output if "clipped" in line]
    assert clipped == "[output clipped, log limit 2MiB reached]"
    # Of a step that fails BuildKit tells the end all the same.
    assert "the end" in output[output.index(clipped) :]


@pytest.mark.parametrize(
    ("device", "error"),
    [
        ("vendor.com/gpu", 'required device "vendor.com/gpu" is not registered'),
        ("vendor.com/null", "device vendor.com/null=all is requested by the build but not allowed"),
    ],
)
async def test_no_device_of_an_operators_buildkit_is_given(
    buildkit_config, tmp_path, device, error
):
    """Sent again, the request would fail again: its client should not try."""
    spec = {
        "cdiVersion": "0.6.0",
        "kind": "vendor.com/null",
        "devices": [
            {"name": "all", "containerEdits": {"deviceNodes": [{"path": "/dev/null"}]}},
        ],
    }
    (tmp_path / "null.json").write_text(json.dumps(spec))
    devices = {"cdi": {"disabled": False, "specDirs": [str(tmp_path)]}}
    config = replace(buildkit_config, extra=devices)
    daemon = BuildKitDaemon(tmp_path / "bk", config=config, log=tmp_path / "log")
    async with daemon, running_builder(tmp_path / "builder", daemon.address) as builder:
        dockerfile = f"FROM busybox\nRUN --device={device},required true\n"
        reply = await asyncio.to_thread(build, builder, {"Dockerfile": dockerfile})
        assert reply["error"].endswith(f"failed to load LLB: {error}")
        assert (reply["reason"], reply["retryable"]) == ("policy", False)
