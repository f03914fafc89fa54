"""A source policy holds in BuildKit, whatever names the source, and is explained."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from function_builder.engine import find_tool
from tests.support.builders import RunningBuilder, running_builder
from tests.support.requests import headers, make_tar, signature

pytestmark = pytest.mark.integration

RULES = [
    {
        "name": "no denied images",
        "action": "DENY",
        "selector": {"identifier": "docker-image://docker.io/library/denied:*"},
    },
    {"action": "DENY", "selector": {"identifier": r"^https?://", "match_type": "REGEX"}},
    {"action": "DENY", "selector": {"identifier": "git://*"}},
]
FRONTEND = """\
FROM scratch
COPY --chmod=755 dockerfile-frontend /bin/
ENTRYPOINT ["/bin/dockerfile-frontend"]
"""
HAND_MADE = FRONTEND.replace("dockerfile-frontend", "llb-frontend")
DENIED = "docker.io/library/denied"
DIGEST = f"sha256:{64 * 'a'}"

IMAGE = "no denied images"
BLOB = "no blobs of registries"
GIT = "git://*"
URL = "^https?://"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict(
    buildkitd: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningBuilder]:
    root: Path = tmp_path_factory.mktemp("strict")
    policy = root / "policy.json"
    policy.write_text(json.dumps({"rules": RULES}))
    async with running_builder(
        root / "b",
        buildkitd,
        source_policy=str(policy),
        allowed_frontends="denied",
        allowed_context_images="*",
        sbom_generator="denied:1",
    ) as builder:
        yield builder


async def ask(
    builder: RunningBuilder,
    http: httpx2.AsyncClient,
    files: Mapping[str, Any],
    config: Mapping[str, Any],
) -> dict[str, Any]:
    body = make_tar(files, {"skipPush": True} | dict(config))
    answer = await http.post(f"{builder.url}/build", content=body, headers=headers(body))
    reply = answer.json()
    assert isinstance(reply, dict), answer.text
    return reply


@pytest.mark.parametrize(
    ("dockerfile", "config", "expected"),
    [
        ("FROM denied:1", {}, (IMAGE, 1)),
        (f"FROM denied@{DIGEST}", {}, (IMAGE, 1)),
        ("FROM busybox\nCOPY --from=denied /x /", {}, (IMAGE, 2)),
        ("FROM busybox\n\nRUN --mount=from=denied,target=/d \\\n true", {}, (IMAGE, 3)),
        ("ARG V=1\nFROM denied:${V}", {}, (IMAGE, 2)),
        ("# syntax=denied:1\nFROM busybox", {}, (IMAGE, 1)),
        ("FROM mine", {"contexts": {"mine": "docker-image://denied:2"}}, (IMAGE, 1)),
        ("FROM busybox\nADD https://example.com/x /", {}, (URL, 2)),
        ("FROM busybox\nADD http://example.com:81/x /", {}, (URL, 2)),
        ("FROM busybox\nADD https://example.com/x.git#main /", {}, (GIT, 2)),
        ("FROM busybox\nADD git@example.com:x/y.git /", {}, (GIT, 2)),
    ],
)
async def test_what_is_denied_is_not_read_and_says_by_which_rule(
    strict: RunningBuilder,
    http: httpx2.AsyncClient,
    dockerfile: str,
    config: Mapping[str, Any],
    expected: tuple[str, int],
) -> None:
    rule, line = expected
    reply = await ask(strict, http, {"Dockerfile": f"{dockerfile}\n"}, config)
    assert (reply["status"], reply.get("reason")) == ("failed", "policy"), reply
    assert reply["error"].endswith(f"denied by policy (rule: {rule})"), reply["error"]
    assert reply["rule"] == rule
    assert reply["log"][-1].endswith(f", by its rule {rule}."), reply["log"]
    assert (reply["source"]["file"], reply["source"]["line"]) == ("Dockerfile", line), reply


async def test_a_frontends_image_does_not_get_round_it(
    strict: RunningBuilder, buildkitd: str, registry: str, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    """Its program asks BuildKit for sources itself. Its own name is converted to its digest."""
    program = find_tool("dockerfile-frontend-1.2").read_bytes()
    made = {"image": f"{registry}/front/end:1", "skipPush": False}
    frontend = await ask(
        strict, http, {"Dockerfile": FRONTEND, "dockerfile-frontend": program}, made
    )
    assert frontend["status"] == "success", frontend
    name = f"docker-image://{registry}/front/end"
    policy = tmp_path / "policy.json"
    pin = {
        "action": "CONVERT",
        "selector": {"identifier": "docker-image://docker.io/front/end:*"},
        "updates": {"identifier": f"{name}@{frontend['digest']}"},
    }
    policy.write_text(json.dumps({"rules": [*RULES, pin]}))
    async with running_builder(
        tmp_path / "b", buildkitd, source_policy=str(policy), allowed_frontends="front/end"
    ) as builder:
        for line, word in (
            ("FROM denied:1", "denied:1"),
            ("FROM busybox\nADD https://example.com/x /", "https://example.com/x"),
        ):
            files = {"Dockerfile": f"# syntax=front/end:never-pushed\n{line}\n"}
            reply = await ask(builder, http, files, {})
            assert (reply["status"], reply.get("reason")) == ("failed", "policy"), reply
            assert word in reply["source"]["excerpt"], reply
        good = {"Dockerfile": "# syntax=front/end:never-pushed\nFROM busybox\n"}
        reply = await ask(builder, http, good, {})
        assert reply["status"] == "success", reply
        assert not [line for line in reply["log"] if "WARNING" in line], reply["log"]


async def test_a_frontend_that_makes_its_own_llb_does_not_get_round_it(
    strict: RunningBuilder, buildkitd: str, registry: str, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    """It names sources as no Dockerfile can, and has them read, or resolved alone."""
    (tmp_path / "policy.json").write_text(json.dumps({"rules": RULES}))
    async with running_builder(
        tmp_path / "b",
        buildkitd,
        insecure="true",
        source_policy=str(tmp_path / "policy.json"),
        allowed_frontends=f"{registry}/llb",
    ) as builder:
        program = find_tool("llb-frontend").read_bytes()
        made = {"image": f"{registry}/llb:1", "skipPush": False}
        pushed = {"Dockerfile": HAND_MADE, "llb-frontend": program}
        # A builder that may use it pushes no other in its place.
        assert "would replace a program" in str(await ask(builder, http, pushed, made))
        reply = await ask(strict, http, pushed, made)
        assert reply["status"] == "success", reply

        async def refused(identifier: str, attrs: Mapping[str, str], resolve: str) -> str:
            arguments = {"identifier": identifier, "attrs": json.dumps(attrs), "resolve": resolve}
            files = {"Dockerfile": f"# syntax={registry}/llb:1\n"}
            reply = await ask(builder, http, files, {"buildArgs": arguments})
            assert reply["status"] == "failed", (identifier, reply)
            error: str = reply["error"]
            return error.rpartition("(rule: ")[2] if reply.get("reason") == "policy" else error

        for identifier, attrs, rule in (
            (f"docker-image://{DENIED}:1", {}, IMAGE),
            (f"docker-image://{DENIED}:1@{DIGEST}", {}, IMAGE),
            (f"docker-image://{DENIED}@{DIGEST}", {}, IMAGE),
            (f"docker-image+blob://{DENIED}@{DIGEST}", {}, BLOB),
            ("http://example.com:81/x", {}, URL),
            ("git://other.example/x.git#main", {"git.fullurl": "https://example.com/x.git"}, GIT),
        ):
            for resolve in ("", "alone"):
                assert await refused(identifier, attrs, resolve) == f"{rule})", identifier
        # BuildKit knows no such names, and the session of a build has no images.
        for identifier, error in (
            ("docker-image://denied:1", "object required"),
            ("HTTPS://example.com/x", "unknown scheme"),
            (f"oci-layout://{DENIED}@{DIGEST}", "Unimplemented"),
        ):
            store = {"oci.session": "any", "oci.store": "any"}
            assert error in await refused(identifier, store, "alone"), identifier


async def test_the_generator_of_sboms_is_under_it_too(
    strict: RunningBuilder, http: httpx2.AsyncClient
) -> None:
    wanted = {"image": "r.invalid/sbom:1", "attest": {"sbom": True}}
    reply = await ask(strict, http, {"Dockerfile": "FROM busybox\n"}, wanted)
    assert (reply["status"], reply.get("reason"), reply.get("rule")) == ("failed", "policy", IMAGE)


async def test_a_tenants_file_narrows_the_builders(
    buildkitd: str, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    (tmp_path / "policy.json").write_text(json.dumps({"rules": RULES}))
    allow = {"action": "ALLOW", "selector": {"identifier": "*"}}
    deny = {
        "name": "no busybox",
        "action": "DENY",
        "selector": {"identifier": "docker-image://docker.io/library/busybox:*"},
    }
    (tmp_path / "acme.json").write_text(json.dumps({"rules": [allow, deny]}))
    (tmp_path / "acme").write_text("the payload secret of acme")
    (tmp_path / "tenants.yaml").write_text(
        "tenants: {acme: {payload_secret_file: acme, policy: acme.json}}"
    )
    async with running_builder(
        tmp_path / "b",
        buildkitd,
        source_policy=str(tmp_path / "policy.json"),
        tenants_file=str(tmp_path / "tenants.yaml"),
    ) as builder:

        async def rule(dockerfile: str) -> str:
            body = make_tar({"Dockerfile": f"{dockerfile}\n"}, {"skipPush": True})
            signed = {"X-Build-Signature": signature(body, "the payload secret of acme")}
            answer = await http.post(
                f"{builder.url}/build", content=body, headers=signed | {"X-Build-Tenant": "acme"}
            )
            error: str = answer.json().get("error", "")
            return error.rpartition("(rule: ")[2]

        # Its ALLOW does not open what the builder denies.
        assert await rule("FROM denied:1") == f"{IMAGE})"
        assert await rule("FROM busybox") == "no busybox)"
        assert await rule("FROM scratch\nCOPY Dockerfile /") == ""
        default = await ask(builder, http, {"Dockerfile": "FROM busybox\n"}, {})
        assert default["status"] == "success", default
