"""Credential helpers: programs in Docker's configuration that return a registry's credentials.

Source: github.com/docker/docker-credential-helpers. The protocol is `NAME get`, with the registry
on standard input, and JSON or an error on standard output.
"""

from __future__ import annotations

import asyncio
import errno
import json
from typing import Final

import structlog

from aiobuildkit import Credentials
from function_builder.engine.groups import kill_group, start_group
from function_builder.registries.docker_config import ConfigError

_log = structlog.get_logger(__name__)

HELPER_SECONDS: Final = 30.0
"""Seconds that a helper may take, because it may request a token from a cloud."""

MAX_PROCESSES: Final = 8
"""The most helpers at a time for all builds: a Dockerfile can name a hundred registries."""

_TOKEN_USER: Final = "<token>"  # noqa: S105 (the helpers' mark of an identity token)
_NOT_FOUND: Final = b"credentials not found"
_SHOWN: Final = 1000


class CredentialHelpers:
    """Asks helpers, a limited number at a time."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(MAX_PROCESSES)

    async def ask(self, name: str, server: str) -> Credentials | None:
        """A helper's credentials for a registry; None if it has none.

        Raises:
            ConfigError: it cannot be started, or fails. Its output is only logged.
        """
        program = f"docker-credential-{name}"
        async with self._turns:
            status, output, said = await _run(program, server)
        words = _words(said)
        if status:
            missing = _NOT_FOUND in output
            note = _log.info if missing else _log.warning
            note(
                f"a credential helper {'has no credentials' if missing else 'failed'}",
                program=program,
                registry=server,
                status=status,
                # Output that looks like credentials is not logged, whatever the exit code is.
                output="" if b'"Secret"' in output else _words(output),
                stderr=words,
            )
            if missing:
                return None
            raise ConfigError(f"{program} failed with status {status}")
        if words:
            _log.info(
                "output of a credential helper", program=program, registry=server, stderr=words
            )
        return _credentials(program, output)


async def _run(program: str, server: str) -> tuple[int | None, bytes, bytes]:
    try:
        process = await start_group(
            program,
            "get",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        _log.warning("a credential helper cannot be started", program=program, reason=str(error))
        if error.errno == errno.ENOENT:
            raise ConfigError(
                f"it points to the keychain program {program}, which is not there: "
                "install it, or put the credentials into auths"
            ) from error
        raise ConfigError(f"{program} cannot be started") from error
    try:
        async with asyncio.timeout(HELPER_SECONDS):
            output, said = await _ask(process, server)
    except TimeoutError as error:
        _log.warning("a credential helper did not answer", program=program, registry=server)
        raise ConfigError(f"{program} did not answer within {HELPER_SECONDS:.0f} s") from error
    return process.returncode, output, said


async def _ask(process: asyncio.subprocess.Process, server: str) -> tuple[bytes, bytes]:
    try:
        return await process.communicate(server.encode())
    except BaseException:
        # A script's children too, which may outlive it and keep its output open.
        kill_group(process.pid)
        await process.wait()
        raise


def _credentials(program: str, output: bytes) -> Credentials | None:
    try:
        answer = json.loads(output)
        username, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{program} answered something else than credentials") from error
    if not (isinstance(username, str) and isinstance(secret, str)):
        raise ConfigError(f"{program} answered something else than credentials")
    if username == _TOKEN_USER:
        username = ""
    return Credentials(username=username, secret=secret) if secret else None


def _words(output: bytes) -> str:
    """A helper's output as one log line; of a long output only the end."""
    text = " ".join(output[-4 * _SHOWN :].decode("utf-8", "replace").split())
    return "".join(letter for letter in text if letter.isprintable())[-_SHOWN:]
