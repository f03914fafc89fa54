"""Registries with token services: what BuildKit is given, and by whom tokens are fetched."""

import base64
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio

from tests.support.builders import RunningBuilder, running_builder
from tests.support.registries import USERS, running_registry
from tests.support.requests import headers, make_tar
from tests.support.token_service import IDENTITY_TOKEN, TokenService, running_token_service
from tests.support.wiretap import Tap, wiretap

pytestmark = pytest.mark.integration

SECRETS = [IDENTITY_TOKEN, *(password for password, _ in USERS.values())]


def auth(user: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{USERS[user][0]}".encode()).decode()}


@dataclass
class Stage:
    """A builder, heard on its way to BuildKit, and a registry with a token service."""

    registry: str
    service: TokenService
    builder: RunningBuilder
    config: Path
    taps: list[Tap]

    def configure(self, auths: dict[str, dict[str, str]]) -> None:
        self.config.write_text(json.dumps({"auths": auths}))

    async def build(self, name: str, base: str = "scratch") -> httpx2.Response:
        """Push something new to a repository of the registry."""
        files = {"Dockerfile": f"FROM {base}\nCOPY file /\n", "file": uuid.uuid4().hex}
        body = make_tar(files, {"image": f"{self.registry}/{name}:1"})
        async with httpx2.AsyncClient(trust_env=False, timeout=100, verify=False) as http:
            url = f"{self.builder.url}/build"
            return await http.post(url, content=body, headers=headers(body))

    async def pushed(self, name: str, base: str = "scratch") -> list[bytes]:
        """Push, and give what BuildKit asked about credentials and was told, in all solves."""
        before = len(self.taps)
        reply = await self.build(name, base)
        assert reply.json()["status"] == "success", reply.text
        return [message for tap in self.taps[before:] for message in tap.auth]

    def keeps_secrets(self, messages: list[bytes]) -> bool:
        """Whether BuildKit was given tokens alone."""
        heard = b"".join(messages)
        assert b"eyJ" in heard, "no token, not even its head"
        return not any(secret.encode() in heard for secret in SECRETS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(buildkitd, tmp_path_factory) -> AsyncIterator[Stage]:
    root: Path = tmp_path_factory.mktemp("tokens")
    docker, data = root / "docker", root / "registry"
    docker.mkdir()
    data.mkdir()
    async with AsyncExitStack() as stack:
        service = stack.enter_context(running_token_service())
        registry = await stack.enter_async_context(
            running_registry(data, auth=service.registry_auth(data))
        )
        address, taps = await stack.enter_async_context(wiretap(buildkitd, root / "tap"))
        builder = await stack.enter_async_context(
            running_builder(root / "b", address, DOCKER_CONFIG=str(docker))
        )
        yield Stage(registry, service, builder, docker / "config.json", taps)
        said = builder.log.read_text()
        assert not any(secret in said for secret in SECRETS)


@pytest.fixture
def stage(shared: Stage) -> Stage:
    shared.service.refused, shared.service.deaf_to = {}, ""
    shared.service.failures.clear()
    shared.service.grants.clear()
    return shared


@pytest.mark.parametrize(
    "refused",
    [{}, {"POST": 404}, {"POST": 405}, {"POST": 401}, {"POST": 400}, {"GET": 400}, {"GET": 405}],
    ids=str,
)
@pytest.mark.asyncio(loop_scope="module")
async def test_buildkit_is_given_a_token_and_no_password(stage, refused):
    stage.service.refused = refused
    stage.configure({stage.registry: auth("ann")})
    assert stage.keeps_secrets(await stage.pushed(f"team/{uuid.uuid4().hex}"))
    assert {user for user, _ in stage.service.grants} == {"ann"}


@pytest.mark.asyncio(loop_scope="module")
async def test_an_identity_token_stays_here_too(stage):
    stage.service.refused = {"GET": 400}
    stage.configure({stage.registry: {"identitytoken": IDENTITY_TOKEN}})
    assert stage.keeps_secrets(await stage.pushed(f"team/{uuid.uuid4().hex}"))


@pytest.mark.asyncio(loop_scope="module")
async def test_a_registry_token_is_passed_on_as_it_is(stage):
    name = f"team/{uuid.uuid4().hex}"
    token = stage.service.token([f"repository:{name}:pull,push"])
    stage.configure({stage.registry: {"registrytoken": token}})
    await stage.pushed(name)
    assert stage.service.grants == []


@pytest.mark.asyncio(loop_scope="module")
async def test_builds_share_a_token_to_pull_while_the_password_is_the_same(stage):
    name = f"team/{uuid.uuid4().hex}"
    base = f"{name}-base"

    async def pulled_as(user: str) -> list[str]:
        """Who was given a token to pull for a build."""
        stage.configure({stage.registry: auth(user)})
        stage.service.grants.clear()
        await stage.pushed(name, f"{stage.registry}/{base}:1")
        return [user for user, scope in stage.service.grants if scope == f"repository:{base}:pull"]

    stage.configure({stage.registry: auth("ann")})
    await stage.pushed(base)
    assert set(await pulled_as("ann")) == {"ann"}
    assert await pulled_as("ann") == []
    assert set(await pulled_as("bob")) == {"bob"}
    stage.configure({stage.registry: {"username": "bob", "password": "wrong"}})
    error = (await stage.build(name)).json()["error"]
    assert f"failed to push {stage.registry}/{name}:1: failed to authorize: " in error
    assert "401 Unauthorized" in error


@pytest.mark.asyncio(loop_scope="module")
async def test_a_token_service_out_of_the_builders_reach_is_left_to_buildkit(
    stage, buildkitd, tmp_path
):
    """As behind a network policy or a private CA that BuildKit alone knows."""
    docker = tmp_path / "docker"
    docker.mkdir()
    stage.service.deaf_to = "function-builder"
    (docker / "config.json").write_text(json.dumps({"auths": {stage.registry: auth("ann")}}))
    async with running_builder(tmp_path / "b", buildkitd, DOCKER_CONFIG=str(docker)) as builder:
        own = Stage(stage.registry, stage.service, builder, docker / "config.json", [])
        first = await own.build(f"team/{uuid.uuid4().hex}")
        again = [line for line in first.json()["log"] if "could not fetch a token" in line]
        assert (first.json()["status"], len(again)) == ("success", 1), first.text
        # It is known from then on.
        second = await own.build(f"team/{uuid.uuid4().hex}")
        assert second.json()["status"] == "success"
        assert "could not fetch a token" not in second.text
        assert "no token could be fetched" in builder.log.read_text()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_pull_without_a_token_fails_in_buildkits_words(stage):
    stage.configure({stage.registry: {"username": "ann", "password": "wrong"}})
    base = f"{stage.registry}/team/base:1"
    error = (await stage.build("team/fn", base)).json()["error"]
    assert f"{base}: failed to resolve source metadata for {base}: " in error
    assert "unauthorized" in error


@pytest.mark.asyncio(loop_scope="module")
async def test_entries_with_a_path_are_for_what_is_below_it(stage):
    ours, theirs = f"ours/{uuid.uuid4().hex}", f"theirs/{uuid.uuid4().hex}"
    stage.configure(
        {
            f"{stage.registry}/theirs": auth("bob"),
            f"{stage.registry}/ours": auth("ann"),
            stage.registry: {"username": "nobody", "password": "wrong"},
        }
    )
    await stage.pushed(theirs)
    await stage.pushed(ours, f"{stage.registry}/{theirs}:1")
    users = {(user, scope.split(":")[1]) for user, scope in stage.service.grants}
    assert {("bob", theirs), ("ann", ours)} <= users
    assert "nobody" not in {user for user, _ in users}


@pytest.mark.asyncio(loop_scope="module")
async def test_no_credentials_are_told_of_in_the_log(stage):
    stage.configure({})
    assert "unauthorized" in (await stage.build("team/fn")).json()["error"]
    assert f"no credentials for {stage.registry}" in stage.builder.log.read_text()
