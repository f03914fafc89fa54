"""A browser that signs in at an issuer: all that can go wrong on its way. Chromium: test_web.py."""

import base64
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from function_builder.errors import StartError
from function_builder.server import identity
from function_builder.server.service import Service
from function_builder.server.start_checks import _check_sign_in
from tests.support.issuer import Issuer, as_json, fields
from tests.support.requests import SECRET
from tests.unit.function_builder.server.test_tenancy import started
from tests.unit.function_builder.server.test_web import browser, kept

CLIENT = "the builder"


@pytest.fixture
def service(tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> Service:
    issuer.allow_sign_in(CLIENT, groups=["x", "acme"])
    monkeypatch.setattr(identity, "REJECTED_SECONDS", 0.0)
    (tmp_path / "payload-secret").write_text(SECRET)
    (tmp_path / "client").write_text("a secret: of ours\n")
    trust = f"{{issuer: {issuer.url}, audience: {CLIENT}, claims: {{groups: acme}}}}"
    (tmp_path / "tenants.yaml").write_text(f"tenants: {{acme: {{oidc: [{trust}]}}}}")
    service = started(
        tmp_path,
        web=True,
        web_url="http://builder/",
        web_oidc_issuer=issuer.url,
        web_oidc_client_id=CLIENT,
        web_oidc_client_secret_file=str(tmp_path / "client"),
    )
    kept(service.builds, "acme", image="r/acme:1")  # type: ignore[arg-type]
    return service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    async with browser(service, signed_in=False) as client:
        yield client


async def begun(client: httpx2.AsyncClient) -> str:
    """Begin; the path and query at which the issuer sends the browser back."""
    answer = await client.get("/web/oidc")
    assert answer.status_code == 303, answer.text
    async with httpx2.AsyncClient(timeout=60, verify=False) as outside:
        sent = await outside.get(answer.headers["location"])
    location = sent.headers["location"]
    assert location.startswith("http://builder/web/oidc-callback?")
    return str(location.removeprefix("http://builder"))


async def test_a_user_of_the_issuer_is_signed_in(client: Any, issuer: Issuer) -> None:
    assert 'href="http://builder/web/oidc"' in (await client.get("/web/sign-in")).text
    ended = await client.get(await begun(client))
    assert (ended.status_code, ended.headers["location"]) == (303, "builds")
    assert "r/acme:1" in (await client.get("/web/builds")).text
    asked, exchanged = issuer.forms
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == exchanged["redirect_uri"]
    proof = base64.b64decode(exchanged["authorization"].removeprefix("Basic ")).decode()
    assert proof == "the+builder:a+secret%3A+of+ours"


async def test_only_the_browser_that_began_can_end(client: Any, service: Service) -> None:
    """Another site cannot sign a browser in with a code of its own user."""
    path = await begun(client)
    async with browser(service, signed_in=False) as victim:
        for begin in (False, True):
            if begin:
                await victim.get("/web/oidc")
            answer = await victim.get(path)
            assert (answer.status_code, "did not begin" in answer.text) == (400, True)
            assert "function-builder=" not in answer.headers["set-cookie"]
    assert (await client.get(path)).status_code == 303
    again = await client.get(path)
    assert again.status_code == 400


async def test_the_cookie_of_a_flow_is_the_hosts_own(client: Any) -> None:
    answer = await client.get("/web/oidc", headers={"x-forwarded-proto": "https"})
    cookie = answer.headers["set-cookie"].split("; ")
    assert cookie[0].startswith("__Host-function-builder-oidc=")
    assert {"HttpOnly", "Secure", "Path=/", "SameSite=lax"} <= set(cookie)


@pytest.mark.parametrize(
    ("claims", "status", "words"),
    [
        ({"nonce": "another"}, 401, "not of this sign-in"),
        ({"nonce": None}, 401, "not of this sign-in"),
        ({"azp": "another client"}, 401, "not of this sign-in"),
        ({"aud": "another client"}, 401, "not accepted"),
        ({"groups": ["x"]}, 401, "not accepted"),
        ({"iss": "https://other.example.com"}, 401, "not accepted"),
    ],
)
async def test_a_token_of_another_flow_is_refused(
    client: Any, issuer: Issuer, claims: dict[str, Any], status: int, words: str
) -> None:
    issuer.allow_sign_in(CLIENT, **({"groups": "acme"} | claims))
    answer = await client.get(await begun(client))
    assert (answer.status_code, words in answer.text) == (status, True), answer.text
    assert "function-builder=" not in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"iss": "https://other.example.com"}, 400, "another issuer"),
        ({"code": "", "error": "<b>access_denied"}, 403, "&lt;b&gt;access_denied"),
        ({"code": "wrong"}, 502, "gave no token"),
        ({"next": "https://evil.example.com"}, 303, ""),
    ],
)
async def test_what_comes_back_from_the_issuer(
    client: Any, more: dict[str, str], status: int, words: str
) -> None:
    path, _, query = (await begun(client)).partition("?")
    sent = {name: value for name, value in (fields(query) | more).items() if value}
    answer = await client.get(path, params=sent)
    assert (answer.status_code, words in answer.text) == (status, True)
    assert answer.headers.get("location", "builds") == "builds"


async def test_an_issuer_that_does_not_answer_is_asked_once(client: Any, issuer: Issuer) -> None:
    discovery = "/.well-known/openid-configuration"
    issuer.answers[discovery] = lambda _: (503, {}, b"")
    for _ in range(3):
        assert (await client.get("/web/oidc")).status_code == 502
    assert issuer.asked.count(discovery) == 1


async def test_an_answer_without_a_token_is_refused(client: Any, issuer: Issuer) -> None:
    issuer.answers["/token"] = lambda _: as_json({"access_token": "a"})
    assert (await client.get(await begun(client))).status_code == 502


def test_settings_that_do_not_fit_are_refused_at_the_start(service: Service) -> None:
    right = dataclasses.replace(service.settings, web_url="https://builder.example.com")
    _check_sign_in(right)
    for wrong in ({"tenants_file": ""}, {"web_oidc_client_id": ""}, {"web_url": "builder"}):
        changed: Any = wrong
        with pytest.raises(StartError, match="web_"):
            _check_sign_in(dataclasses.replace(right, **changed))


async def test_without_the_setting_there_is_no_issuer(service: Service) -> None:
    service.settings = dataclasses.replace(service.settings, web_oidc_issuer="")
    async with browser(service, signed_in=False) as client:
        for path in ("/web/oidc", "/web/oidc-callback"):
            assert (await client.get(path)).status_code == 404
