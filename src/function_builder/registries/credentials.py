"""Registry credentials as docker finds them, read again for each request.

First `DOCKER_AUTH_CONFIG`, then the file's credential helpers, then its `auths`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from aiobuildkit import Credentials
from function_builder.contract.errors import shown
from function_builder.contract.references import split_reference
from function_builder.registries.credential_helpers import CredentialHelpers
from function_builder.registries.docker_config import FILE, HUB_KEY, ConfigError, DockerConfig

_log = structlog.get_logger(__name__)

FILES: Final = (FILE, ".dockerconfigjson", ".dockercfg")
"""Docker's file, and the keys of Kubernetes' two types of Secret; the first that exists is read."""

HELPERS_OF_A_BUILD: Final = 2
"""The most helpers at a time for one build, so that it cannot block other builds."""

HELD_SECONDS: Final = 270.0
"""Seconds for which a build keeps a helper's answer: Google's tokens last five minutes."""

_HUB: Final = "registry-1.docker.io"
_HUB_NAMES: Final = frozenset({"docker.io", "index.docker.io", _HUB})
_HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]{1,300}")

Ask: TypeAlias = Callable[[str, str], Awaitable[Credentials | None]]
"""Asks a helper, by name, for a registry's credentials."""


class RegistryCredentials:
    """Answers BuildKit's requests for a registry's credentials.

    Args:
        place: the directory of `config.json` or a mounted Secret, which may be absent, or a file;
            None: there are no credentials.
        variable: the value of `DOCKER_AUTH_CONFIG`; docker ignores a broken one, and so does this.
        helpers: runs credential helpers, with others who share its bound.
    """

    def __init__(
        self,
        place: Path | None,
        variable: str = "",
        helpers: CredentialHelpers | None = None,
    ) -> None:
        self._place = place
        self._helpers = helpers or CredentialHelpers()
        self._variable: DockerConfig | None = None
        if variable.strip():
            try:
                self._variable = DockerConfig(variable.encode(), "DOCKER_AUTH_CONFIG")
            except ConfigError as error:
                _log.warning("DOCKER_AUTH_CONFIG is ignored", reason=error.what)

    def for_build(self, images: Iterable[str]) -> BuildCredentials:
        """The same for one build, which asks a helper once for each registry.

        Args:
            images: the images that the build pushes, which choose among entries with a path.
        """
        return BuildCredentials(self, self._helpers.ask, images)

    async def lookup(
        self, host: str, repositories: Sequence[str] = (), *, ask: Ask | None = None
    ) -> Credentials | None:
        """The credentials for a registry's `host[:port]`; None without configured ones.

        Args:
            host: BuildKit's name of the registry.
            repositories: the requested repositories, for entries with a path.
            ask: asks a credential helper.

        Raises:
            ConfigError: the configuration or a helper is broken.
        """
        if self._variable is not None:
            found = self._variable.entry(host, repositories)
            if found is not None:
                return found
        config = self._read()
        if config is None:
            return None
        if helper := config.helper(host):
            server = HUB_KEY if host in _HUB_NAMES else host
            found = await (ask or self._helpers.ask)(helper, server)
            if found is not None:
                return found
        return config.entry(host, repositories)

    def _read(self) -> DockerConfig | None:
        place = self._place
        if place is None:
            return None
        for path in [place] if place.is_file() else [place / name for name in FILES]:
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                _log.warning("a registry configuration cannot be read", reason=str(error))
                raise ConfigError("it cannot be read", path.name) from error
            return DockerConfig(data, path.name)
        return None


class BuildCredentials:
    """The credentials of one build."""

    def __init__(self, credentials: RegistryCredentials, ask: Ask, images: Iterable[str]) -> None:
        self._credentials = credentials
        self._ask_helper = ask
        self._turns = asyncio.Semaphore(HELPERS_OF_A_BUILD)
        self._asking: dict[tuple[str, str], asyncio.Lock] = {}
        self._answers: dict[tuple[str, str], tuple[float, Credentials | None]] = {}
        self._absent: set[str] = set()
        self._images: dict[tuple[str, str], str] = {}
        for image in images:
            self._images.setdefault(_split(image), image)
        self._pushed: dict[str, list[str]] = {}
        for host, repository in self._images:
            self._pushed.setdefault(host, []).append(repository)

    async def lookup(self, host: str) -> Credentials | None:
        """The credentials for a registry, from the entry of the image that the build pushes."""
        return await self._find(host, self._pushed.get(host, []))

    async def lookup_scopes(self, host: str, scopes: Sequence[str]) -> Credentials | None:
        """The credentials for a token's scopes; pushed repositories come first."""
        repositories = _repositories(scopes) or self._pushed.get(host, [])
        return await self._find(host, repositories)

    def describe_push(self, host: str, scopes: Sequence[str]) -> str:
        """BuildKit's error text for the push that failed without a token for these scopes."""
        names = ((host, repository) for repository in _repositories(scopes))
        pushed = next((self._images[name] for name in names if name in self._images), "")
        return pushed and f"failed to push {pushed}"

    async def _find(self, host: str, repositories: Sequence[str]) -> Credentials | None:
        found = await self._credentials.lookup(host, repositories, ask=self._ask)
        if found is None and host not in self._absent:
            self._absent.add(host)
            name = host if _HOST.fullmatch(host) else shown(host)
            _log.info(f"no credentials for {name}")
        return found

    async def _ask(self, name: str, server: str) -> Credentials | None:
        key = (name, server)
        async with self._asking.setdefault(key, asyncio.Lock()):
            known = self._answers.get(key)
            if known is not None and time.monotonic() - known[0] < HELD_SECONDS:
                return known[1]
            async with self._turns:
                found = await self._ask_helper(name, server)
            self._answers[key] = (time.monotonic(), found)
            return found


def _repositories(scopes: Sequence[str]) -> list[str]:
    """The repositories of scopes such as `repository:a/b:pull,push`; pushed ones come first."""
    parts = [scope.split(":", 1)[1].rpartition(":") for scope in scopes if ":" in scope]
    parts.sort(key=lambda part: "push" not in part[2].split(","))
    return [name for name, _, _ in parts]


def _split(image: str) -> tuple[str, str]:
    """A reference's registry, under BuildKit's name, and its repository."""
    name, _ = split_reference(image)
    first, slash, rest = name.partition("/")
    if not slash or not (first == "localhost" or "." in first or ":" in first):
        first, rest = _HUB, name
    if first in _HUB_NAMES:
        return _HUB, rest if "/" in rest else f"library/{rest}"
    return first, rest
