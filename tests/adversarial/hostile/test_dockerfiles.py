"""Hostile Dockerfiles: each class that we know of, and what becomes of it.

docs/reliability.md has the table. What a RUN step reaches over the network, in each mode, is found
by trying in tests/integration/test_rootless.py; a step without a process sandbox there as well.
"""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from bench import usage
from function_builder.builds.log import MAX_LOG_CHARS
from function_builder.engine import BuildKitConfig, BuildKitDaemon, StepLimits, StepLogLimits
from function_builder.policy.words import Word
from tests.support import running, until
from tests.support.builders import RunningBuilder, running_builder
from tests.support.requests import headers, make_tar

pytestmark = pytest.mark.integration

LIMITS = StepLimits(memory=64 << 20, tasks=64)
"""So low that what exceeds them does no harm here."""

TIMEOUT = "15 s"
"""Of a build: long enough for a step to begin on a busy machine."""

LOG_BYTES = 32 << 10
"""Of a step's output: the 2 MiB that are the default take long in lines of one character."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def confined(engine_root, tmp_path_factory, registry: str) -> AsyncIterator[RunningBuilder]:
    """A builder of five slots whose BuildKit's steps are held to `LIMITS`, builds to `TIMEOUT`."""
    config = BuildKitConfig(
        mirrors={"docker.io": [registry]}, plain_http=[registry], step_log=StepLogLimits(LOG_BYTES)
    )
    root = engine_root / "confined"
    daemon = BuildKitDaemon(root, config=config, limits=LIMITS, log=root.with_suffix(".log"))
    settings = {"max_inflight": "5", "build_timeout": TIMEOUT.replace(" ", "")}
    directory = tmp_path_factory.mktemp("confined")
    async with daemon, running_builder(directory / "b", daemon.address, **settings) as builder:
        yield builder


async def ask(
    builder: RunningBuilder, dockerfile: str, build_args: Mapping[str, str] | None = None
) -> httpx2.Response:
    config = {"skipPush": True, "buildArgs": dict(build_args or {})}
    body = make_tar({"Dockerfile": dockerfile}, config)
    async with httpx2.AsyncClient(trust_env=False, timeout=100, verify=False) as http:
        return await http.post(f"{builder.url}/build", content=body, headers=headers(body))


async def run(builder: RunningBuilder, step: str) -> dict[str, Any]:
    """Build with one step, which no cache has; the reply."""
    reply: dict[str, Any] = (
        await ask(builder, f"FROM busybox\nRUN : {uuid.uuid4()}; {step}\n")
    ).json()
    return reply


def said(reply: dict[str, Any]) -> list[str]:
    """What the steps wrote."""
    return [line.split(" ", 2)[2] for line in reply["log"] if line.startswith("l: ")]


async def builds(builder: RunningBuilder) -> None:
    """The builder and its BuildKit do what they are there for."""
    reply = await run(builder, "echo well")
    assert (reply["status"], said(reply)) == ("success", ["well"]), reply


# What a step takes


@dataclass(frozen=True)
class Endless:
    """What became of steps without end, which were built at the same time.

    Attributes:
        replies: by the steps' names.
        words: what the command lines of each step's processes hold.
        grown: megabytes that the builder's memory grew by.
    """

    replies: Mapping[str, dict[str, Any]]
    words: Mapping[str, str]
    grown: float


