"""nginx in front of a builder."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx2

from tests.support import free_address, until

CONFIG = """
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
        builder=builder_url.removeprefix("http://"),
        listen=listen,
        keeps=round(keeps * 1000),
        connection=connection,
        location=f"{prefix}/",
        path="/" if prefix else "",
    )
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    assert program, "scripts/packages proxies installs nginx"
    process = await asyncio.create_subprocess_exec(
        program, "-c", config, "-e", root / "error.log", stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await until(partial(_answers, f"http://{listen}{prefix}/healthz"))
        yield f"http://{listen}{prefix}"
    finally:
        process.kill()
        await process.wait()


def _write(root: Path, **values: object) -> Path:
    root.mkdir()
    config = root / "nginx.conf"
    config.write_text(CONFIG.format(root=root, **values))
    return config


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5, verify=False).status_code == 200
    except httpx2.TransportError:
        return False
