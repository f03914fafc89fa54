"""The web pages over HTTP, without a browser: who may see them, and what they hold."""

import asyncio
import dataclasses
import time
from typing import Any

import httpx2
import pytest

from function_builder.builds.source_policy import SourcePolicy
from function_builder.contract.builds import BuildInfo, BuildState, new_id
from function_builder.contract.errors import Refusal
from function_builder.contract.findings import BuildWarning, SourceExcerpt
from function_builder.contract.tenancy import Limits
from function_builder.contract.web import web_token
from function_builder.registries.credentials import RegistryCredentials
from function_builder.server.app import create_app
from function_builder.server.quotas import Quotas
from function_builder.server.service import Service
from function_builder.server.tenancy import read_tenancy
from function_builder.server.web import session
from function_builder.settings import Settings
from tests.support import until
from tests.support.memory_builds import MemoryBuilds
from tests.support.requests import SECRET, headers, make_tar
from tests.support.services import idle_service

ORIGIN = {"origin": "http://builder"}
CANARY = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'{{7*7}}"


@pytest.fixture
def builds() -> MemoryBuilds:
    return MemoryBuilds()


@pytest.fixture
async def service(tmp_path, builds) -> Service:
    (tmp_path / "payload-secret").write_text(SECRET)
    service = idle_service(tmp_path, disable_hmac=False, secret_mount_path=tmp_path, web=True)
    service.builds = builds
    return service


def browser(service: Service, *, signed_in: bool = True) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(create_app(service), raise_app_exceptions=False)
    client = httpx2.AsyncClient(transport=transport, base_url="http://builder")
    if signed_in:
        token = web_token(SECRET.encode(), "default", int(time.time()) + 60)
        client.cookies.set("function-builder", token, path="/web")
    return client


def kept(builds: MemoryBuilds, tenant: str = "default", **fields: Any) -> BuildInfo:
    given = {"state": BuildState.RUNNING, "started": 1e9, "image": "r/f:1", "repository": "r/f"}
    info = BuildInfo(**{"id": new_id(), "created": 1e9, **given, **fields})
    builds.record_start(tenant, info)
    return info


async def queued(service: Service) -> str:
    """A build that was submitted, and so has a body."""
    body = make_tar({"Dockerfile": "FROM scratch\n"}, {"image": "r/f:1"})
    async with browser(service) as client:
        answer = await client.post(
            "/build", content=body, headers=headers(body) | {"prefer": "respond-async"}
        )
    return str(answer.json()["buildId"])


async def test_without_the_setting_there_are_no_pages(tmp_path):
    async with browser(idle_service(tmp_path)) as client:
        for path in ("/", "/web", "/web/builds", "/web/sign-in", "/web/static/style.css"):
            assert (await client.get(path)).status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/web/builds"),
        ("GET", "/web/builds/{id}"),
        ("GET", "/web/builds/{id}/log"),
        ("GET", "/web/builds/{id}/log.txt"),
        ("POST", "/web/builds/{id}/cancel"),
        ("POST", "/web/builds/{id}/retry"),
        ("GET", "/web/builds/000000000000000000000000"),
    ],
)
async def test_a_browser_that_is_not_signed_in_learns_nothing(service, builds, method, path):
    info = kept(builds)
    other = web_token(b"another secret", "default", int(time.time()) + 60)
    async with browser(service, signed_in=False) as client:
        for cookie in ("", other, web_token(SECRET.encode(), "default", int(time.time()) - 1)):
            client.cookies.set("function-builder", cookie, path="/web")
            answer = await client.request(method, path.format(id=info.id), headers=ORIGIN)
            assert answer.status_code == 401
            assert "<h1>Sign in</h1>" in answer.text
            assert "r/f" not in answer.text
    assert (await builds.get("default", info.id)).state is BuildState.RUNNING


