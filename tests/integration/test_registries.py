"""Registries of every kind that users have: who may pull and push, by what credentials."""

import asyncio
import base64
import dataclasses
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
import trustme

from function_builder.engine import BuildKitConfig, BuildKitDaemon
from tests.support.builders import RunningBuilder, running_builder
from tests.support.registries import (
    RESET,
    USERS,
    FaultyRegistry,
    answer,
    faulty_registry,
    htpasswd,
    running_registry,
    web_page,
)
from tests.support.requests import headers, make_tar
from tests.support.token_service import IDENTITY_TOKEN, TokenService, running_token_service

pytestmark = pytest.mark.integration


@dataclass
class Registries:
    """Addresses: one that asks nothing, two with passwords, with tokens, behind TLS."""

    open: str
    ann: str
    bob: str
    tokens: str
    service: TokenService
    private_ca: str
    ca: trustme.CA
    unknown_ca: str
    plain: str


@dataclass
class Stage:
    """A builder, its BuildKit's registries, and its `config.json`."""

    registries: Registries
    builder: RunningBuilder
    config: Path
    programs: Path

    def configure(self, config: object) -> None:
        """Write `config.json`; None takes it away."""
        if config is None:
            self.config.unlink(missing_ok=True)
        else:
            self.config.write_text(config if isinstance(config, str) else json.dumps(config))

    def add_credential_helper(self, name: str, answers: dict[str, tuple[str, str]]) -> None:
        """Put `docker-credential-NAME` on the builder's PATH; a real program, asked by stdin."""
        documents = {
            server: json.dumps({"ServerURL": server, "Username": user, "Secret": secret})
            for server, (user, secret) in answers.items()
        }
        cases = "".join(f"{server}) echo '{text}';;\n" for server, text in documents.items())
        program = self.programs / f"docker-credential-{name}"
        program.write_text(
            '#!/bin/sh\n[ "$1" = get ] || exit 2\nread -r server\ncase $server in\n'
            f'{cases}*) echo "credentials not found in native keychain"; exit 1;;\nesac\n'
        )
        program.chmod(0o755)

    def build(self, image: str, base: str = "scratch", content: str = "1") -> httpx2.Response:
        """Build and push an image of one file."""
        body = make_tar(
            {"Dockerfile": f"FROM {base}\nCOPY file /\n", "file": content}, {"image": image}
        )
        url = f"{self.builder.url}/build"
        return httpx2.post(url, content=body, headers=headers(body), timeout=110, verify=False)

    def pushed(self, image: str, base: str = "scratch", content: str = "1") -> None:
        """Build and push, and hold it to success."""
        reply = self.build(image, base, content)
        assert reply.json()["status"] == "success", reply.text
        assert reply.status_code == 200

    def refused(self, image: str, base: str = "scratch", content: str = "1") -> str:
        """Build what cannot be pushed or pulled; gives the error."""
        reply = self.build(image, base, content)
        assert reply.status_code == 500, reply.text
        assert reply.json()["status"] == "failed"
        assert "/tmp" not in reply.text
        assert not any(password in reply.text for password, _ in USERS.values())
        error = reply.json()["error"]
        assert isinstance(error, str)
        return error


