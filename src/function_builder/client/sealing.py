"""Build secrets, sealed so that only the builder can open them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from function_builder.contract.secrets import seal


def seal_secrets(
    secrets: Mapping[str, str | bytes], public_key: str | bytes | Mapping[str, str]
) -> bytes:
    """Seal build secrets for `secrets=` of `Client.build`, or for version control.

    Args:
        secrets: values by the names that the Dockerfile mounts
            (`RUN --mount=type=secret,id=NAME`); text is sealed as UTF-8.
        public_key: what `GET /publickey` answers, as bytes, text or the parsed object, or the
            key alone in base64.

    Raises:
        ValueError: the key is not one.
    """
    values = {
        name: value.encode() if isinstance(value, str) else value for name, value in secrets.items()
    }
    return seal(values, read_public_key(public_key))


def read_public_key(given: str | bytes | Mapping[str, str]) -> str:
    """The key in base64 out of what `seal_secrets` accepts.

    Raises:
        ValueError: it is an object without a key.
    """
    if isinstance(given, bytes):
        given = given.decode(errors="replace")
    if isinstance(given, str):
        try:
            answer = json.loads(given)
        except ValueError:
            return given.strip()
        given = answer if isinstance(answer, dict) else {}
    key = given.get("public_key")
    if not isinstance(key, str):
        raise ValueError("it holds no public_key: is it the answer of GET /publickey?")  # noqa: TRY004 (the text is wrong)
    return key.strip()