OUTPUTS = {
    "lines": "yes",
    "one line": "cat /dev/zero",
    "empty lines": "yes ''",
    "one long line": "yes $(seq 2000) | tr -d '\\n'",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def endless(confined) -> Endless:
    words = {name: uuid.uuid4().hex for name in (*OUTPUTS, "silence")}
    steps = {name: f": {words[name]}; {step}; : over" for name, step in OUTPUTS.items()}
    # In a session of its own, deaf to what a terminal's end would tell it.
    deaf = f'trap \\"\\" HUP TERM INT; while :; do sleep 60; : {words["silence"]}; done'
    steps["silence"] = f'setsid sh -c "{deaf}" & sleep 6000; : {words["silence"]}'
    await builds(confined)
    before = usage.resident(confined.process.pid)
    replies = await asyncio.gather(*(run(confined, step) for step in steps.values()))
    grown = usage.resident(confined.process.pid) - before
    return Endless(dict(zip(steps, replies, strict=True)), words, grown)


@pytest.mark.parametrize("name", OUTPUTS)
async def test_output_without_end_is_bounded_and_so_is_its_time(confined, endless, name):
    reply = endless.replies[name]
    assert reply["status"] == "failed"
    assert f"longer than the {TIMEOUT} allowed (build_timeout)" in reply["error"]
    assert sum(map(len, reply["log"])) < MAX_LOG_CHARS
    assert any("output clipped, log limit" in line for line in said(reply)), said(reply)[-3:]
    assert endless.grown < 100
    await until(lambda: running(endless.words[name]) == [])
    await builds(confined)


async def test_a_step_without_end_is_ended_with_all_that_it_began(confined, endless):
    assert "build_timeout" in endless.replies["silence"]["error"]
    await until(lambda: running(endless.words["silence"]) == [])
    await builds(confined)


async def test_processes_without_end_find_none_left_and_only_among_steps(confined):
    """A fork bomb, of a size that would do no harm without a limit either."""
    word = f"600.{uuid.uuid4().int}"
    reply = await run(confined, f"for i in $(seq 300); do sleep {word} & done; echo all")
    assert "exit code: 2" in reply["error"]
    assert "can't fork: Resource temporarily unavailable" in " ".join(said(reply))
    await until(lambda: running(word) == [])
    await builds(confined)


async def test_memory_without_end_ends_the_step_alone(confined):
    hog = """awk 'BEGIN { s = "x"; while (length(s) < 300000000) s = s s }'"""
    reply = await run(confined, hog)
    assert reply["status"] == "failed"
    assert "exit code: 137" in reply["error"]
    await builds(confined)


async def test_limits_hold_for_steps_together_and_not_for_buildkit(confined):
    reply = await run(confined, "cat /proc/self/cgroup")
    groups = {line.split(":")[-1].rpartition("/buildkit/")[0] for line in said(reply)} - {""}
    assert len(groups) == 1
    assert re.fullmatch("/function-builder-[0-9a-f]{16}", groups.pop())


# What a Dockerfile may not ask for


@pytest.mark.parametrize(
    ("dockerfile", "answer"),
    [
        ("RUN --network=host true", "network.host is not allowed"),
        ("RUN --security=insecure true", "security.insecure is not allowed"),
        ("RUN --device=vendor.com/device=gpu,required true", "CDI device support is disabled"),
        ("ADD file:///etc/passwd /", "not found"),
        ("COPY /etc/../../../../etc/passwd /", "not found"),
        ("RUN --mount=type=bind,source=/../../../etc,target=/host true", "not found"),
        ("RUN --mount=type=secret,id=nobodys,required=true true", "nobodys"),
        ("RUN --mount=type=ssh,required=true true", "no SSH key"),
    ],
)
async def test_what_is_not_given_is_refused_in_words(confined, dockerfile, answer):
    reply = (await ask(confined, f"FROM busybox\n{dockerfile}\n")).json()
    assert reply["status"] == "failed"
    assert answer in reply["error"], reply["error"]
    assert reply["retryable"] is False
    await builds(confined)


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/x",
        "http://user@localhost:1/x",
        "http://[::ffff:127.0.0.1]:1/x",
        "http://169.254.169.254/latest/meta-data",
        "http://127\u30020\u30020\u30021:1/x",
        "http://2130706433:1/x.git",
        "https://127.0.0.1:1/x.git#main",
        "git@localhost:x.git",
    ],
)
async def test_buildkit_reads_nothing_of_its_own_machine_for_a_dockerfile(confined, address):
    reply = (await ask(confined, f"FROM busybox\nADD {address} /it\n")).json()
    assert (reply["status"], reply["reason"]) == ("failed", "policy"), reply
    assert "denied by policy" in reply["error"], reply["error"]
    assert "ADD may not name BuildKit's own machine" in reply["log"][-1]


async def test_where_the_operator_allows_it_buildkit_does(buildkitd, tmp_path, steps):
    async with running_builder(tmp_path / "b", buildkitd, local_sources="true") as builder:
        reply = (await ask(builder, "FROM busybox\nADD http://127.0.0.1:1/x /it\n")).json()
        assert "connection refused" in reply["error"], reply["error"]


# What it becomes when BuildKit expands its variables


async def test_variables_that_grow_are_refused_before_buildkit_expands_them(confined):
    grows = f"ARG A={'a' * 100}\n" + "ARG A=$A$A$A$A$A$A$A$A$A$A\n" * 8
    answer = await ask(confined, f"FROM busybox\n{grows}")
    assert answer.status_code == 400
    assert "variables grow too long" in answer.json()["error"]


