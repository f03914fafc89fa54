"""BuildKit over TCP with mutual TLS: who is let in, who is not, and what is said of it."""

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio

from aiobuildkit.hostport import HostPort
from bench.tls import buildkitd_over_tls
from function_builder.cli.authority import Authority
from tests.support import free_address
from tests.support.builders import RunningBuilder, running_builder
from tests.support.requests import headers, make_tar

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts a buildkitd of its own as root"),
]

NAME = "buildkitd.test"


def make_certificates(directory: Path, *hosts: str) -> None:
    """Run the command that users run."""
    names = [word for host in hosts for word in ("--host", host)]
    command = [sys.executable, "-m", "function_builder", "certs", str(directory), *names]
    subprocess.run(command, check=True, capture_output=True)


@dataclass
class Stage:
    """A buildkitd, what made its certificates, and a builder whose own lie in `mounted`."""

    address: str
    certificates: Path
    mounted: Path
    builder: RunningBuilder

    def mount(self, client: Path) -> None:
        """Put a client's files where the builder looks for them, as a Secret's update does."""
        for name in ("ca.crt", "client.crt", "client.key"):
            (self.mounted / name).unlink(missing_ok=True)
            shutil.copy(client / name, self.mounted / name)


def post(builder: RunningBuilder, *, stream: bool = False) -> httpx2.Response:
    body = make_tar({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}, {"skipPush": True})
    return httpx2.post(
        f"{builder.url}/build", content=body, headers=headers(body, stream=stream), timeout=60
    )


def refused(builder: RunningBuilder) -> str:
    """Build in vain; gives what the builder's log says of it."""
    written = builder.log.stat().st_size
    for stream in (False, True):
        answer = post(builder, stream=stream)
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"] == "BuildKit cannot be reached: try again later"
    with builder.log.open() as log:
        log.seek(written)
        return log.read()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory) -> AsyncIterator[Stage]:
    root: Path = tmp_path_factory.mktemp("tls")
    make_certificates(root / "certs", NAME, "127.0.0.1")
    mounted = root / "mounted"
    mounted.mkdir()
    address = free_address()
    async with (
        buildkitd_over_tls(root, address, root / "certs" / "server"),
        running_builder(
            root / "builder",
            f"tcp://{address}",
            wait_for="/healthz",
            tlscacert=str(mounted / "ca.crt"),
            tlscert=str(mounted / "client.crt"),
            tlskey=str(mounted / "client.key"),
        ) as builder,
    ):
        yield Stage(address, root / "certs", mounted, builder)


@pytest.fixture
def stage(shared: Stage) -> Stage:
    """The shared one, with certificates that fit."""
    shared.mount(shared.certificates / "client")
    return shared


def test_the_commands_certificates_let_a_builder_in(stage):
    assert post(stage.builder).json()["status"] == "success"


@pytest.mark.parametrize(("offered", "agreed"), [("h2", "h2"), ("http/1.1", None)])
def test_buildkit_agrees_on_http_2_and_leaves_it_to_us_to_insist(stage, offered, agreed):
    client = stage.certificates / "client"
    context = ssl.create_default_context(cafile=client / "ca.crt")
    context.load_cert_chain(client / "client.crt", client / "client.key")
    context.set_alpn_protocols([offered])
    with (
        socket.create_connection(HostPort.parse(stage.address), timeout=60) as connection,
        context.wrap_socket(connection, server_hostname=NAME) as encrypted,
    ):
        assert encrypted.selected_alpn_protocol() == agreed


def wrong_ca(_stage: Stage, client: Path) -> None:
    """The builder trusts another authority."""
    Authority.create().write_certificate(client / "ca.crt")


def stranger(_stage: Stage, client: Path) -> None:
    """Another authority signed the builder's certificate."""
    Authority.create().issue_client("x", client / "client.crt", client / "client.key", days=1)


def expired(stage: Stage, client: Path) -> None:
    """The builder's certificate was valid."""
    authority = Authority.load(stage.certificates / "ca.crt", stage.certificates / "ca.key")
    authority.issue_client("x", client / "client.crt", client / "client.key", days=0)


