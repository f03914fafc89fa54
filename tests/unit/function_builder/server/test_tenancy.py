"""Whose a request is, where a builder has several tenants; and that nothing tells of others."""

import base64
import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from function_builder.contract import signature as signatures
from function_builder.contract.answer_signature import public_key_answer
from function_builder.contract.builds import new_id
from function_builder.contract.reads import build_token, sign_read
from function_builder.contract.secrets import SecretsKey, seal
from function_builder.contract.tenancy import Limits
from function_builder.contract.timestamp import stamp
from function_builder.errors import StartError
from function_builder.server import keys, start_checks
from function_builder.server.app import create_app
from function_builder.server.replays import Replays
from function_builder.server.service import Service
from function_builder.settings import Settings
from tests.support import until
from tests.support.memory_builds import MemoryBuilds
from tests.support.requests import SECRET, make_tar, signature
from tests.support.services import idle_service

BODY = make_tar({"Dockerfile": "FROM scratch\n"}, {"image": "r/f:1"})
ACME, ZETA = "the secret of acme", "the secret of zeta"
READS, BUILDS = "fbk_reads", "fbk_builds"
HASHES = [hashlib.sha256(token.encode()).hexdigest() for token in (READS, BUILDS)]
FILE = f"""\
tenants:
  acme:
    payload_secret_file: acme
    webhook_secret_file: hook
    hosts: acme.example.com
    tokens:
      - {{sha256: {HASHES[0]}, scopes: read}}
      - {{sha256: {HASHES[1]}, scopes: [build]}}
  zeta: {{payload_secret_file: zeta}}
"""


ASYNC = {"Prefer": "respond-async"}
REQUESTS = [("GET", ""), ("HEAD", "/log"), ("DELETE", ""), ("POST", "/retry")]


@pytest.fixture
async def service(tmp_path) -> Service:
    (tmp_path / "payload-secret").write_text(SECRET)
    (tmp_path / "acme").write_text(ACME)
    (tmp_path / "zeta").write_text(ZETA)
    (tmp_path / "hook").write_text("whsec_" + base64.b64encode(bytes(24)).decode())
    (tmp_path / "tenants.yaml").write_text(FILE)
    return started(tmp_path)


def started(root: Path, **more: Any) -> Service:
    service = idle_service(
        root,
        disable_hmac=False,
        secret_mount_path=root,
        tenants_file=str(root / "tenants.yaml"),
        **more,
    )
    service.builds = MemoryBuilds()
    return service


