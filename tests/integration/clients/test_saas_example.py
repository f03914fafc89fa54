"""The web application of the guide «SaaS integration», with two tenants of a builder."""

import asyncio
import hashlib
import io
import json
import os
import sys
import zipfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from function_builder.engine import NatsServer
from function_builder.queue.webhooks import format_secret
from tests.integration.clients.programs import EXAMPLES
from tests.support import free_address, until
from tests.support.builders import running_builder
from tests.support.images import pull

pytestmark = pytest.mark.integration

CUSTOMERS = ("acme", "globex")
DOCKERFILE = "FROM busybox\nCOPY code /app\nRUN sh /app/main.sh >/said\n"


def zipped(files: Mapping[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


def token(customer: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {customer}'s token"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The application's directory, and the builder's files of the same customers."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "Dockerfile").write_text(DOCKERFILE)
    customers, lines = {}, ["tenants:"]
    for name in CUSTOMERS:
        (tmp_path / name).write_text(f"the payload secret of {name}")
        webhook_secret = format_secret(name.encode().ljust(24))
        (tmp_path / f"{name}.webhook").write_text(webhook_secret)
        files = f"payload_secret_file: {name}, webhook_secret_file: {name}.webhook"
        lines.append(f"  {name}: {{{files}}}")
        customers[name] = {
            "token_sha256": hashlib.sha256(f"{name}'s token".encode()).hexdigest(),
            "payload_secret": f"the payload secret of {name}",
            "webhook_secret": webhook_secret,
        }
    (data / "customers.json").write_text(json.dumps(customers))
    (tmp_path / "tenants.yaml").write_text("\n".join(lines))
    return data


@asynccontextmanager
async def application(
    data: Path, builder_url: str, registry: str
) -> AsyncIterator[httpx2.AsyncClient]:
    """The application, as its docstring says to run it, and a client of it."""
    address = free_address()
    host, _, port = address.rpartition(":")
    with (data / "log").open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "uvicorn",
                "--log-level",
                "warning",
                "--host",
                host,
                "--port",
                port,
            ),
            *("--app-dir", str(EXAMPLES.parent / "saas"), "app:app"),
            env={
                "PATH": os.environ["PATH"],
                "SAAS_DATA": str(data),
                "BUILDER_URL": builder_url,
                "REGISTRY": registry,
                "OWN_URL": f"http://{address}",
            },
            stdout=output,
            stderr=output,
        )
    async with httpx2.AsyncClient(base_url=f"http://{address}", timeout=60, verify=False) as http:

        async def serves() -> bool:
            try:
                return (await http.get("/")).status_code == 200
            except httpx2.TransportError:
                return False

        try:
            while not await serves():
                assert process.returncode is None, (data / "log").read_text()
                await asyncio.sleep(0.05)
            yield http
        finally:
            process.terminate()
            async with asyncio.timeout(30):
                await process.wait()


async def built(http: httpx2.AsyncClient, deployment: str) -> str:
    """A deployment's log. Its callback may come before the application has stored the build."""
    async with asyncio.timeout(60):
        while True:
            log = await http.get(f"/deployments/{deployment}/log", headers=token("acme"))
            if log.status_code == 200:
                return log.text
            assert log.status_code == 409
            await asyncio.sleep(0.05)


async def ended(http: httpx2.AsyncClient, deployment: str) -> dict[str, Any]:
    """A deployment when its callback has come."""
    async with asyncio.timeout(60):
        while True:
            shown = (await http.get(f"/deployments/{deployment}", headers=token("acme"))).json()
            if shown["state"] != "new":
                return dict(shown)
            await asyncio.sleep(0.05)


async def test_a_customers_code_is_built_once_over_restarts(
    data: Path, buildkitd: str, registry: str, tmp_path: Path
):
    code = zipped({"main.sh": "echo hello from acme"})
    async with application(data, f"http://{free_address()}", registry) as http:
        for headers, body, status in (
            ({}, code, 401),
            (token("acme"), b"no zip", 400),
            (token("acme"), bytes(20_000_001), 413),
        ):
            refused = await http.post("/apps/hello", headers=headers, content=body)
            assert refused.status_code == status
        answer = await http.post("/apps/hello", headers=token("acme"), content=code)
        assert answer.status_code == 202
        first = answer.json()["id"]
        await until(lambda: b"waits for the builder" in (data / "log").read_bytes())

    # No builder was there. The next start of the application finds one.
    async with NatsServer(tmp_path / "nats", log=tmp_path / "nats.log") as nats:
        settings = {
            "nats_url": nats.url,
            "store_url": (tmp_path / "store").as_uri(),
            "tenants_file": str(tmp_path / "tenants.yaml"),
            "callback_hosts": "127.0.0.1:*",
        }
        async with (
            running_builder(tmp_path / "builder", buildkitd, **settings) as builder,
            application(data, builder.url, registry) as http,
        ):
            live = await ended(http, first)
            assert live["state"] == "live"
            pushed = await asyncio.to_thread(pull, registry, "acme/hello", first)
            assert pushed.text("said") == "hello from acme\n"
            assert live["digest"] == pushed.digest
            assert (data / "log").read_text().count(f"run {live['image']}@{live['digest']}") == 1
            assert "RUN sh /app/main.sh" in await built(http, first)

            # Neither another customer nor a stranger sees it or ends it.
            for path in (f"/deployments/{first}", f"/deployments/{first}/log"):
                assert (await http.get(path, headers=token("globex"))).status_code == 404
            forged = await http.post("/hooks/acme", json={"data": {"image": live["image"]}})
            assert forged.status_code == 401

            for files, error in (
                ({"main.sh": "echo oh no; exit 7"}, "exit code: 7"),
                ({"../Dockerfile": "FROM scratch"}, "code/../Dockerfile"),
            ):
                sent = await http.post("/apps/hello", headers=token("acme"), content=zipped(files))
                failed = await ended(http, sent.json()["id"])
                assert failed["state"] == "failed"
                assert error in failed["error"]
            await until(lambda: not list(data.glob("*.zip")))
