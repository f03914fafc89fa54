"""A browser that signs in with a bearer token of a tenant."""

import asyncio
import hashlib
import time
from pathlib import Path
from typing import Any

import pytest

from function_builder.contract.web import parse_web_session, web_session
from function_builder.queue.port import QueueUnavailable
from function_builder.server.service import Service
from function_builder.server.web import session
from tests.support import until
from tests.support.issuer import AUDIENCE, Issuer
from tests.support.requests import SECRET
from tests.unit.function_builder.server.test_tenancy import started
from tests.unit.function_builder.server.test_web import ORIGIN, browser, kept

READS, BUILDS, ONLY_BUILDS = "fbk_reads", "fbk_builds", "fbk_only"


def file(issuer: Issuer) -> str:
    tokens = {READS: "[read]", BUILDS: "[read, build]", ONLY_BUILDS: "[build]"}
    lines = ["tenants:", "  acme:", "    tokens:"]
    for token, scopes in tokens.items():
        digest = hashlib.sha256(token.encode()).hexdigest()
        lines.append(f"      - {{sha256: {digest}, scopes: {scopes}}}")
    claims = f"{{issuer: {issuer.url}, audience: {AUDIENCE}, claims: {{repository_owner: acme}}}}"
    return "\n".join([*lines, f"    oidc: [{claims}]"])


@pytest.fixture
def service(tmp_path: Path, issuer: Issuer) -> Service:
    (tmp_path / "payload-secret").write_text(SECRET)
    (tmp_path / "tenants.yaml").write_text(file(issuer))
    service = started(tmp_path, web=True)
    kept(service.builds, "acme", image="r/acme:1")  # type: ignore[arg-type]
    kept(service.builds, "default", image="r/ours:1")  # type: ignore[arg-type]
    return service


async def signed_in(service: Service, token: str) -> dict[str, str]:
    """The headers of a browser after it."""
    async with browser(service, signed_in=False) as client:
        answer = await client.post("/web/sign-in", data={"token": token}, headers=ORIGIN)
    assert (answer.status_code, answer.headers["location"]) == (303, "builds"), answer.text
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=lax"} <= set(cookie.split("; "))
    assert token not in cookie
    return {"cookie": cookie.partition(";")[0]}


async def builds_page(service: Service, sent: dict[str, str]) -> Any:
    async with browser(service, signed_in=False) as client:
        return await client.get("/web/builds", headers=sent)


async def test_it_sees_the_builds_of_its_tenant_alone(service: Service, issuer: Issuer) -> None:
    for token in (READS, BUILDS, issuer.token()):
        page = await builds_page(service, await signed_in(service, token))
        assert (page.status_code, "r/acme:1" in page.text, "r/ours:1" in page.text) == (
            200,
            True,
            False,
        )


async def test_it_may_do_what_its_token_may(service: Service) -> None:
    (build_id,) = (await service.builds.list("acme", limit=9)).builds[0:1]  # type: ignore[union-attr]
    for token, status in ((READS, 403), (BUILDS, 303)):
        sent = await signed_in(service, token) | ORIGIN
        async with browser(service, signed_in=False) as client:
            page = await client.get(f"/web/builds/{build_id.id}", headers=sent)
            assert ("/cancel" in page.text) is (status == 303)
            answer = await client.post(f"/web/builds/{build_id.id}/cancel", headers=sent)
            assert answer.status_code == status
            assert (await client.post("/web/sign-out", headers=sent)).status_code == 303
    async with browser(service, signed_in=False) as client:
        answer = await client.post("/web/sign-in", data={"token": ONLY_BUILDS}, headers=ORIGIN)
    assert (answer.status_code, "scope read" in answer.text) == (403, True)


class MemorySignOuts:
    """The sign-outs of all builders."""

    def __init__(self) -> None:
        self.ended: set[str] = set()
        self.broken = False

    async def add(self, session: str) -> None:
        self._check()
        self.ended.add(session)

    async def contain(self, session: str) -> bool:
        self._check()
        return session in self.ended

    def _check(self) -> None:
        if self.broken:
            raise QueueUnavailable("the queue cannot be reached")