async def send(
    service: Service, method: str, target: str, sent: Mapping[str, str], body: bytes = b""
) -> httpx2.Response:
    transport = httpx2.ASGITransport(create_app(service), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://builder") as http:
        return await http.request(method, target, headers=dict(sent), content=body)


async def post(service: Service, secret: str = "", **more: str) -> httpx2.Response:
    sent = {"X-Build-Signature": signature(BODY, secret)} if secret else {}
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return await send(service, "POST", "/build", sent | named, BODY)


async def ask(
    service: Service, target: str, secret: str, method: str = "GET", **more: str
) -> httpx2.Response:
    signed = sign_read(secret.encode(), method, target, time.time())
    return await send(
        service, method, target, signed | {k.replace("_", "-"): v for k, v in more.items()}
    )


async def submitted(service: Service, secret: str, **more: str) -> dict[str, Any]:
    answer = await post(service, secret, prefer="respond-async", **more)
    assert answer.status_code == 202, answer.text
    document: dict[str, Any] = answer.json()
    return document


@pytest.mark.parametrize(
    ("secret", "more", "tenant"),
    [
        (SECRET, {}, "default"),
        (SECRET, {"x_build_tenant": "default", "host": "acme.example.com"}, "default"),
        (ACME, {"x_build_tenant": "acme"}, "acme"),
        (ACME, {"host": "ACME.example.com:8080"}, "acme"),
        (ZETA, {"x_build_tenant": "zeta", "host": "acme.example.com"}, "zeta"),
        ("", {"authorization": f"Bearer {BUILDS}"}, "acme"),
        ("", {"authorization": f"bearer {BUILDS}", "x_build_tenant": "acme"}, "acme"),
        (ACME, {"authorization": f"Bearer {BUILDS}", "host": "other.example.com"}, "acme"),
        (SECRET, {"authorization": "Basic YTpi"}, "default"),
        (SECRET, {"authorization": f"Bearer fbt_{64 * '0'}"}, "default"),
    ],
)
async def test_the_tenant_of_a_request(service, secret, more, tenant):
    await submitted(service, secret, **more)
    (submission,) = service.builds.submissions
    assert submission.tenant == tenant
    expected = keys.trust_domain(SECRET.encode())
    if tenant != "default":
        expected = keys.tenant_domain(SECRET.encode(), tenant)
    assert submission.trust_domain == expected


@pytest.mark.parametrize(
    ("secret", "more", "status", "words"),
    [
        (ACME, {}, 401, "absent or wrong"),
        (SECRET, {"x_build_tenant": "acme"}, 401, "absent or wrong"),
        (ZETA, {"host": "acme.example.com"}, 401, "absent or wrong"),
        (ACME, {"x_build_tenant": "zeta"}, 401, "absent or wrong"),
        (ACME, {"x_build_tenant": ""}, 401, "absent or wrong"),
        (ZETA, {"authorization": f"Bearer {BUILDS}"}, 401, "absent or wrong"),
        (ACME, {"x_build_tenant": "acme", "authorization": "Bearer other"}, 401, "bearer token"),
        ("", {"authorization": f"Bearer {READS}"}, 403, "does not have the scope build"),
        ("", {"authorization": f"Bearer {BUILDS}", "x_build_tenant": "zeta"}, 400, "not the ten"),
    ],
)
async def test_what_proves_no_tenant_is_refused(service, secret, more, status, words):
    answer = await post(service, secret, prefer="respond-async", **more)
    said = answer.json()
    text = said["detail"] if status == 403 else said["error"]
    assert (answer.status_code, words in text) == (status, True)
    assert not service.builds.submissions
    assert service.uploads.taken == service.space.reserved == 0


async def test_a_tenant_that_does_not_exist_is_answered_as_a_wrong_signature(
    service, monkeypatch, tmp_path
):
    """The same bytes, and as many bytes hashed: during acme's rotation too."""
    (tmp_path / "tenants.yaml").write_text(FILE.replace(": acme\n", ": [acme, new]\n", 1))
    (tmp_path / "new").write_text("the next secret of acme")
    await service.tenants.refresh()
    hashed: list[int] = []

    class Counting(signatures.Signature):
        def update(self, chunk) -> None:
            hashed[-1] += len(chunk) * len(self._macs)
            super().update(chunk)

    monkeypatch.setattr("function_builder.server.admission.Signature", Counting)
    monkeypatch.setattr("function_builder.contract.reads.Signature", Counting)
    answers = set()
    targets = ("/build", "/builds", f"/builds/{new_id()}", "/usage", "/usage?tenant=acme")
    for target in targets:
        method = "POST" if target == "/build" else "GET"
        for tenant in ("acme", "zeta", "default", "absent", "Not a name", ""):
            hashed.append(0)
            signed = {"X-Build-Signature": signature(BODY, "another")}
            signed["X-Build-Timestamp"] = stamp(b"another", signed["X-Build-Signature"], 0)
            answer = await send(service, method, target, signed | {"X-Build-Tenant": tenant}, BODY)
            told = {k: v for k, v in answer.headers.items() if k != "x-build-id"}
            content = answer.content.replace(answer.headers.get("x-build-id", "-").encode(), b"")
            answers.add((method, answer.status_code, str(told), content))
    assert {answer[1] for answer in answers} == {401}
    assert len(answers) == 2
    posts, *reads = (hashed[first : first + 6] for first in range(0, len(hashed), 6))
    assert set(posts) == {2 * len(BODY)}
    assert [len(set(each)) for each in reads] == 4 * [1]


async def test_a_tenant_sees_its_own_builds_alone(service):
    ours = await submitted(service, ACME, x_build_tenant="acme")
    theirs = await submitted(service, ZETA, x_build_tenant="zeta")
    own = await submitted(service, SECRET)
    for secret, tenant, mine in (
        (ACME, "acme", ours),
        (ZETA, "zeta", theirs),
        (SECRET, "default", own),
    ):
        listed = (await ask(service, "/builds", secret, x_build_tenant=tenant)).json()["builds"]
        assert [build["buildId"] for build in listed] == [mine["buildId"]]
        absent = f"/builds/{new_id()}"
        for each in (ours, theirs, own):
            for target, method in (
                ("", "GET"),
                ("/log", "HEAD"),
                ("", "DELETE"),
                ("/retry", "POST"),
            ):
                if each is mine:
                    continue
                path = f"/builds/{each['buildId']}{target}"
                answer = await ask(service, path, secret, method, x_build_tenant=tenant)
                other = await ask(service, absent + target, secret, method, x_build_tenant=tenant)
                assert answer.status_code == 404
                assert (answer.content, answer.headers) == (other.content, other.headers)


async def test_a_builds_token_names_its_tenant(service):
    build = await submitted(service, ACME, x_build_tenant="acme")
    token = build["token"]
    assert token == build_token(ACME.encode(), "acme", build["buildId"])
    path = f"/builds/{build['buildId']}"
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await send(service, "GET", path, bearer)).status_code == 200
    for wrong in (token.replace("acme", "zeta"), token.replace("acme_", ""), token[:-1] + "g"):
        answer = await send(service, "GET", path, {"Authorization": f"Bearer {wrong}"})
        assert answer.status_code == 401
    assert (await send(service, "GET", "/builds", bearer)).status_code == 401