async def test_a_link_signs_a_browser_in_and_a_button_out(service, builds):
    kept(builds, image="r/mine:1")
    token = web_token(SECRET.encode(), "default", int(time.time()) + 60)
    async with browser(service, signed_in=False) as client:
        wrong = await client.get("/web/sign-in", params={"token": token + "0"})
        assert (wrong.status_code, "not valid" in wrong.text) == (403, True)
        answer = await client.get("/web/sign-in", params={"token": token})
        assert (answer.status_code, answer.headers["location"]) == (303, "builds")
        cookie = answer.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=lax"} <= set(cookie.split("; "))
        # Without a path, a browser takes the directory of the link, behind any prefix of a proxy.
        assert "Path" not in cookie
        assert "Secure" not in cookie
        sent = {"cookie": cookie.partition(";")[0]}
        assert "r/mine:1" in (await client.get("/web/builds", headers=sent)).text
        again = await client.get("/web/sign-in", params={"token": token})
        assert again.headers["set-cookie"] != cookie
        gone = await client.post("/web/sign-out", headers=sent | ORIGIN)
        assert (gone.headers["location"], "Max-Age=0" in gone.headers["set-cookie"]) == (
            "sign-in",
            True,
        )


@pytest.mark.parametrize(
    ("token", "status"),
    [("", 403), ("fbk_unknown", 403), ("a.b.c", 403), (65_536 * "a", 413)],
)
async def test_a_form_with_another_token_signs_no_browser_in(service, token, status):
    async with browser(service, signed_in=False) as client:
        answer = await client.post("/web/sign-in", data={"token": token}, headers=ORIGIN)
    assert (answer.status_code, "set-cookie" in answer.headers) == (status, False)


async def test_a_cookie_that_came_over_https_stays_there(service):
    token = web_token(SECRET.encode(), "default", int(time.time()) + 60)
    async with browser(service, signed_in=False) as client:
        sent = {"x-forwarded-proto": "https"}
        answer = await client.get("/web/sign-in", params={"token": token}, headers=sent)
        assert "Secure" in answer.headers["set-cookie"].split("; ")


