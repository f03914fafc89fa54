"""Read Docker's `config.json` and similar files: the entry of a registry, and its credentials.

Sources: github.com/docker/cli, `cli/config/configfile` and `cli/config/credentials`; for keys with
a path containers-auth.json(5) of containers/image; Kubernetes, Secrets of the types
`kubernetes.io/dockerconfigjson` and `kubernetes.io/dockercfg`.
"""

from __future__ import annotations

import base64
import codecs
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from aiobuildkit import Credentials, RPCError, StatusCode

BROKEN_CONFIG: Final = "the builder's registry configuration (config.json) is broken"
"""The beginning of our error if BuildKit asks for credentials; BuildKit's error contains it."""

FILE: Final = "config.json"
HUB_KEY: Final = "https://index.docker.io/v1/"
_HUB_HOSTS: Final = ("index.docker.io", "docker.io", "registry-1.docker.io")
"""Docker Hub's names: BuildKit asks for the last, `docker login` writes HUB_KEY."""

_API_VERSION = re.compile(r"/v[12]$")


class ConfigError(RPCError):
    """The configuration is broken.

    The client receives the text from BuildKit, so it contains neither a path nor a secret.

    Attributes:
        what: the fault.
    """

    def __init__(self, what: str, source: str = FILE) -> None:
        where = "" if source == FILE else f"{source}: "
        super().__init__(StatusCode.FAILED_PRECONDITION, f"{BROKEN_CONFIG}: {where}{what}")
        self.what = what


class DockerConfig:
    """One document.

    Args:
        data: the file's bytes, or the variable's.
        source: its name in errors, if it is not `config.json`.

    Raises:
        ConfigError: it is not such a document. Entries are checked when they are used.
    """

    def __init__(self, data: bytes, source: str = FILE) -> None:
        self._source = source
        document = self._load(data)
        auths = _get(document, "auths")
        if auths is None and _is_dockercfg(document):
            auths = document
        self._auths = self._entries("auths", auths)
        self._helpers = self._entries("credHelpers", _get(document, "credHelpers"))
        self._store = _get(document, "credsStore")

    def entry(self, host: str, repositories: Sequence[str] = ()) -> Credentials | None:
        """The credentials of the best entry that has any.

        Args:
            host: a registry's `host[:port]`.
            repositories: those pulled or pushed, for keys with a path.

        Raises:
            ConfigError: that entry is broken.
        """
        for key in _keys(self._auths, host, repositories):
            if (found := self._read(self._auths[key], host)) is not None:
                return found
        return None

    @property
    def hosts(self) -> set[str]:
        """The registries that have an entry, as `host[:port]`."""
        return {_plain(key).partition("/")[0] for key in (*self._auths, *self._helpers)}

    def helper(self, host: str) -> str:
        """The name of a registry's credential helper; empty without one.

        Raises:
            ConfigError: the name is invalid.
        """
        own = next(_keys(self._helpers, host, (), strict=True), None)
        name = self._store if own is None else self._helpers[own]
        if name is None:
            return ""
        if not isinstance(name, str):
            raise self._broken("a credential helper's name must be a string")
        if "/" in name:
            raise self._broken("a credential helper's name must not contain a slash")
        return name

    def _load(self, data: bytes) -> Mapping[str, object]:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise self._broken("it is UTF-16: save it as UTF-8")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise self._broken("it is not UTF-8") from error
        if not text.strip():
            raise self._broken("it is empty")
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._broken("it is not JSON") from error
        if not isinstance(document, dict):
            raise self._broken("it is not a JSON object")
        return document

    def _entries(self, name: str, value: object) -> Mapping[str, object]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._broken(f"{name} is not an object")
        return value

    def _read(self, entry: object, host: str) -> Credentials | None:
        """The credentials of an entry; None without any."""
        if entry is None:
            return None
        if not isinstance(entry, dict):
            raise self._broken(f"the entry of auths for {host} is not an object")
        user, secret = _text(entry, "username"), _text(entry, "password")
        if encoded := _text(entry, "auth"):
            user, secret = self._decode(encoded, host)
        if token := _text(entry, "identitytoken"):
            user, secret = "", token
        registry_token = _text(entry, "registrytoken")
        if not (secret or registry_token):
            return None
        return Credentials(username=user, secret=secret, registry_token=registry_token)

    def _decode(self, encoded: str, host: str) -> tuple[str, str]:
        text = "".join(encoded.split()).rstrip("=").translate(_STANDARD_ALPHABET)
        try:
            pair = base64.b64decode(text + "=" * (-len(text) % 4), validate=True).decode()
        except ValueError as error:
            raise self._broken(f"the auth of {host} is not base64 of user:password") from error
        user, colon, secret = pair.partition(":")
        secret = secret.strip("\0")
        if not colon or (secret and not user):
            raise self._broken(f"the auth of {host} is not base64 of user:password")
        return user, secret

    def _broken(self, what: str) -> ConfigError:
        return ConfigError(what, self._source)


_STANDARD_ALPHABET: Final = str.maketrans("-_", "+/")


def _keys(
    entries: Mapping[str, object],
    host: str,
    repositories: Sequence[str],
    *,
    strict: bool = False,
) -> Iterator[str]:
    """The keys that match a registry, the best first.

    Keys with the path of a repository, the longest first; the exact key, which for Docker Hub is
    the one that `docker login` writes; URLs of the host; and, unless `strict`, every key that
    contains the host, as in docker.
    """
    hosts = _HUB_HOSTS if host in _HUB_HOSTS else (host,)
    plain = {key: _plain(key) for key in entries}
    for repository in repositories:
        parts = repository.split("/")
        for length in range(len(parts), 0, -1):
            path = "/".join(parts[:length])
            yield from (key for key in plain if plain[key] in {f"{each}/{path}" for each in hosts})
    exact = (HUB_KEY, *hosts) if host in _HUB_HOSTS else hosts
    yield from (key for key in exact if key in entries)
    yield from (key for key in plain if plain[key] in hosts)
    if not strict:
        yield from (key for key in plain if plain[key].partition("/")[0] in hosts)


def _plain(key: str) -> str:
    """A key without scheme and API version: `https://r:5000/v1/` becomes `r:5000`."""
    path = key.removeprefix("http://").removeprefix("https://").rstrip("/")
    return _API_VERSION.sub("", path)


def _get(document: Mapping[str, object], name: str) -> object:
    """A value by its case-insensitive name, as Go reads JSON."""
    if name in document:
        return document[name]
    return next((document[key] for key in document if key.lower() == name.lower()), None)


def _text(entry: Mapping[str, object], name: str) -> str:
    value = _get(entry, name)
    return value if isinstance(value, str) else ""


def _is_dockercfg(document: Mapping[str, object]) -> bool:
    """Whether it has the older form, which is only a map of hosts."""
    entries = document.values()
    return bool(entries) and all(
        isinstance(entry, dict) and (_text(entry, "auth") or _text(entry, "username"))
        for entry in entries
    )