async def test_a_sign_out_ends_one_session_on_all_builders(
    service: Service, issuer: Issuer, tmp_path: Path
) -> None:
    service.sign_outs = MemorySignOuts()
    other = started(tmp_path, web=True)
    other.builds, other.sign_outs = service.builds, service.sign_outs
    for token in (READS, issuer.token(exp=int(time.time()) + 100)):
        gone, stays = await signed_in(service, token), await signed_in(service, token)
        async with browser(service, signed_in=False) as client:
            answer = await client.post("/web/sign-out", headers=gone | ORIGIN)
            assert "Max-Age=0" in answer.headers["set-cookie"]
        for each in (service, other):
            assert (await builds_page(each, gone)).status_code == 401
            assert (await builds_page(each, stays)).status_code == 200


async def test_a_log_ends_when_the_browser_signs_out_at_another_builder(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "CHECK_SECONDS", 0.01)
    other = started(tmp_path, web=True)
    other.builds = service.builds
    service.sign_outs = other.sign_outs = MemorySignOuts()
    build = kept(service.builds, "acme")  # type: ignore[arg-type]
    sent = await signed_in(service, READS)
    async with browser(service, signed_in=False) as client, browser(other, signed_in=False) as last:
        reading = asyncio.create_task(client.get(f"/web/builds/{build.id}/log", headers=sent))
        await until(lambda: service.builds.followers == 1)  # type: ignore[union-attr]
        await last.post("/web/sign-out", headers=sent | ORIGIN)
        assert (await reading).status_code == 200


async def test_without_nats_a_session_stays_and_a_sign_out_removes_the_cookie(
    service: Service,
) -> None:
    service.sign_outs = sign_outs = MemorySignOuts()
    sign_outs.broken = True
    sent = await signed_in(service, READS)
    async with browser(service, signed_in=False) as client:
        answer = await client.post("/web/sign-out", headers=sent | ORIGIN)
        assert "Max-Age=0" in answer.headers["set-cookie"]
    assert (await builds_page(service, sent)).status_code == 200


async def test_a_session_ends_with_its_token(
    service: Service, issuer: Issuer, tmp_path: Path
) -> None:
    sent = [await signed_in(service, token) for token in (READS, issuer.token())]
    text = (tmp_path / "tenants.yaml").read_text()
    digest = hashlib.sha256(READS.encode()).hexdigest()
    text = text.replace(f"      - {{sha256: {digest}, scopes: [read]}}\n", "")
    (tmp_path / "tenants.yaml").write_text(text.replace("repository_owner: acme", "sub: a"))
    await service.tenants.refresh()  # type: ignore[union-attr]
    assert [(await builds_page(service, each)).status_code for each in sent] == [401, 401]


async def test_a_session_ends_when_its_oidc_token_expires(service: Service, issuer: Issuer) -> None:
    expires = int(time.time()) + 100
    sent = await signed_in(service, issuer.token(exp=expires))
    found = parse_web_session(sent["cookie"].partition("=")[2])
    assert found is not None
    assert found.expires == expires
    assert not found.valid([SECRET.encode()], expires)


async def test_a_session_of_others_is_not_accepted(service: Service) -> None:
    digest = hashlib.sha256(READS.encode()).hexdigest()[:8]
    later = int(time.time()) + 60
    number = "0" * 16
    good = web_session(SECRET.encode(), "acme", later, [digest], number)
    assert (await builds_page(service, {"cookie": f"function-builder={good}"})).status_code == 200
    for wrong in (
        web_session(b"another secret", "acme", later, [digest], number),
        web_session(SECRET.encode(), "default", later, [digest], number),
        web_session(SECRET.encode(), "acme", int(time.time()) - 1, [digest], number),
        web_session(SECRET.encode(), "acme", later, ["00000000"], number),
        good.replace(number, "1" * 16),
        good.replace("acme", "zeta"),
        READS,
    ):
        answer = await builds_page(service, {"cookie": f"function-builder={wrong}"})
        assert answer.status_code == 401


async def test_a_token_that_is_not_accepted_is_not_shown(service: Service) -> None:
    async with browser(service, signed_in=False) as client:
        answer = await client.post("/web/sign-in", data={"token": "fbk_unknown"}, headers=ORIGIN)
    assert (answer.status_code, "fbk_unknown" in answer.text) == (401, False)