VARIABLES = {"A": "aa/b.c-a", "B": "", "C": "x y"}
WORDS = [
    *(
        "$A$A",
        "${A}x$B$U",
        "'$A'",
        '"$A $C"',
        "\\$A",
        '"\\$A"',
        "\\\\$A",
        "$A'$A'\"'\"$A\"'\"",
        "$$A",
    ),
    *("${A:-$C}", "${B:-$A$A}", "${B-$A}", "${U-$A}", "${A:+$A$A}", "${A+}", "${A:?$C}", "$1a$@"),
    *("${A#a}", "${A##*/}", "${A%a}", "${A%%.*}", "${A/a/$C$C}", "${A//a/$A}", "${A//?/xyz}"),
    *(
        "${A//a/\\$0\\$0\\$0}",
        "${B//*/$A}",
        "${A//\\//$A}",
        "${U:-${A//a/${A:-$C}}}",
        "${A//'}'/x}$A",
        "${A//'\\'/x}",
        '${A#"\\a"}',
    ),
]


async def test_no_length_is_below_that_of_buildkit(confined):
    """Each word as the value of a variable, which a step then measures."""
    given = "".join(f'ENV {name}="{value}"\n' for name, value in VARIABLES.items())
    words = "".join(f"ENV W{number}={word}\n" for number, word in enumerate(WORDS))
    step = f"for n in $(seq 0 {len(WORDS) - 1}); do eval echo \\${{#W$n}}; done"
    reply = (await ask(confined, f"FROM busybox\n{given}{words}RUN {step}\n")).json()
    assert reply["status"] == "success", reply
    lengths = [int(line) for line in said(reply) if line.isdigit()]
    assert len(lengths) == len(WORDS)
    for word, length in zip(WORDS, lengths, strict=True):
        bound = Word(word, "\\", lambda name: len(VARIABLES.get(name, "")), quotes=True).length()
        assert length <= bound, word


HOSTILE = "evil.example/frontend:1"


@pytest.mark.parametrize(
    ("dockerfile", "build_args"),
    [
        (f"# syntax={HOSTILE}\nFROM busybox\n", {}),
        (f"#syntax = {HOSTILE}\nFROM busybox\n", {}),
        (f"\ufeff# SYNTAX={HOSTILE}\nFROM busybox\n", {}),
        (f"#!/usr/bin/env x\n# escape=`\n# syntax={HOSTILE}\nFROM busybox\n", {}),
        (f"// syntax={HOSTILE}\nFROM busybox\n", {}),
        (f'{{"syntax": "{HOSTILE}"}}', {}),
        ("FROM busybox\n", {"BUILDKIT_SYNTAX": HOSTILE}),
        ("# syntax=docker/dockerfile:1\nFROM busybox\n", {"BUILDKIT_SYNTAX": HOSTILE}),
        (f"# syntax=docker/dockerfile@{HOSTILE}\nFROM busybox\n", {"BUILDKIT_SYNTAX": HOSTILE}),
    ],
)
async def test_a_frontend_that_is_not_allowed_is_a_400_that_names_those_that_are(
    confined, dockerfile, build_args
):
    answer = await ask(confined, dockerfile, build_args)
    assert answer.status_code == 400
    assert answer.json()["error"] == (
        f'the syntax "{HOSTILE}" is not allowed on this builder: '
        "leave it out, or use one of docker/dockerfile, docker/dockerfile-upstream"
    )


# What a step tries


async def test_a_step_that_kills_its_parent_kills_itself_at_most(confined):
    reply = await run(confined, "kill -9 1; kill -9 $PPID; kill -9 -1; kill -9 $$; echo alive")
    assert reply["status"] == "success"
    assert "alive" in said(reply)
    reply = await run(confined, "ps -o comm; ls /proc | grep -c '^[0-9]'")
    assert not any("buildkitd" in line or "runc" in line for line in said(reply))
    await builds(confined)


async def test_a_step_is_root_of_next_to_nothing(confined):
    tries = {
        "mount": "mount -t tmpfs none /mnt",
        "namespaces": "unshare -m true",
        "devices": "mknod /disk b 254 0 && dd if=/disk of=/dev/null count=1",
        "kernel's settings": "echo 1 > /proc/sys/kernel/panic",
        "kernel's log": "dmesg",
        "control groups": "mkdir /sys/fs/cgroup/memory/mine",
        "network": "ip link add name x type dummy",
    }
    step = "; ".join(
        f'( {attempt} ) >/dev/null 2>&1 && echo "{what}"' for what, attempt in tries.items()
    )
    reply = await run(confined, f"{step}; echo tried")
    assert said(reply) == ["tried"]
