"""Registry credentials from Docker's `config.json`, read afresh for each question.

Source: github.com/docker/cli, `cli/config/configfile` and `cli/config/credentials`; the helpers'
protocol is that of github.com/docker/docker-credential-helpers.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from aiobuildkit import Credentials, RPCError, StatusCode
from function_builder.builds.failures import BROKEN_CONFIG

HELPER_TIMEOUT: Final = 30.0
"""Seconds that a credential helper may take; it may have to ask a cloud for a token."""

_HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_HELPER_TOKEN_USER = "<token>"  # noqa: S105 (the helpers' mark of an identity token)


class RegistryCredentials:
    """Answers BuildKit's questions for the credentials of a registry.

    Args:
        directory: where `config.json` lies; the file may be absent.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "config.json"

    async def lookup(self, host: str) -> Credentials | None:
        """The credentials for a registry's `host[:port]`; None where none are configured.

        Raises:
            RPCError: the file or a helper is broken; BuildKit passes the text on to the client,
                so that it names neither a path nor a secret.
        """
        config = self._read()
        key = _HUB_KEY if host in _HUB_HOSTS else host
        helper = _find(_mapping(config, "credHelpers"), host) or config.get("credsStore")
        if helper is not None and not isinstance(helper, str):
            raise _broken("a credential helper's name must be a string")
        if helper:
            found = await _ask_helper(helper, key)
            if found is not None:
                return found
        entry = _find(_mapping(config, "auths"), host)
        return _from_entry(entry, host) if entry else None

    def _read(self) -> Mapping[str, object]:
        try:
            text = self._path.read_text("utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise _broken("it cannot be read") from error
        if not text.strip():
            raise _broken("it is empty")
        try:
            config = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _broken("it is not JSON") from error
        if not isinstance(config, dict):
            raise _broken("it is not a JSON object")
        return config


def hostname(key: str) -> str:
    """A key of `auths` as the registry's host: `https://r:5000/v1/` becomes `r:5000`."""
    return key.removeprefix("http://").removeprefix("https://").partition("/")[0]


def _find(entries: Mapping[str, object], host: str) -> object:
    hosts = _HUB_HOSTS if host in _HUB_HOSTS else {host}
    if host in entries:
        return entries[host]
    return next((value for key, value in entries.items() if hostname(key) in hosts), None)


def _mapping(config: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = config.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _broken(f"{key} is not an object")
    return value


def _from_entry(entry: object, host: str) -> Credentials | None:
    if not isinstance(entry, dict):
        raise _broken(f"the entry of auths for {host} is not an object")
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Credentials(username="", secret=token)
    encoded = entry.get("auth")
    if isinstance(encoded, str) and encoded:
        try:
            username, colon, password = base64.b64decode(encoded).decode().partition(":")
        except ValueError as error:
            raise _broken(f"the auth of {host} is not base64 of user:password") from error
        if not colon:
            raise _broken(f"the auth of {host} is not base64 of user:password")
        return Credentials(username=username, secret=password.rstrip("\0"))
    user, secret = entry.get("username"), entry.get("password")
    if isinstance(user, str) and isinstance(secret, str):
        return Credentials(username=user, secret=secret)
    return None


async def _ask_helper(name: str, server: str) -> Credentials | None:
    program = f"docker-credential-{name}"
    if "/" in name:
        raise _broken("a credential helper's name must not hold a slash")
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            "get",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        raise _broken(
            f"it points to the keychain program {program}, which is not there: "
            "install it, or put the credentials into auths"
        ) from error
    try:
        async with asyncio.timeout(HELPER_TIMEOUT):
            output, _ = await process.communicate(server.encode())
    except TimeoutError as error:
        raise _broken(f"{program} gave no answer within {HELPER_TIMEOUT:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _from_helper(program, process.returncode, output)


def _from_helper(program: str, status: int | None, output: bytes) -> Credentials | None:
    if status != 0:
        # The helpers' own word for «none here», which is no fault.
        if b"credentials not found" in output:
            return None
        raise _broken(f"{program} failed with status {status}")
    try:
        answer = json.loads(output)
        username, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError) as error:
        raise _broken(f"{program} answered something else than credentials") from error
    if username == _HELPER_TOKEN_USER:
        username = ""
    return Credentials(username=username, secret=secret)


def _broken(what: str) -> RPCError:
    return RPCError(
        StatusCode.FAILED_PRECONDITION,
        f"{BROKEN_CONFIG}: {what}",
    )
