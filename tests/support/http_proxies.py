"""nginx or HAProxy in front of a builder, and the connections that they make to it."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2

from tests.support import free_address
from tests.support.proxies import hand_on
from tests.support.servers import serving

NGINX = """
daemon off;
master_process off;
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    upstream builder {{
        server {builder};
        keepalive 32;
        keepalive_timeout {keeps}ms;
    }}
    server {{
        listen {listen};
        location {location} {{
            proxy_pass http://builder{path};
            proxy_http_version 1.1;
            proxy_set_header Connection "{connection}";
            proxy_set_header Upgrade $http_upgrade;
        }}
    }}
}}
"""


HAPROXY = """
global
    nbthread 1
defaults
    mode http
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive {keeps}ms
frontend clients
    bind {listen}
    default_backend builder
backend builder
    http-reuse always
    server builder {builder} pool-purge-delay {keeps}ms
"""
"""A connection that one client's request has used serves those of all; each thread has its own."""


@asynccontextmanager
async def nginx(
    root: Path, builder_url: str, *, prefix: str = "", keeps: float = 60, connection: str = ""
) -> AsyncIterator[str]:
    """Run nginx in front of a builder; gives its URL.

    Args:
        root: a directory of its own.
        builder_url: where it sends requests.
        prefix: a path, which it removes from requests; it answers no others.
        keeps: seconds that it keeps an idle connection to the builder.
        connection: the header of that name in its requests.
    """
    listen = free_address()
    config = _write(
        root,
        NGINX,
        builder=builder_url.removeprefix("http://"),
        listen=listen,
        keeps=round(keeps * 1000),
        connection=connection,
        location=f"{prefix}/",
        path="/" if prefix else "",
    )
    async with _running("nginx", "-c", config, "-e", root / "error.log"):
        await _until_it_answers(f"http://{listen}{prefix}")
        yield f"http://{listen}{prefix}"


@asynccontextmanager
async def haproxy(root: Path, builder_url: str, *, keeps: float = 60) -> AsyncIterator[str]:
    """Run HAProxy in front of a builder; gives its URL.

    Args:
        root: a directory of its own.
        builder_url: where it sends requests.
        keeps: seconds after which it closes idle connections to the builder.
    """
    listen = free_address()
    builder = builder_url.removeprefix("http://")
    config = _write(root, HAPROXY, builder=builder, listen=listen, keeps=round(keeps * 1000))
    async with _running("haproxy", "-db", "-f", config):
        await _until_it_answers(f"http://{listen}")
        yield f"http://{listen}"


@asynccontextmanager
async def counted(builder_url: str) -> AsyncIterator[tuple[str, list[None]]]:
    """Another URL of a builder, and an item for each connection that is made to it."""
    host, _, port = builder_url.removeprefix("http://").partition(":")
    made: list[None] = []

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.append(None)
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(hand_on(reader, back), hand_on(there, writer))

    async with serving(connect) as address:
        yield f"http://{address}", made


@asynccontextmanager
async def _running(name: str, *arguments: str | Path) -> AsyncIterator[None]:
    program = shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin")
    assert program, f"scripts/packages proxies installs {name}"
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


def _write(root: Path, form: str, **values: object) -> Path:
    root.mkdir()
    config = root / "proxy.conf"
    config.write_text(form.format(root=root, **values))
    return config


async def _until_it_answers(url: str) -> None:
    # A question that is given up and asked again would be another connection to the builder.
    async with asyncio.timeout(60), httpx2.AsyncClient(timeout=60, verify=False) as http:
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if (await http.get(f"{url}/healthz")).status_code == 200:
                    return
            await asyncio.sleep(0.05)