def servers_own(stage: Stage, client: Path) -> None:
    """The builder's certificate is not for clients."""
    for kind in ("crt", "key"):
        shutil.copy(stage.certificates / "server" / f"server.{kind}", client / f"client.{kind}")


def another_key(_stage: Stage, client: Path) -> None:
    """Certificate and key are of two pairs."""
    Authority.create().issue_client("x", client / "other.crt", client / "client.key", days=1)


def no_certificate(_stage: Stage, client: Path) -> None:
    """A file that holds none."""
    (client / "ca.crt").write_text("")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (wrong_ca, "certificate verify failed: unable to get local issuer certificate"),
        (stranger, "alert unknown ca"),
        (expired, "alert certificate expired"),
        (servers_own, "alert bad certificate"),
        (another_key, "client.crt with the key {}/client.key cannot be used: [X509: KEY_VALUES_"),
        (no_certificate, "the authority's certificate {}/ca.crt cannot be used: [X509: NO_CERT"),
    ],
)
def test_what_does_not_fit_is_503_with_the_reason_in_the_log(stage, tmp_path, spoil, reason):
    client = shutil.copytree(stage.certificates / "client", tmp_path / "client")
    spoil(stage, client)
    stage.mount(client)
    assert reason.format(stage.mounted) in refused(stage.builder)
    # The right ones back: no restart is needed.
    stage.mount(stage.certificates / "client")
    assert post(stage.builder).json()["status"] == "success"


def test_new_certificates_of_the_same_authority_count_at_once(stage, tmp_path):
    again = shutil.copytree(stage.certificates, tmp_path / "again")
    make_certificates(again)
    before, after = (
        (where / "client" / "client.crt").read_bytes() for where in (stage.certificates, again)
    )
    assert before != after
    stage.mount(again / "client")
    assert post(stage.builder).json()["status"] == "success"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "cannot connect to BuildKit"),
        ({"tlscacert": "{}/ca.crt"}, "alert certificate required"),
        (
            {
                "tlscacert": "{}/ca.crt",
                "tlscert": "{}/client.crt",
                "tlskey": "{}/client.key",
                "buildkit_server_name": "another.test",
            },
            "Hostname mismatch, certificate is not valid for 'another.test'",
        ),
    ],
    ids=["plain", "without a certificate", "another name"],
)
async def test_a_builder_set_up_wrongly(shared, tmp_path, settings, reason):
    client = shared.certificates / "client"
    given = {name: value.format(client) for name, value in settings.items()}
    url = f"tcp://{shared.address}"
    async with running_builder(tmp_path / "b", url, wait_for="/healthz", **given) as builder:
        assert reason in await asyncio.to_thread(refused, builder)
        assert builder.get("/ready").status_code == 503


async def test_the_name_may_be_another_than_the_address(shared, tmp_path):
    client = shared.certificates / "client"
    async with running_builder(
        tmp_path / "b",
        f"tcp://{shared.address}",
        tlscacert=str(client / "ca.crt"),
        tlscert=str(client / "client.crt"),
        tlskey=str(client / "client.key"),
        buildkit_server_name=NAME,
    ) as builder:
        assert (await asyncio.to_thread(post, builder)).json()["status"] == "success"


async def test_a_buildkit_whose_certificate_has_expired(tmp_path):
    make_certificates(tmp_path / "certs", "127.0.0.1")
    server, client = tmp_path / "certs" / "server", tmp_path / "certs" / "client"
    authority = Authority.load(tmp_path / "certs" / "ca.crt", tmp_path / "certs" / "ca.key")
    authority.issue_server(["127.0.0.1"], server / "server.crt", server / "server.key", days=0)
    address = free_address()
    async with (
        buildkitd_over_tls(tmp_path, address, server),
        running_builder(
            tmp_path / "b",
            f"tcp://{address}",
            wait_for="/healthz",
            tlscacert=str(client / "ca.crt"),
            tlscert=str(client / "client.crt"),
            tlskey=str(client / "client.key"),
        ) as builder,
    ):
        assert "certificate has expired" in await asyncio.to_thread(refused, builder)