async def test_a_bearer_token_does_what_its_scopes_say(service):
    build = await submitted(service, "", authorization=f"Bearer {BUILDS}")
    path = f"/builds/{build['buildId']}"
    for token, method, target, status in (
        (READS, "GET", "/builds", 200),
        (READS, "GET", path, 200),
        (READS, "DELETE", path, 403),
        (READS, "POST", f"{path}/retry", 403),
        (BUILDS, "GET", path, 403),
        (BUILDS, "DELETE", path, 200),
        ("unknown", "GET", path, 401),
    ):
        answer = await send(service, method, target, {"Authorization": f"Bearer {token}"})
        assert answer.status_code == status, (token, method, target)


async def test_a_bearer_token_needs_no_time_of_its_request(service):
    service.replays = Replays(60)
    for _ in range(2):
        await submitted(service, "", authorization=f"Bearer {BUILDS}")
    assert (await post(service, ACME, x_build_tenant="acme")).status_code == 401


async def test_a_tenant_without_a_webhook_secret_gets_no_callbacks(service, tmp_path):
    service.settings = Settings.from_environment(
        {
            "callback_hosts": "hooks.example.com",
            "secret_mount_path": str(tmp_path),
            "spool_dir": str(tmp_path),
        }
    )
    callback = {"x_callback_url": "https://hooks.example.com/"}
    refused = await post(service, ZETA, x_build_tenant="zeta", **callback)
    assert refused.status_code == 501
    assert "no webhook secret" in refused.json()["error"]
    await submitted(service, ACME, x_build_tenant="acme", **callback)
    assert service.tenants.callback_keys("acme") == ([bytes(24)], ACME.encode())
    assert service.tenants.callback_keys("zeta") is None


def sample(service: Service, name: str) -> float | None:
    return service.metrics.registry.get_sample_value(f"function_builder_{name}")


async def test_a_wrong_file_is_told_and_the_tenants_of_before_are_served(
    service, tmp_path, monkeypatch
):
    monkeypatch.setattr("function_builder.server.tenancy.CHECK_SECONDS", 0.05)
    (tmp_path / "tenants.yaml").write_text("tenants:\n  acme: {}\n")
    async with service.tenants.watching(service.metrics):
        with capture_logs() as log:
            await until(lambda: service.tenants.stale)
            await until(lambda: log)
        (line,) = (each for each in log if each["log_level"] == "error")
        assert "line 2, column 3" in line["why"]
        assert sample(service, "tenants") == 3
        assert sample(service, "tenants_file_stale") == 1
        await submitted(service, ACME, x_build_tenant="acme")
        (tmp_path / "tenants.yaml").write_text("tenants: {}\n")
        # The watch reads it too.
        await until(lambda: sample(service, "tenants") == 1)
        assert sample(service, "tenants_file_stale") == 0
    answer = await post(service, ACME, x_build_tenant="acme")
    assert answer.status_code == 401