OTHER_SITES = pytest.mark.parametrize(
    "site",
    [
        {"sec-fetch-site": "cross-site", "origin": "http://builder"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {},
    ],
)


@OTHER_SITES
async def test_another_site_signs_no_browser_in(service, site):
    token = web_token(SECRET.encode(), "default", int(time.time()) + 60)
    async with browser(service, signed_in=False) as client:
        answer = await client.post("/web/sign-in", data={"token": token}, headers=site)
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


@OTHER_SITES
async def test_another_site_changes_nothing(service, builds, site):
    info = kept(builds)
    async with browser(service) as client:
        answer = await client.post(f"/web/builds/{info.id}/cancel", headers=site)
    assert answer.status_code == 403
    assert (await builds.get("default", info.id)).state is BuildState.RUNNING


async def test_cancel_and_build_again(service, builds):
    build_id = await queued(service)
    async with browser(service) as client:
        page = (await client.get(f"/web/builds/{build_id}")).text
        assert "place 1" in (await client.get("/web/builds")).text
        assert f'action="{build_id}/cancel"' in page
        answer = await client.post(f"/web/builds/{build_id}/cancel", headers=ORIGIN)
        assert (answer.status_code, answer.headers["location"]) == (303, f"../{build_id}")
        page = (await client.get(f"/web/builds/{build_id}")).text
        assert '<span class="state cancelled">' in page
        answer = await client.post(f"/web/builds/{build_id}/retry", headers=ORIGIN)
        new = answer.headers["location"].removeprefix("../")
        assert (answer.status_code, new != build_id) == (303, True)
        assert f'href="{build_id}"' in (await client.get(f"/web/builds/{new}")).text


async def test_building_again_counts_as_a_build_of_the_hour(service, builds):
    build_id = await queued(service)
    service.quotas = Quotas(lambda _: Limits(builds_per_hour=1))
    async with browser(service) as client:
        target = f"/web/builds/{build_id}"
        await client.post(f"{target}/cancel", headers=ORIGIN)
        answers = [await client.post(f"{target}/retry", headers=ORIGIN) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [303, 429]


async def test_a_list_has_pages_and_filters(service, builds):
    for number in range(120):
        state = BuildState.FAILED if number % 40 == 0 else BuildState.QUEUED
        kept(
            builds,
            id=new_id(1e9 + number),
            image=f"r/n{number % 2}:{number}",
            repository=f"r/n{number % 2}",
            state=state,
        )
    async with browser(service) as client:
        first = (await client.get("/web/builds")).text
        assert (first.count("<tr id="), "r/n1:119" in first) == (50, True)
        assert "list.js" in first
        second = await client.get("/web/" + _href(first, 'rel="next"'))
        assert (second.text.count("<tr id="), "r/n1:69" in second.text) == (50, True)
        # An old page does not change.
        assert "list.js" not in second.text
        third = await client.get("/web/" + _href(second.text, 'rel="next"'))
        assert (third.text.count("<tr id="), 'rel="next"' in third.text) == (20, False)
        failed = await client.get("/web/builds", params={"status": "failed", "repository": "r/n0"})
        assert failed.text.count("<tr id=") == 3
        none = await client.get("/web/builds", params={"repository": "r/other"})
        assert "No build matches." in none.text
        wrong = await client.get("/web/builds", params={"status": "<b>"})
        assert (wrong.status_code, "<b>" in wrong.text) == (400, False)


def _href(page: str, mark: str) -> str:
    return page.partition(f'{mark} href="')[2].partition('"')[0].replace("&amp;", "&")


async def test_what_tenants_write_is_text(service, builds):
    info = kept(
        builds,
        image=CANARY,
        repository=CANARY,
        requester=CANARY,
        retry_of=CANARY,
        phases={CANARY: 1.0},
    )
    builds.end(
        info.id,
        BuildState.FAILED,
        error=CANARY,
        step=CANARY,
        source=SourceExcerpt(CANARY, 1, 1, CANARY),
        warnings=[BuildWarning(message=CANARY, rule=CANARY, url=CANARY, file=CANARY, line=1)],
    )
    succeeded = kept(builds, image=CANARY, repository=CANARY)
    builds.end(succeeded.id, BuildState.SUCCESS, digest=CANARY, digests={CANARY: CANARY, "b": "c"})
    async with browser(service) as client:
        for path in ("", f"/{info.id}", f"/{succeeded.id}", f"?repository={CANARY}"):
            answer = await client.get(f"/web/builds{path}")
            assert answer.status_code == 200
            assert "<img" not in answer.text.replace('<img src="static/icon.svg"', "").replace(
                '<img src="../static/icon.svg"', ""
            )
            assert "alert(1)</script>" not in answer.text
            policy = answer.headers["content-security-policy"]
            assert "script-src 'self'" in policy
            assert "unsafe" not in policy


async def test_the_facts_of_a_build(service, builds):
    info = kept(builds, image="r/f:1", attempt=2)
    builds.end(info.id, BuildState.SUCCESS, digest="sha256:" + "ab" * 32)
    ended = await builds.get("default", info.id)
    builds._kept[info.id].info = dataclasses.replace(ended, ended=1e9 + 125)
    async with browser(service) as client:
        page = (await client.get(f"/web/builds/{info.id}")).text
    pinned = f"r/f:1@sha256:{'ab' * 32}"
    assert f"faas-cli deploy --name f --image {pinned}" in page
    assert f"docker run --rm -p 8080:8080 {pinned}" in page
    assert "2 min 05 s" in page
    assert "<dt>Attempt</dt><dd>2</dd>" in page


async def test_the_log_as_text_and_as_lines(service, builds):
    info = kept(builds)
    builds.write(info.id, ["one <b>", "two"])
    builds.end(info.id, BuildState.SUCCESS)
    async with browser(service) as client:
        text = await client.get(f"/web/builds/{info.id}/log.txt")
        assert text.headers["content-type"] == "text/plain; charset=utf-8"
        assert text.text == "one <b>\ntwo\n"
        lines = await client.get(f"/web/builds/{info.id}/log?after=1")
        assert lines.text.count("one <b>") == 0
        assert lines.text.count("two") == 1
        for after in ("-1", "x", "9" * 16):
            wrong = await client.get(f"/web/builds/{info.id}/log", params={"after": after})
            assert wrong.status_code == 400


@pytest.mark.parametrize("end", ["sign-out", "expiry", "rotation"])
async def test_a_log_ends_with_the_session(service, builds, monkeypatch, end):
    monkeypatch.setattr(session, "CHECK_SECONDS", 0.01)
    info = kept(builds)
    builds.write(info.id, ["one"])
    async with browser(service) as client:
        log = f"/web/builds/{info.id}/log"
        # The answers of this transport are whole: they come after the end of the streams.
        reading = asyncio.gather(client.get(log), client.get(f"{log}.txt"))
        await until(lambda: builds.followers == 2)
        if end == "sign-out":
            await client.post("/web/sign-out", headers=ORIGIN)
        elif end == "expiry":
            then = time.time() + 60
            monkeypatch.setattr("time.time", lambda: then)
        else:
            (service.settings.secret_mount_path / "payload-secret").write_text("another secret")
        for answer in await reading:
            assert ("one" in answer.text, "success" in answer.text) == (True, False)
    assert (await builds.get("default", info.id)).state is BuildState.RUNNING


async def test_refusals_are_pages(service, builds):
    async with browser(service) as client:
        for build_id in ("0" * 24, "nothing", "%2e%2e"):
            answer = await client.get(f"/web/builds/{build_id}")
            assert (answer.status_code, "no such build" in answer.text) == (404, True)
        for path in ("/web/static/routes.py", "/web/nothing", "/web/builds/a/b"):
            answer = await client.get(path)
            assert (answer.status_code, "<h1>Not Found</h1>" in answer.text) == (404, True)
        builds.broken = Refusal(503, "the queue cannot be reached")
        answer = await client.get("/web/builds")
        assert (answer.status_code, "cannot be reached" in answer.text) == (503, True)
        service.builds = None
        answer = await client.get("/web/builds")
        assert (answer.status_code, "nats_url" in answer.text) == (501, True)


async def test_a_builder_without_signatures_asks_for_none(tmp_path, builds):
    service = idle_service(tmp_path, web=True)
    service.builds = builds
    kept(builds, image="r/open:1")
    async with browser(service, signed_in=False) as client:
        page = (await client.get("/", follow_redirects=True)).text
    assert "r/open:1" in page
    assert "Sign out" not in page


async def test_a_tenant_sees_its_own_builds_alone(service, builds, tmp_path):
    (tmp_path / "acme").write_text("the secret of acme")
    (tmp_path / "tenants.yaml").write_text("tenants:\n  acme: {payload_secret_file: acme}\n")
    service.tenants = read_tenancy(
        Settings(tenants_file=str(tmp_path / "tenants.yaml"), secret_mount_path=tmp_path),
        RegistryCredentials(None),
        SourcePolicy(),
    )
    theirs = kept(builds, image="r/default:1")
    own = kept(builds, image="r/acme:1", tenant="acme")
    until = int(time.time()) + 60
    async with browser(service, signed_in=False) as client:
        client.cookies.set("function-builder", web_token(b"the secret of acme", "acme", until))
        page = (await client.get("/web/builds")).text
        assert ("r/acme:1" in page, "r/default:1" in page) == (True, False)
        assert (await client.get(f"/web/builds/{own.id}")).status_code == 200
        absent = await client.get("/web/builds/000000000000000000000000")
        for method, path in (
            *(("GET", ""), ("GET", "/log"), ("GET", "/log.txt")),
            *(("POST", "/cancel"), ("POST", "/retry")),
        ):
            target = f"/web/builds/{theirs.id}{path}"
            answer = await client.request(method, target, headers=ORIGIN)
            text = answer.text.replace("../../", "../")
            assert (answer.status_code, text) == (404, absent.text)
        # Another tenant's secret makes no token for a tenant, or for one that does not exist.
        for tenant in ("default", "acme", "nobody"):
            wrong = web_token(b"the secret of another", tenant, until)
            client.cookies.set("function-builder", wrong)
            assert (await client.get("/web/builds")).status_code == 401
    assert (await builds.get("default", theirs.id)).state is BuildState.RUNNING
