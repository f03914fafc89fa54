"""Requests with a token of an OIDC issuer, to a builder with tenants that trust it."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from function_builder.server import identity
from function_builder.server.service import Service
from tests.support import until
from tests.support.issuer import AUDIENCE, Issuer
from tests.support.requests import SECRET
from tests.unit.function_builder.server.test_tenancy import post, send, started, submitted

FILE = """\
tenants:
  acme:
    oidc:
      - {{issuer: {url}, audience: {aud}, claims: {{repository_owner: acme}}, scopes: read}}
      - {{issuer: {url}, audience: {aud}, claims: {{repository_owner: acme, ref: main}}}}
  zeta:
    oidc: [{{issuer: {url}, audience: {aud}, claims: {{repository_owner: zeta}}}}]
  other:
    oidc: [{{issuer: "http://127.0.0.1:1", audience: b, claims: {{sub: a}}}}]
"""


@pytest.fixture
def service(tmp_path: Path, issuer: Issuer) -> Service:
    (tmp_path / "payload-secret").write_text(SECRET)
    (tmp_path / "tenants.yaml").write_text(FILE.format(url=issuer.url, aud=AUDIENCE))
    return started(tmp_path)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_a_token_builds_and_reads_as_its_claims_say(service: Service, issuer: Issuer) -> None:
    build = await submitted(service, "", **bearer(issuer.token(ref="main")))
    (submission,) = service.builds.submissions  # type: ignore[union-attr]
    assert submission.tenant == "acme"
    listed = (await send(service, "GET", "/builds", bearer(issuer.token()))).json()["builds"]
    assert [each["buildId"] for each in listed] == [build["buildId"]]
    answer = await post(service, **bearer(issuer.token(ref="other")))
    assert answer.status_code == 403
    zeta = bearer(issuer.token(repository_owner="zeta"))
    assert (await send(service, "GET", "/builds", zeta)).json()["builds"] == []
    assert (await post(service, **zeta, x_build_tenant="acme")).status_code == 400


async def test_tokens_that_prove_no_tenant_have_one_answer_after_one_time(
    service: Service, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger does not learn which issuers, keys, audiences and claims the file has."""
    waited: list[float] = []

    async def wait_until(at: float) -> None:
        waited.append(at)

    monkeypatch.setattr(identity, "_wait_until", wait_until)
    loop, spans = asyncio.get_running_loop(), []
    stranger = Issuer(issuer.url)
    answers = set()
    with capture_logs() as logs:
        for token in (
            issuer.token(iss="https://other.example.com"),
            issuer.token(iss="http://127.0.0.1:1"),
            issuer.token(header={"kid": "unknown"}),
            stranger.token(),
            issuer.token(aud="another"),
            issuer.token(repository_owner="none"),
            issuer.token(repository_owner=["acme", "zeta"]),
            issuer.token(exp=int(time.time()) - 60),
            "a.b.c",
        ):
            began = loop.time()
            answer = await send(service, "GET", "/builds", bearer(token))
            spans.append((began, loop.time()))
            answers.add((answer.status_code, str(answer.headers), answer.content))
            assert token not in str(logs)
    assert len(answers) == 1
    assert next(iter(answers))[0] == 401
    for at, (began, ended) in zip(waited, spans, strict=True):
        assert began <= at - identity.REJECTED_SECONDS <= ended
    whys = [log["why"] for log in logs if log["event"] == "a bearer token was rejected"]
    assert len(set(whys)) == 8
    assert "its claims are those of 2 tenants: acme, zeta" in whys


async def test_other_tokens_are_refused_at_once(service: Service) -> None:
    answer = await send(service, "GET", "/builds", bearer("fbk_unknown"))
    assert answer.status_code == 401


async def test_trust_that_the_file_loses_ends(
    service: Service, issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "REJECTED_SECONDS", 0.0)
    tenants: Any = service.tenants
    assert (await send(service, "GET", "/builds", bearer(issuer.token()))).status_code == 200
    (tmp_path / "tenants.yaml").write_text("tenants: {}")
    await tenants.refresh()
    assert (await send(service, "GET", "/builds", bearer(issuer.token()))).status_code == 401


async def test_a_builder_reads_keys_before_a_token_needs_them(
    service: Service, issuer: Issuer
) -> None:
    tenants: Any = service.tenants
    failures = ("function_builder_oidc_fetch_failures_total", {"issuer": "http://127.0.0.1:1"})
    read = service.metrics.registry.get_sample_value
    async with tenants.watching(service.metrics):
        await until(lambda: "/jwks" in issuer.asked and read(*failures))
        for refresh in service.metrics.refreshers:
            await refresh()
    assert read(*failures) == 1
    assert read(failures[0], {"issuer": issuer.url}) == 0
    age = read("function_builder_oidc_keys_age_seconds", {"issuer": issuer.url})
    assert age is not None
    assert age >= 0


def test_a_builder_without_issuers_does_not_load_the_library() -> None:
    code = "import sys, function_builder.server.tenancy; print('jwt' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "False\n"