async def test_ready_says_that_the_file_is_wrong_and_not_where(service, tmp_path, monkeypatch):
    monkeypatch.setattr(Service, "unready_because", lambda _: "")
    monkeypatch.setattr(MemoryBuilds, "unready_because", lambda _: "", raising=False)
    assert (await send(service, "GET", "/ready", {})).text == "OK"
    (tmp_path / "tenants.yaml").write_text("tenants: {acme: {}}\n")
    await service.tenants.refresh()
    ready = await send(service, "GET", "/ready", {})
    assert ready.status_code == 200
    assert ready.text.splitlines()[1:] == [
        "tenants_file has changed and is not valid: the builder's log says where"
    ]


async def test_a_wrong_file_keeps_the_builder_from_its_start(service, tmp_path):
    (tmp_path / "tenants.yaml").write_text("tenants: {acme: {}}\n")
    with pytest.raises(StartError, match="line 1, column 11: acme cannot prove itself"):
        started(tmp_path)


def test_tenants_need_signatures(tmp_path):
    settings = Settings(disable_hmac=True, tenants_file="x", spool_dir=tmp_path)
    with pytest.raises(StartError, match="tenants_file needs signatures"):
        start_checks.check_start(settings)


OWN_KEY, ACME_KEY = SecretsKey.generate(), SecretsKey.generate()
APART = """\
tenants:
  acme:
    payload_secret_file: acme
    hosts: acme.example.com
    registry_config: acme.json
    build_secrets_key: acme.key
    push: ["registry.example.com/acme/**", "*/shared/*"]
    allowed_frontends: docker/dockerfile
    build_timeout: 10m
    max_body_bytes: 20KiB
    weight: 3
    max_inflight: 2
    max_queue: 0
    builds_per_hour: 2
  zeta: {payload_secret_file: zeta}
"""


def auths(user: str) -> str:
    auth = base64.b64encode(f"{user}:of {user}".encode()).decode()
    return json.dumps({"auths": {"registry.example.com": {"auth": auth}}})


@pytest.fixture
async def apart(service, tmp_path) -> Service:
    (tmp_path / "own.key").write_bytes(OWN_KEY.to_text())
    (tmp_path / "acme.key").write_bytes(ACME_KEY.to_text())
    (tmp_path / "acme.json").write_text(auths("acme"))
    (tmp_path / "config.json").write_text(auths("own"))
    (tmp_path / "tenants.yaml").write_text(APART)
    return started(tmp_path, build_secrets_private_key_path=str(tmp_path / "own.key"))


async def test_a_tenant_has_its_own_settings_and_credentials_or_none(apart):
    found = {}
    for tenant in ("default", "acme", "zeta", "gone"):
        credentials = await apart.tenants.credentials(tenant).lookup("registry.example.com")
        found[tenant] = credentials and credentials.username
    assert found == {"default": "own", "acme": "acme", "zeta": None, "gone": None}
    default, acme, zeta = (
        apart.tenants.named(name).settings for name in ("default", "acme", "zeta")
    )
    assert default == apart.settings
    assert (acme.build_timeout, acme.max_body_bytes) == (600, 20 * 1024)
    assert acme.allowed_frontends == ("docker/dockerfile",)
    assert apart.tenants.limits("acme") == Limits(3, 2, 0, 2)
    assert apart.tenants.limits("zeta") == apart.tenants.limits("gone") == Limits(1, 0, None)
    assert zeta == dataclasses.replace(apart.settings, build_secrets_private_key_path="")


@pytest.mark.parametrize(
    ("secret", "tenant", "image", "status"),
    [
        (ACME, "acme", "registry.example.com/acme/team/fn:1", 202),
        (ACME, "acme", "other.example.com/shared/fn", 202),
        (ACME, "acme", "registry.example.com/zeta/fn", 403),
        (ACME, "acme", "acme/fn", 403),
        (ZETA, "zeta", "registry.example.com/acme/fn", 202),
    ],
)
async def test_a_push_that_no_pattern_allows_is_refused_before_the_build(
    apart, secret, tenant, image, status
):
    body = make_tar({"Dockerfile": "FROM scratch\n"}, {"image": image})
    sent = {"X-Build-Signature": signature(body, secret), "X-Build-Tenant": tenant}
    for more in ({}, ASYNC):
        answer = await send(apart, "POST", "/build", sent | more, body)
        if status == 403:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["detail"].endswith(
                "may not be pushed: one of registry.example.com/acme/**, */shared/* is allowed"
            )
            assert apart.slots.taken == 0
        else:
            # A synchronous build begins, and its BuildKit is not there.
            assert answer.status_code == (status if more else 503)


