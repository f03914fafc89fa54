"""Read a tenants file strictly.

All faults are reported at once, each with its line and column. Secrets are in files beside it,
which are read together with it, so that a request needs no access to the disk.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from function_builder.builds.source_policy import NO_SOURCE_POLICY, PolicyRule, SourcePolicy
from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.contract.errors import shown
from function_builder.contract.secrets import SecretsKey
from function_builder.items import Fault, FaultyFile, Item
from function_builder.queue.webhooks import parse_secret
from function_builder.registries.docker_config import ConfigError, DockerConfig
from function_builder.tenants.files import Files
from function_builder.tenants.isolation import Isolation
from function_builder.tenants.overrides import LIMITS, LISTS, NUMBERS, read_limits, read_overrides
from function_builder.tenants.scopes import read_scopes
from function_builder.tenants.tenant import Tenant, Tenants, Token
from function_builder.tenants.trusts import TrustReader

TOP_KEYS: Final = ("tenants",)
TENANT_KEYS: Final = (
    *("payload_secret_file", "webhook_secret_file", "hosts", "tokens", "oidc"),
    *("registry_config", "build_secrets_key", "policy", "buildkit_url"),
    *LISTS,
    *NUMBERS,
    *LIMITS,
)
TOKEN_KEYS: Final = ("sha256", "scopes")
_PROOFS: Final = ("payload_secret_file", "tokens", "oidc")
_OWN_SECRETS: Final = (
    "payload_secret_file",
    "webhook_secret_file",
    "registry_config",
    "build_secrets_key",
)

MIN_SECRET_BYTES: Final = 16
"""A shorter payload secret could be guessed from one signed request, of which a tenant has many."""

NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_HOST: Final = re.compile(r"(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9-]+)*")
_EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_T = TypeVar("_T")


class TenantsError(FaultyFile):
    """A tenants file cannot be used."""


def read_tenants(
    path: Path,
    files: Files,
    own: Sequence[bytes] = (),
    policy: SourcePolicy = NO_SOURCE_POLICY,
    buildkit_url: str = "",
) -> Tenants:
    """Read a tenants file with the files that it names.

    Args:
        path: the file.
        files: reads them all; names in the file are relative to its directory.
        own: the builder's own payload secrets, which are those of the tenant `default`.
        policy: the builder's source policy, which a tenant's may narrow.
        buildkit_url: of the builder's own BuildKits, which no tenant may name; empty: unknown.

    Raises:
        TenantsError: it cannot be read, or something in it is wrong.
    """
    faults: list[Fault] = []
    try:
        text = files.read(path).decode()
    except OSError as error:
        reason = f"the file cannot be read: {error.strerror}"
        raise TenantsError(path.name, [Fault(1, 1, reason)]) from error
    except UnicodeDecodeError as error:
        raise TenantsError(path.name, [Fault(1, 1, "the file is not UTF-8")]) from error
    document = Item.parse(text, faults)
    reader = _Reader(path.parent, files, own, policy, Isolation(buildkit_url))
    tenants = [] if document is None else reader.tenants(document)
    if faults:
        raise TenantsError(path.name, faults)
    return Tenants(tenants)


class _Reader:
    """Reads each tenant, and remembers the values that must be unique among tenants."""

    def __init__(
        self,
        directory: Path,
        files: Files,
        own: Sequence[bytes],
        policy: SourcePolicy,
        isolation: Isolation,
    ) -> None:
        self._directory = directory
        self._files = files
        self._own = own
        self._policy = policy
        self._isolation = isolation
        self._secrets = dict.fromkeys(own, DEFAULT_TENANT)
        self._webhook_keys: dict[bytes, str] = {}
        self._keys: dict[str, str] = {}
        self._hosts: dict[str, str] = {}
        self._tokens: dict[str, str] = {}
        self._trusts = TrustReader(directory, files)

    def tenants(self, document: Item) -> list[Tenant]:
        top = document.fields(TOP_KEYS, required=TOP_KEYS)
        if "tenants" not in top:
            return []
        found: list[Tenant] = []
        for name, key, value in top["tenants"].entries():
            if not NAME.fullmatch(name):
                key.fail(
                    f"{shown(name)} is not a tenant's name: 1 to 40 lower-case letters, digits "
                    "and dashes, with no dash at either end"
                )
                continue
            found.append(self._tenant(name, key, value))
        if DEFAULT_TENANT not in {tenant.name for tenant in found}:
            found.append(Tenant(name=DEFAULT_TENANT, secrets=self._own))
        return found

    def _tenant(self, name: str, key: Item, value: Item) -> Tenant:
        fields = value.fields(TENANT_KEYS)
        if name == DEFAULT_TENANT:
            for secret in filter(fields.__contains__, _OWN_SECRETS):
                fields[secret].fail(f"{DEFAULT_TENANT} has the builder's own secrets")
        can_prove_itself = name == DEFAULT_TENANT or any(proof in fields for proof in _PROOFS)
        if value.is_mapping and not can_prove_itself:
            key.fail(f"{name} cannot prove itself: give it {' or '.join(_PROOFS)}")
        buildkit_url = self._isolation.read_url(name, fields)
        registry_config = self._registry_config_of(name, buildkit_url, fields)
        build_secrets_key = self._build_secrets_key_of(name, fields)
        return Tenant(
            name=name,
            buildkit_url=buildkit_url,
            secrets=self._own if name == DEFAULT_TENANT else self._secrets_of(name, fields),
            webhook_keys=self._webhook_keys_of(name, fields),
            hosts=self._hosts_of(name, fields),
            tokens=self._tokens_of(name, fields),
            trusts=self._trusts.read(name, fields["oidc"]) if "oidc" in fields else (),
            overrides=read_overrides(fields),
            limits=read_limits(fields),
            registry_config=registry_config,
            build_secrets_key=build_secrets_key,
            policy=self._policy_of(fields),
            contents=[
                self._files.digest(path)
                for path in (registry_config, build_secrets_key)
                if path is not None
            ],
        )

    def _secrets_of(self, name: str, fields: Mapping[str, Item]) -> list[bytes]:
        secrets = []
        for secret, item in self._contents(fields, "payload_secret_file"):
            if len(secret) < MIN_SECRET_BYTES:
                item.fail(
                    f"the file has {len(secret)} bytes: a payload secret needs at least "
                    f"{MIN_SECRET_BYTES}"
                )
            else:
                _claim(self._secrets, secret, name, item, "the secret")
                secrets.append(secret)
        return secrets

    def _webhook_keys_of(self, name: str, fields: Mapping[str, Item]) -> list[bytes]:
        found = []
        for secret, item in self._contents(fields, "webhook_secret_file"):
            try:
                key = parse_secret(secret.decode("ascii", "replace"))
            except ValueError as error:
                item.fail(f"the webhook secret {error}")
                continue
            _claim(self._webhook_keys, key, name, item, "the secret")
            found.append(key)
        return found

    def _registry_config_of(
        self, name: str, buildkit_url: str, fields: Mapping[str, Item]
    ) -> Path | None:
        for data, item, path in self._one(fields, "registry_config"):
            try:
                config = DockerConfig(data, path.name)
                for host in sorted(config.hosts):
                    access = config.helper(host), config.entry(host)
                    self._isolation.claim_registry(buildkit_url, host, access, name, item)
            except ConfigError as error:
                item.fail(f"{shown(path.name)}: {error.what}")
            return path
        return None

    def _build_secrets_key_of(self, name: str, fields: Mapping[str, Item]) -> Path | None:
        for data, item, path in self._one(fields, "build_secrets_key"):
            try:
                key = SecretsKey.parse(data)
            except ValueError as error:
                item.fail(f"{shown(path.name)} is not a key: {error}")
            else:
                _claim(self._keys, key.public, name, item, "the key")
            return path
        return None

    def _policy_of(self, fields: Mapping[str, Item]) -> Sequence[PolicyRule]:
        for data, item, path in self._one(fields, "policy"):
            from function_builder.policy.source_policy_file import (  # noqa: PLC0415 (few have one)
                SourcePolicyError,
                parse_source_policy,
            )

            try:
                rules = parse_source_policy(data, path.name)
            except SourcePolicyError as error:
                for fault in error.faults:
                    item.fail(f"{shown(path.name)}: {fault}")
                return ()
            try:
                self._policy.check_narrowing(rules)
            except ValueError as error:
                item.fail(f"{shown(path.name)} {error}")
            return rules
        return ()

    def _one(self, fields: Mapping[str, Item], key: str) -> Iterator[tuple[bytes, Item, Path]]:
        """The content of the one file that a key names."""
        if key in fields and (name := fields[key].text()):
            path = self._directory / name
            try:
                yield self._files.read(path), fields[key], path
            except OSError as error:
                fields[key].fail(f"{shown(name)} cannot be read: {error.strerror}")

    def _contents(self, fields: Mapping[str, Item], key: str) -> Iterator[tuple[bytes, Item]]:
        for name, item in _texts(fields, key):
            try:
                yield self._files.read(self._directory / name).strip(), item
            except OSError as error:
                item.fail(f"{shown(name)} cannot be read: {error.strerror}")

    def _hosts_of(self, name: str, fields: Mapping[str, Item]) -> list[str]:
        hosts = []
        for text, item in _texts(fields, "hosts"):
            host = text.lower()
            if not _HOST.fullmatch(host):
                item.fail(f"{shown(text)} is not a host name: write it without scheme and port")
                continue
            _claim(self._hosts, host, name, item, host)
            hosts.append(host)
        return hosts

    def _tokens_of(self, name: str, fields: Mapping[str, Item]) -> list[Token]:
        tokens = []
        for item in fields["tokens"].items() if "tokens" in fields else ():
            token = item.fields(TOKEN_KEYS, required=("sha256",))
            if "sha256" not in token:
                continue
            digest = token["sha256"].text()
            if not _SHA256.fullmatch(digest):
                token["sha256"].fail("must be 64 lower-case hex digits: the SHA-256 of the token")
                continue
            if digest == _EMPTY_SHA256:
                token["sha256"].fail("this is the hash of an empty token")
                continue
            _claim(self._tokens, digest, name, token["sha256"], "the token")
            tokens.append(Token(digest, read_scopes(token)))
        return tokens


def _texts(fields: Mapping[str, Item], key: str) -> list[tuple[str, Item]]:
    return fields[key].texts() if key in fields else []


def _claim(owners: dict[_T, str], value: _T, name: str, item: Item, what: str) -> None:
    """Note the tenant of a value, which must be unique in the file."""
    if value in owners:
        owner = owners[value]
        item.fail(f"{what} is there twice" if owner == name else f"{what} is also that of {owner}")
    else:
        owners[value] = name
