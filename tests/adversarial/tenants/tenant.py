"""Tenants: circles of people with a builder, a payload secret and a registry of their own each."""

import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from function_builder.contract.secrets import SecretsKey, seal
from tests.support.builders import RunningBuilder, running_builder
from tests.support.registries import USERS
from tests.support.requests import make_tar, signature


@dataclass(frozen=True, slots=True)
class Tenant:
    """One of those who share a BuildKit, or do not.

    Attributes:
        name: its user's at its registry.
        builder: its own, with a payload secret of its own, or one that has several tenants.
        secret: the file of its payload secret.
        headers: what names it to a builder that has several.
        registry: `host:port` of the registry that knows this user alone.
        key: opens its build secrets.
    """

    name: str
    builder: RunningBuilder
    secret: Path
    headers: Mapping[str, str]
    registry: str
    key: SecretsKey

    @property
    def payload_secret(self) -> str:
        """What its requests are signed with."""
        return self.secret.read_text().strip()

    def body(
        self,
        dockerfile: str,
        files: Mapping[str, str] | None = None,
        *,
        image: str = "",
        secrets: Mapping[str, str] | None = None,
    ) -> bytes:
        """A request's body; sizes and times are the same for all."""
        values = {name: value.encode() for name, value in (secrets or {}).items()}
        return make_tar(
            {"Dockerfile": dockerfile, **(files or {})},
            {"image": image} if image else {"skipPush": True},
            mtime=0,
            secrets=seal(values, self.key.public) if values else None,
        )

    async def build(
        self, body: bytes, *, streamed: bool = False, heard: Callable[[str], None] | None = None
    ) -> "Reply":
        """Have it built; `heard` is called with all that was said so far, whenever it is more."""
        signed = {"X-Build-Signature": signature(body, self.payload_secret), **self.headers}
        accepted = {"Accept": "application/x-ndjson"} if streamed else {}
        text = ""
        async with (
            httpx2.AsyncClient(trust_env=False, timeout=100, verify=False) as http,
            http.stream(
                "POST", f"{self.builder.url}/build", content=body, headers=signed | accepted
            ) as answer,
        ):
            async for piece in answer.aiter_text():
                text += piece
                if heard is not None:
                    heard(text)
        return Reply(text)


@dataclass(frozen=True, slots=True)
class Reply:
    """All that a client was told, by a stream or in one piece."""

    text: str

    @property
    def end(self) -> dict[str, Any]:
        """How it ended."""
        found: dict[str, Any] = json.loads(self.text.splitlines()[-1])
        return found

    @property
    def error(self) -> str:
        """Why it failed; empty when it did not."""
        error: str = self.end.get("error", "")
        assert (self.end["status"] == "success") is not bool(error), self.text
        return error

    @property
    def output(self) -> list[str]:
        """What the steps wrote."""
        lines = [
            line for each in self.text.splitlines() for line in json.loads(each).get("log", ())
        ]
        return [line.split(" ", 2)[2] for line in lines if line.startswith("l: ")]


@asynccontextmanager
async def tenant(root: Path, name: str, buildkit: str, registry: str) -> AsyncIterator[Tenant]:
    """A tenant's builder on some BuildKit; nothing of its secrets is in its log at the end."""
    docker = root / "docker"
    docker.mkdir(parents=True)
    key = write_credentials(docker / "config.json", root / "key", name, registry)
    settings = {
        "DOCKER_CONFIG": str(docker),
        "build_secrets_private_key_path": str(root / "key"),
    }
    async with running_builder(root / "builder", buildkit, **settings) as builder:
        secret = builder.secrets / "payload-secret"
        secret.write_text(f"only-for-tests-of-{name}")
        yield Tenant(name, builder, secret, {}, registry, key)
        check_log(builder)


@asynccontextmanager
async def tenants_of_one_builder(
    root: Path,
    buildkit: str,
    registries: Mapping[str, str],
    own: Mapping[str, str] | None = None,
) -> AsyncIterator[list[Tenant]]:
    """One builder with a tenant for each name; nothing of their secrets is in its log at the end.

    Args:
        root: a directory of its own.
        buildkit: the BuildKit of all that have none of their own; it need not be there.
        registries: the registry of each name.
        own: the BuildKit of each name that has one of its own.
    """
    keys = write_tenants(root, registries, own or {})
    settings = {"tenants_file": str(root / "tenants.yaml")}
    # Without a BuildKit for all, it is not ready for the tenant `default`.
    probe = "/healthz" if own else "/ready"
    async with running_builder(root / "builder", buildkit, wait_for=probe, **settings) as builder:
        yield [
            Tenant(name, builder, root / name, {"X-Build-Tenant": name}, registry, keys[name])
            for name, registry in registries.items()
        ]
        check_log(builder)


def write_tenants(
    root: Path, registries: Mapping[str, str], own: Mapping[str, str]
) -> dict[str, SecretsKey]:
    """A tenants file with its secrets; each tenant's key for build secrets."""
    root.mkdir()
    lines, keys = ["tenants:"], {}
    for name, registry in registries.items():
        config, key = root / f"{name}.json", root / f"{name}.key"
        keys[name] = write_credentials(config, key, name, registry)
        (root / name).write_text(f"only-for-tests-of-{name}")
        place = f", buildkit_url: '{own[name]}'" if name in own else ""
        lines.append(
            f"  {name}: {{payload_secret_file: {name}, registry_config: {config.name}, "
            f"build_secrets_key: {key.name}{place}}}"
        )
    (root / "tenants.yaml").write_text("\n".join(lines))
    return keys


def write_credentials(config: Path, key: Path, name: str, registry: str) -> SecretsKey:
    """A tenant's registry credentials, and its key for build secrets."""
    word = base64.b64encode(f"{name}:{USERS[name][0]}".encode()).decode()
    config.write_text(json.dumps({"auths": {registry: {"auth": word}}}))
    made = SecretsKey.generate()
    key.write_bytes(made.to_text())
    return made


def check_log(builder: RunningBuilder) -> None:
    """Nothing secret is in a builder's log."""
    said = builder.log.read_text()
    assert not any(password in said for password, _ in USERS.values())
    assert "only-for-tests" not in said
    assert "Traceback" not in said