async def test_a_limit_on_bodies_is_a_tenants_own_and_tells_strangers_nothing(apart):
    large = make_tar({"Dockerfile": "FROM scratch\n", "f": bytes(30_000)}, {"image": "*/shared/x"})
    told = set()
    for tenant in ("acme", "absent"):
        wrong = {"X-Build-Signature": signature(large, "another"), "X-Build-Tenant": tenant}
        answer = await send(apart, "POST", "/build", wrong, large)
        told.add(
            (answer.status_code, answer.content.replace(answer.headers["x-build-id"].encode(), b""))
        )
    assert len(told) == 1
    sent = {"X-Build-Signature": signature(large, ACME), "X-Build-Tenant": "acme"}
    for more in (
        {},
        {"X-Build-Timestamp": stamp(ACME.encode(), sent["X-Build-Signature"], time.time())},
    ):
        assert (await send(apart, "POST", "/build", sent | more, large)).status_code == 413


async def test_a_key_for_build_secrets_is_a_tenants_own(apart):
    async def key(secret: str, **more: str) -> tuple[int, str]:
        sent = {name.replace("_", "-"): value for name, value in more.items()}
        if secret:
            sent |= sign_read(secret.encode(), "GET", "/publickey?nonce=n", time.time())
        answer = await send(apart, "GET", "/publickey?nonce=n", sent)
        if answer.status_code == 200 and secret:
            assert public_key_answer(secret.encode(), "n").proves(answer.content)
        return answer.status_code, answer.json().get("public_key", "")

    assert await key("") == await key(SECRET) == (200, OWN_KEY.public)
    assert await key(ACME, x_build_tenant="acme") == (200, ACME_KEY.public)
    assert await key("", host="acme.example.com") == (200, ACME_KEY.public)
    assert await key(ZETA, x_build_tenant="zeta") == (404, "")
    # No name can be tried out.
    assert await key("", x_build_tenant="acme") == await key("", x_build_tenant="gone") == (401, "")
    assert await key(ZETA, x_build_tenant="acme") == (401, "")


async def test_sealed_secrets_are_opened_with_the_tenants_key_alone(apart):
    statuses = {}
    for owner, key in (("own", OWN_KEY), ("acme", ACME_KEY)):
        body = make_tar(
            {"Dockerfile": "FROM scratch\n"},
            {"image": "r.example.com/shared/fn"},
            secrets=seal({"token": b"value"}, key.public),
        )
        for tenant, secret in (("default", SECRET), ("acme", ACME), ("zeta", ZETA)):
            sent = {"X-Build-Signature": signature(body, secret), "X-Build-Tenant": tenant}
            answer = await send(apart, "POST", "/build", sent | ASYNC, body)
            statuses[tenant, owner] = answer.status_code
    opened = {pair for pair, status in statuses.items() if status == 202}
    assert opened == {("default", "own"), ("acme", "acme")}
    assert set(statuses.values()) == {202, 400}


async def test_a_tenant_begins_as_many_builds_in_an_hour_as_it_may(apart):
    body = make_tar({"Dockerfile": "FROM scratch\n"}, {"image": "r.example.com/shared/fn"})

    async def build(secret: str, tenant: str) -> httpx2.Response:
        sent = {"X-Build-Signature": signature(body, secret), "X-Build-Tenant": tenant}
        return await send(apart, "POST", "/build", sent | ASYNC, body)

    assert [(await build(ACME, "acme")).status_code for _ in range(2)] == [202, 202]
    refused = await build(ACME, "acme")
    assert refused.status_code == 429
    assert refused.text.startswith("Concurrent request limit exceeded. Builds in an hour: 2.")
    assert refused.headers["ratelimit-policy"] == '"builds";q=2;w=3600'
    wait = int(refused.headers["retry-after"])
    assert 1 <= wait <= 1800
    assert refused.headers["ratelimit"] == f'"builds";r=0;t={wait}'
    assert [(await build(ZETA, "zeta")).status_code for _ in range(3)] == [202] * 3
    assert len(apart.builds.submissions) == 5
