"""Credential helpers: programs that Docker's configuration names, asked for one registry at a time.

Source: github.com/docker/docker-credential-helpers, whose protocol is `NAME get`, the registry on
standard input, and JSON or a reason on standard output.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
from contextlib import suppress
from typing import Final

import structlog

from aiobuildkit import Credentials
from function_builder.registries.docker_config import ConfigError

_log = structlog.get_logger(__name__)

HELPER_SECONDS: Final = 30.0
"""How long a helper may take; it may have to ask a cloud for a token."""

MAX_PROCESSES: Final = 8
"""Helpers that run at a time, for all builds: a Dockerfile can name a hundred registries."""

_TOKEN_USER: Final = "<token>"  # noqa: S105 (the helpers' mark of an identity token)
_NOT_FOUND: Final = b"credentials not found"
_SHOWN: Final = 1000


class CredentialHelpers:
    """Asks helpers, a bounded number at a time."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(MAX_PROCESSES)

    async def ask(self, name: str, server: str) -> Credentials | None:
        """The credentials that the helper NAME has for a registry; None: none.

        Raises:
            ConfigError: it cannot be asked, or fails. What it said is in the log alone.
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
                # Not what looks like credentials, however the helper has ended.
                output="" if b'"Secret"' in output else _words(output),
                stderr=words,
            )
            if missing:
                return None
            raise ConfigError(f"{program} failed with status {status}")
        if words:
            _log.info("a credential helper said", program=program, registry=server, stderr=words)
        return _credentials(program, output)


async def _run(program: str, server: str) -> tuple[int | None, bytes, bytes]:
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            "get",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # A group of its own: a script's children end with it.
            start_new_session=True,
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
            output, said = await process.communicate(server.encode())
    except TimeoutError as error:
        _log.warning("a credential helper gave no answer", program=program, registry=server)
        raise ConfigError(f"{program} gave no answer within {HELPER_SECONDS:.0f} s") from error
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return process.returncode, output, said


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
    """A helper's words as one line of the log, the last of them if there are many."""
    text = " ".join(output[-4 * _SHOWN :].decode("utf-8", "replace").split())
    return "".join(letter for letter in text if letter.isprintable())[-_SHOWN:]
