"""nginx and HAProxy keep connections to a builder; none is closed under a request."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import httpx2
import pytest

from tests.support import until
from tests.support.builders import running_builder
from tests.support.http_proxies import counted, haproxy, nginx
from tests.support.requests import headers, make_tar

pytestmark = pytest.mark.integration

CLIENTS = 4
NGINX_KEEPS = 0.4
"""Seconds; nginx's own default is 60."""


async def posts(url: str, pauses: list[float]) -> Counter[int]:
    """Send unsigned requests, which a builder answers at once, with pauses; their statuses."""
    found: Counter[int] = Counter()
    # The client's own connections to nginx are not what is tried: each request has a new one.
    async with httpx2.AsyncClient(
        headers={"Connection": "close"}, timeout=60, verify=False
    ) as http:
        for pause in pauses:
            found[(await http.post(f"{url}/build", content=b"x")).status_code] += 1
            await asyncio.sleep(pause)
    return found


async def tried(url: str, pauses: list[float]) -> Counter[int]:
    each = await asyncio.gather(*(posts(url, pauses) for _ in range(CLIENTS)))
    return sum(each, Counter())


@pytest.mark.parametrize(("keeps", "closes_first"), [("30s", False), ("0.1s", True)])
async def test_the_side_that_keeps_connections_shorter_closes_them(tmp_path, keeps, closes_first):
    """While that is nginx, it never sends a request on a connection that the builder closes."""
    # Before, at and after the time at which nginx closes one.
    pauses = [NGINX_KEEPS * part for part in (0.5, 0.97, 1, 1.03, 0, 0)]
    async with (
        running_builder(
            tmp_path / "b", "unix:///absent", wait_for="/healthz", keep_alive_timeout=keeps
        ) as builder,
        nginx(tmp_path / "n", builder.url, keeps=NGINX_KEEPS) as url,
    ):
        statuses = await tried(url, pauses)
        await until(lambda: connections(builder.url, ESTABLISHED) == 0)
        assert (connections(builder.url, TIME_WAIT) > 0) is closes_first
        if not closes_first:
            assert statuses == {401: CLIENTS * len(pauses)}


async def test_a_builder_that_drains_loses_no_request_of_nginx(tmp_path):
    async with (
        running_builder(
            tmp_path / "b", "unix:///absent", wait_for="/healthz", drain_delay="100s"
        ) as builder,
        nginx(tmp_path / "n", builder.url, keeps=NGINX_KEEPS) as url,
    ):
        await tried(url, [0])
        sending = asyncio.create_task(tried(url, [0.05] * 10))
        builder.terminate()
        assert await sending == {401: CLIENTS * 10}
        # Each answer since SIGTERM was its connection's last.
        await until(lambda: connections(builder.url, ESTABLISHED) == 0)
        assert builder.process.returncode is None


PROXIES: Mapping[str, Callable[[Path, str], AbstractAsyncContextManager[str]]] = {
    "nginx": partial(nginx, connection="Upgrade"),
    "haproxy": haproxy,
}
"""Those that pass an offer to upgrade on to the builder."""


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
@pytest.mark.parametrize("proxy", PROXIES)
async def test_a_body_that_is_a_request_is_none_behind_a_proxy_that_upgrades(
    tmp_path, buildkitd, proxy, upgrade
):
    """The proxy sends the head and such a body at once, and then others' requests after them."""
    inner = f"Host: a\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\nContent-Length: 5000\r\n"
    bodies = ["GET /absent HTTP/1.1\r\nHost: a\r\n\r\n", f"POST /build HTTP/1.1\r\n{inner}\r\n"]
    async with (
        running_builder(tmp_path / "b", buildkitd) as builder,
        counted(builder.url) as (counted_url, connections_made),
        PROXIES[proxy](tmp_path / "p", counted_url) as url,
        httpx2.AsyncClient(timeout=60, verify=False) as http,
    ):
        for number, smuggled in enumerate(bodies):
            offer = {"Upgrade": upgrade, "Connection": "Upgrade"}
            refused = await http.post(f"{url}/build", content=smuggled, headers=offer)
            assert refused.status_code == 401
            dockerfile = f"FROM busybox\nRUN echo built {number} {upgrade} {proxy}\n"
            body = make_tar({"Dockerfile": dockerfile}, {"skipPush": True})
            answer = await http.post(f"{url}/build", content=body, headers=headers(body))
            assert answer.json()["status"] == "success", answer.text
            last = f" built {number} {upgrade} {proxy}"
            assert any(line.endswith(last) for line in answer.json()["log"])
        await builder.until_requests(2 * len(bodies))
        # That of the proxy's first question, for /healthz: all requests followed one another on it.
        assert len(connections_made) == 1


ESTABLISHED, TIME_WAIT = "01", "06"
"""States in Linux's proc_net_tcp.txt; the side that closes first waits for a minute."""


def connections(url: str, state: str) -> int:
    """How many connections of a builder are in a state, on its own side."""
    port = int(url.rpartition(":")[2])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == state for row in rows)