def auth(user: str) -> dict[str, str]:
    """An entry of `auths`."""
    return {"auth": base64.b64encode(f"{user}:{USERS[user][0]}".encode()).decode()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def registries(registry, tmp_path_factory) -> AsyncIterator[Registries]:
    root = tmp_path_factory.mktemp("registries")
    ca = trustme.CA()
    roots = {}
    for name in ("ann", "bob", "tokens", "private_ca", "unknown_ca", "plain"):
        roots[name] = root / name
        roots[name].mkdir()
    tls = {}
    for name, issuer in (("private_ca", ca), ("unknown_ca", trustme.CA())):
        certificate = issuer.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(roots[name] / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(roots[name] / "cert.pem")
        tls[name] = {
            "certificate": str(roots[name] / "cert.pem"),
            "key": str(roots[name] / "key.pem"),
        }
    async with AsyncExitStack() as stack:
        service = stack.enter_context(running_token_service())

        async def start(name: str, **options) -> str:
            return await stack.enter_async_context(running_registry(roots[name], **options))

        yield Registries(
            open=registry,
            ann=await start("ann", auth=htpasswd(roots["ann"], "ann")),
            bob=await start("bob", auth=htpasswd(roots["bob"], "bob")),
            tokens=await start("tokens", auth=service.registry_auth(roots["tokens"])),
            service=service,
            private_ca=await start("private_ca", tls=tls["private_ca"]),
            ca=ca,
            unknown_ca=await start("unknown_ca", tls=tls["unknown_ca"]),
            plain=await start("plain"),
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def buildkit(registries, engine_root, tmp_path_factory) -> AsyncIterator[str]:
    """A BuildKit that knows the private CA, and takes no registry but these for plain HTTP."""
    ca = tmp_path_factory.mktemp("ca") / "ca.pem"
    registries.ca.cert_pem.write_to_path(ca)
    config = BuildKitConfig(
        mirrors={"docker.io": [registries.open]},
        plain_http=[registries.open],
        # Without these BuildKit takes what is on the loopback interface for plain HTTP.
        authorities={
            registries.private_ca: [ca],
            registries.unknown_ca: [],
            registries.plain: [],
        },
    )
    root = engine_root / "bk-registries"
    async with BuildKitDaemon(root, config=config, log=engine_root / "bk-registries.log") as daemon:
        yield daemon.address


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(registries, buildkit, tmp_path_factory) -> AsyncIterator[Stage]:
    root: Path = tmp_path_factory.mktemp("registries-builder")
    programs, docker = root / "programs", root / "docker"
    programs.mkdir()
    docker.mkdir()
    path = f"{programs}:/usr/bin:/bin"
    async with running_builder(root / "b", buildkit, PATH=path, DOCKER_CONFIG=str(docker)) as own:
        yield Stage(registries, own, docker / "config.json", programs)
        said = own.log.read_text()
        assert not any(password in said for password, _ in USERS.values())
        assert IDENTITY_TOKEN not in said


@pytest.fixture
def stage(shared: Stage) -> Stage:
    """The shared builder, without credentials."""
    shared.configure(None)
    shared.registries.service.failures.clear()
    shared.registries.service.grants.clear()
    return shared


@pytest.fixture
def faulty(registry: str) -> Iterator[FaultyRegistry]:
    """One for each test: a push that failed leaves connections, and requests that come late.

    BuildKit would use them for the next push, and Go's HTTP client repeats by itself what fails on
    such a connection.
    """
    with faulty_registry(registry) as running:
        yield running


def test_a_registry_that_asks_nothing(stage):
    stage.pushed(f"{stage.registries.open}/open/fn:1")


def test_a_password(stage):
    host = stage.registries.ann
    stage.configure({"auths": {host: auth("ann")}})
    stage.pushed(f"{host}/fn:password")
    manifest = f"http://{host}/v2/fn/manifests/password"
    assert httpx2.get(manifest, timeout=60, verify=False).status_code == 401


@pytest.mark.parametrize("key", ["http://{}", "https://{}", "https://{}/v1/", "{}/v2/"])
def test_a_host_written_as_a_url(stage, key):
    host = stage.registries.ann
    stage.configure({"auths": {key.format(host): auth("ann")}})
    stage.pushed(f"{host}/fn:url")


def test_without_credentials_or_with_wrong_ones_the_error_says_whose(stage: Stage) -> None:
    host = stage.registries.ann
    configs: list[object] = [None, {}, {"auths": {}}, {"auths": {host: auth("bob")}}]
    for config in configs:
        stage.configure(config)
        error = stage.refused(f"{host}/fn:refused")
        assert host in error
        assert "401" in error or "no basic auth credentials" in error, error


def test_a_rotated_password_counts_at_once(stage):
    host = stage.registries.ann
    stage.configure({"auths": {host: auth("bob")}})
    stage.refused(f"{host}/fn:rotated")
    stage.configure({"auths": {host: auth("ann")}})
    stage.pushed(f"{host}/fn:rotated")
    stage.configure({"auths": {host: auth("bob")}})
    # BuildKit saves itself the push of what it has just pushed, but not that of anything new.
    assert "401" in stage.refused(f"{host}/fn:rotated", content="new")


def test_a_token_service(stage):
    host, service = stage.registries.tokens, stage.registries.service
    stage.configure({"auths": {host: auth("ann")}})
    stage.pushed(f"{host}/team/fn:token")
    assert ("ann", "repository:team/fn:pull,push") in service.grants
    stage.configure({"auths": {host: {"username": "ann", "password": "wrong"}}})
    error = stage.refused(f"{host}/team/fn:token", content="new")
    assert f"failed to push {host}/team/fn:token" in error
    assert "unauthorized" in error


def test_an_identity_token(stage):
    host, service = stage.registries.tokens, stage.registries.service
    stage.configure({"auths": {host: {"identitytoken": IDENTITY_TOKEN}}})
    stage.pushed(f"{host}/team/fn:identity")
    assert ("identity", "repository:team/fn:pull,push") in service.grants


def test_a_private_base_here_and_a_private_target_there(stage):
    ann, bob = stage.registries.ann, stage.registries.bob
    stage.configure({"auths": {ann: auth("ann")}})
    stage.pushed(f"{ann}/base:1", content="base")
    error = stage.refused(f"{bob}/fn:1", base=f"{ann}/base:1", content="fn")
    assert f"failed to push {bob}/fn:1" in error
    stage.configure({"auths": {ann: auth("ann"), bob: auth("bob")}})
    stage.pushed(f"{bob}/fn:1", base=f"{ann}/base:1", content="fn")
    stage.configure({"auths": {bob: auth("bob")}})
    # What BuildKit has in its cache is no way around the base image's registry.
    error = stage.refused(f"{bob}/fn:2", base=f"{ann}/base:1", content="fn")
    assert f"{ann}/base:1: failed to resolve source metadata" in error


def test_a_credential_helper_for_one_host(stage):
    ann, bob = stage.registries.ann, stage.registries.bob
    stage.add_credential_helper("one", {ann: ("ann", USERS["ann"][0])})
    stage.configure({"credHelpers": {ann: "one"}, "auths": {bob: auth("bob")}})
    stage.pushed(f"{ann}/fn:helper")
    stage.pushed(f"{bob}/fn:helper", base=f"{ann}/fn:helper")


def test_a_store_for_all_hosts_and_what_it_lacks_from_auths(stage):
    ann, bob, tokens = stage.registries.ann, stage.registries.bob, stage.registries.tokens
    stage.add_credential_helper(
        "store", {ann: ("ann", USERS["ann"][0]), tokens: ("<token>", IDENTITY_TOKEN)}
    )
    stage.configure({"credsStore": "store", "auths": {ann: {}, bob: auth("bob")}})
    stage.pushed(f"{ann}/fn:store")
    stage.pushed(f"{tokens}/team/fn:store")
    stage.pushed(f"{bob}/fn:store")


BROKEN = "the builder's registry configuration (config.json) is broken: "
KEYCHAIN = (
    "it points to the keychain program docker-credential-{}, which is not there: "
    "install it, or put the credentials into auths"
)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ('{"auths": {', "it is not JSON"),
        ("[]", "it is not a JSON object"),
        ('{"auths": []}', "auths is not an object"),
        ('{"auths": {"HOST": 1}}', "the entry of auths for HOST is not an object"),
        ('{"auths": {"HOST": {"auth": "?"}}}', "the auth of HOST is not base64 of user:password"),
        (
            '{"credsStore": "osxkeychain"}',
            KEYCHAIN.format("osxkeychain"),
        ),
        (
            '{"credHelpers": {"HOST": "ecr-login"}}',
            KEYCHAIN.format("ecr-login"),
        ),
    ],
)
def test_a_broken_configuration_says_what_is_wrong(stage, config, reason):
    host = stage.registries.ann
    stage.configure(config.replace("HOST", host))
    expected = f"failed to solve: {BROKEN}{reason.replace('HOST', host)}"
    assert stage.refused(f"{host}/fn:broken") == expected
    # The same where it is wanted for the base image.
    assert stage.refused(f"{stage.registries.open}/open/fn:1", base=f"{host}/base:x") == expected


def test_tls_with_a_private_ca(stage):
    host = stage.registries.private_ca
    stage.pushed(f"{host}/fn:tls")
    trust = ssl.create_default_context()
    stage.registries.ca.configure_trust(trust)
    tags = httpx2.get(f"https://{host}/v2/fn/tags/list", verify=trust, timeout=60)
    assert tags.json() == {"name": "fn", "tags": ["tls"]}


def push_new(stage: Stage, faulty: FaultyRegistry) -> httpx2.Response:
    """Push what the registry has not seen."""
    name = uuid.uuid4().hex
    return stage.build(f"{faulty.address}/{name}:1", content=name)


async def test_a_private_ca_that_the_machine_trusts(registries, engine_root, tmp_path, monkeypatch):
    """As an embedded BuildKit, which has no settings of its own, is told."""
    ca = tmp_path / "ca.pem"
    registries.ca.cert_pem.write_to_path(ca)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    config = BuildKitConfig(authorities={registries.private_ca: []})
    async with (
        BuildKitDaemon(
            engine_root / "bk-ssl", config=config, log=engine_root / "bk-ssl.log"
        ) as daemon,
        running_builder(tmp_path / "b", daemon.address) as builder,
    ):
        own = Stage(registries, builder, tmp_path / "config.json", tmp_path)
        await asyncio.to_thread(own.pushed, f"{registries.private_ca}/machine:1")


async def test_insecure_pushes_over_plain_http_and_past_any_certificate(stage, buildkit, tmp_path):
    hosts = [stage.registries.plain, stage.registries.unknown_ca]
    for host, reason in zip(
        hosts, ["HTTP response to HTTPS client", "unknown authority"], strict=True
    ):
        assert reason in stage.refused(f"{host}/fn:insecure")
    async with running_builder(tmp_path / "b", buildkit, insecure="true") as builder:
        lax = dataclasses.replace(stage, builder=builder)
        for host in hosts:
            await asyncio.to_thread(lax.pushed, f"{host}/fn:insecure")


PUSH = [("HEAD", "/blobs/"), ("POST", "/uploads/"), ("PUT", "/uploads/"), ("PUT", "/manifests/")]
"""The requests that a push is made of."""


@pytest.mark.parametrize(("method", "part"), PUSH)
@pytest.mark.parametrize(
    "fault",
    [answer("502 Bad Gateway"), answer("503 Service Unavailable"), RESET],
    ids=["502", "503", "reset"],
)
def test_a_push_that_meets_a_bad_moment_is_tried_again(stage, faulty, method, part, fault):
    faulty.fail(method.encode(), part.encode(), fault, times=1)
    reply = push_new(stage, faulty)
    assert reply.json()["status"] == "success", reply.text
    assert faulty.failed == 1
    # A 503 is so common that BuildKit does not speak of it.
    assert b"503" in fault or " retrying in 1s" in reply.text


def test_a_registry_that_stays_away_is_given_up(stage, faulty):
    faulty.fail(b"HEAD", b"/manifests/", answer("502 Bad Gateway"), times=100)
    reply = push_new(stage, faulty)
    assert reply.status_code == 500
    assert "502 Bad Gateway" in reply.json()["error"]
    assert faulty.failed == 4


@pytest.mark.parametrize(("method", "part"), PUSH)
@pytest.mark.parametrize(
    "fault",
    [answer("401 Unauthorized", 'WWW-Authenticate: Basic realm="x"'), answer("403 Forbidden")],
    ids=["401", "403"],
)
def test_a_push_that_is_forbidden_is_not(stage, faulty, method, part, fault):
    faulty.fail(method.encode(), part.encode(), fault, times=100)
    reply = push_new(stage, faulty)
    assert reply.status_code == 500
    assert fault[9:12].decode() in reply.json()["error"]
    # The image's parts are pushed side by side; each of them once.
    assert faulty.failed <= 2
    assert "retrying" not in reply.text


def test_a_registry_whose_words_are_not_utf8_has_failed_the_build_and_not_buildkit(stage, faulty):
    faulty.fail(b"HEAD", b"/manifests/", answer("403 Acc\u00e8s refus\u00e9"), times=100)
    base = f"{faulty.address}/base:1"
    error = stage.refused(f"{stage.registries.open}/open/fn:words", base=base)
    assert f"{base}: failed to resolve source metadata" in error
    assert "403 Acc\ufffds refus\ufffd" in error
    # It was asked by one build alone.
    assert faulty.failed == 1


@pytest.mark.parametrize("status", [502, 503])
def test_a_token_service_that_has_a_bad_moment_is_asked_again(stage, status):
    host, service = stage.registries.tokens, stage.registries.service
    stage.configure({"auths": {host: auth("ann")}})
    service.failures = [status, status]
    stage.pushed(f"{host}/team/fn:again", content=str(status))
    assert service.failures == []


def test_a_host_that_answers_everything_with_a_page_has_no_image(stage):
    with web_page() as (host, asked):
        for _ in range(2):
            reply = stage.build(f"{host}/fn:1").json()
            assert reply["status"] == "failed"
            assert reply["error"].startswith(
                f"failed to solve: failed to push {host}/fn:1: its host"
            )
            assert (reply["reason"], reply["retryable"]) == ("push", False)
    assert "PUT /v2/fn/manifests/1" in asked


async def test_a_registry_that_is_not_to_be_asked_may_hide_what_it_has(faulty, buildkit, tmp_path):
    manifests_asked(faulty, "404 Not Found", times=100)
    files = {"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}
    body = make_tar(files, {"image": f"{faulty.address}/fn:1"})
    async with running_builder(
        tmp_path / "b", buildkit, insecure="true", confirm_pushes="false"
    ) as builder:
        url = f"{builder.url}/build"
        reply = await asyncio.to_thread(
            httpx2.post, url, content=body, headers=headers(body), timeout=110
        )
    assert reply.json()["status"] == "success", reply.text


def manifests_asked(faulty: FaultyRegistry, status: str, *, times: int) -> None:
    """Let BuildKit's questions for manifests fail. The first one of a build is the push's own."""
    faulty.fail(b"HEAD", b"/manifests/", answer(status), times=times)


@pytest.mark.parametrize(("times", "status"), [(2, "success"), (100, "failed")])
def test_a_registry_that_does_not_have_what_it_took(stage, faulty, times, status):
    manifests_asked(faulty, "404 Not Found", times=times)
    reply = push_new(stage, faulty).json()
    assert reply["status"] == status
    # Three questions after the push's own; the second one is answered well, or none is.
    assert faulty.failed == min(times, 4)
    assert (status == "success") is ("does not have it" not in reply.get("error", ""))


def test_a_registry_that_does_not_let_the_builder_read_has_the_image_all_the_same(stage, faulty):
    asked = []

    def fault(method: bytes, path: bytes) -> bytes | None:
        if method != b"HEAD" or b"/manifests/" not in path:
            return None
        asked.append(path)
        return answer("403 Forbidden") if len(asked) > 1 else None

    faulty.fault = fault
    assert push_new(stage, faulty).json()["status"] == "success"
    assert len(asked) == 2


def test_a_repository_is_asked_about_once_and_then_trusted_for_a_while(stage, faulty):
    asked = []
    faulty.fault = lambda method, path: asked.append(method + b" " + path)
    name = uuid.uuid4().hex
    for tag in ("1", "2", "2"):
        assert stage.build(f"{faulty.address}/{name}:{tag}").json()["status"] == "success"
    heads = [line for line in asked if b"HEAD" in line and b"/manifests/" in line]
    assert [line.rpartition(b"/")[2] for line in heads] == [b"1", b"1", b"2", b"2"]
