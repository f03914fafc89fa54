"""The BuildKits in the API and on their page: for the operator alone."""

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import httpx2
import pytest

from function_builder.buildkits.cache_use import CacheUse
from function_builder.contract.web import web_token
from function_builder.server.app import create_app
from function_builder.server.service import Service
from tests.support.requests import SECRET
from tests.unit.function_builder.server.test_audit import lines
from tests.unit.function_builder.server.test_tenancy import (
    ACME,
    BUILDS,
    FILE,
    READS,
    ZETA,
    ask,
    post,
    send,
    started,
)
from tests.unit.function_builder.server.test_web import ORIGIN

PRUNE = "/buildkits/prune"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    for name, content in (("payload-secret", SECRET), ("acme", ACME), ("zeta", ZETA)):
        (tmp_path / name).write_text(content)
    (tmp_path / "hook").write_text("whsec_" + 32 * "A")
    (tmp_path / "tenants.yaml").write_text(FILE)
    service = started(tmp_path, web=True, audit_log=str(tmp_path / "audit.log"))
    yield service
    assert service.audit is not None
    service.audit.close()


@pytest.fixture
def address(service: Service) -> str:
    (address,) = service.pools.shared.daemons
    return address


async def test_the_operator_sees_a_buildkit_that_is_away(service, address):
    await service.pools.shared.daemons[address].ask()
    answer = await ask(service, "/buildkits", SECRET)
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["buildkits"]
    assert "absent.sock" in found.pop("reason")
    expected = {"address": address, "reachable": False, "runningBuilds": 0, "workers": []}
    assert found == expected
    assert answer.json()["signature"]


async def test_no_tenant_sees_or_prunes_one(service, address, tmp_path):
    for method, target, token in (
        ("GET", "/buildkits", READS),
        ("POST", f"{PRUNE}?{urlencode({'address': address})}", BUILDS),
    ):
        signed = await ask(service, target, ACME, method, x_build_tenant="acme")
        bearer = await send(service, method, target, {"Authorization": f"Bearer {token}"})
        assert (signed.status_code, bearer.status_code) == (403, 403)
        assert (await send(service, method, target, {})).status_code == 401
    told = [(line["event"], line["decision"], line["tenant"]) for line in lines(tmp_path)]
    one = [("denied", "acme"), ("denied", "acme"), ("denied", "")]
    assert told == [
        (event, *each) for event in ("buildkits.read", "buildkits.prune") for each in one
    ]


async def test_the_pages_show_the_operator_all_and_a_tenant_its_own(service, address):
    daemon = service.pools.shared.daemons[address]
    await daemon.ask()
    daemon.cache = [CacheUse("regular", 2, 3_000_000, 2_000_000), CacheUse("internal", 1, 5, 5)]
    await post(service, ACME, x_build_tenant="acme")
    await post(service, ZETA, x_build_tenant="zeta")
    until = int(time.time()) + 600
    transport = httpx2.ASGITransport(create_app(service), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://builder/web/") as client:
        client.cookies.set("function-builder", web_token(SECRET.encode(), "default", until))
        page = (await client.get("buildkits")).text
        assert ("3.0 MB" in page, "2.0 MB" in page, "unreachable" in page) == (True, True, True)
        assert "kind=regular" in page
        assert "kind=internal" not in page
        query = urlencode({"address": address, "kind": "regular"})
        assert "Prune regular?" in (await client.get(f"buildkits/prune?{query}")).text
        assert (await client.post(f"buildkits/prune?{query}")).status_code == 403
        refused = await client.post(f"buildkits/prune?{query}", headers=ORIGIN)
        assert (refused.status_code, "not pruned" in refused.text) == (503, True)
        page = (await client.get("usage")).text
        assert ('<th scope="row">acme' in page, '<th scope="row">zeta' in page) == (True, True)
        page = (await client.get("usage?month=2020-02")).text
        assert ("Nothing was used" in page, "month=2020-01" in page) == (True, True)
        for month in ("2020", "0000-01", "9999-12", "2020-02-02"):
            assert (await client.get(f"usage?month={month}")).status_code == 400

        client.cookies.set("function-builder", web_token(ACME.encode(), "acme", until))
        page = (await client.get("usage")).text
        assert ('<th scope="row">acme' in page, '<th scope="row">zeta' in page) == (True, False)
        assert "BuildKits" not in page
        prune = f"buildkits/prune?{query}"
        for method, path in (("GET", "buildkits"), ("GET", prune), ("POST", prune)):
            answer = await client.request(method, path, headers=ORIGIN)
            assert (answer.status_code, address in answer.text) == (403, False)


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"address": "unix:///other"}, 404, "unix:///other"),
        ({"address": ""}, 404, "address"),
        ({"kind": "a,b"}, 400, "such as source.local"),
        ({"kind": "regular"}, 503, "not pruned to the end"),
    ],
)
async def test_a_prune_that_is_refused(service, address, query, status, words):
    query = query if "kind" not in query else {"address": address} | query
    answer = await ask(service, f"{PRUNE}?{urlencode(query)}", SECRET, "POST")
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, words in answer.json()["detail"]) == (status, True)
