"""A new tenant in a tenants file: its secrets, and its lines below those of the others."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import yaml

from function_builder.tenants.document import NAME, read_tenants
from function_builder.tenants.files import Files

TOKEN_PREFIX: Final = "fbk_"  # noqa: S105 (it is how a token begins)
"""Lets scanners for leaked secrets find one."""

_SECRET_BYTES: Final = 32


class Added(NamedTuple):
    """What was made.

    Attributes:
        secret: the file of the payload secret; None: the tenant's OIDC tokens prove it.
        token: a bearer token, which is stored nowhere; empty: none was asked for.
    """

    secret: Path | None
    token: str


class Trusted(NamedTuple):
    """The OIDC tokens that prove a tenant, in the form of the file.

    Attributes:
        issuer: its URL.
        audience: of the tokens.
        claims: the accepted values of each claim.
    """

    issuer: str
    audience: str
    claims: Mapping[str, Sequence[str]]


def add_tenant(
    path: Path,
    name: str,
    *,
    hosts: Sequence[str] = (),
    token: bool = False,
    trusted: Trusted | None = None,
) -> Added:
    """Add a tenant to a tenants file, with a payload secret or its OIDC tokens to prove it.

    The secret's file is made beside the tenants file, the operator's to read alone, and so is a
    tenants file that did not exist. The lines of the others stay as they are, comments included.

    Raises:
        ValueError: the name cannot be used, the file is written in a way that nothing can be added
            to, or it is wrong with the new tenant.
        OSError: a file cannot be written, or the secret's is there already.
    """
    if not NAME.fullmatch(name):
        raise ValueError("a name has 1 to 40 lower-case letters, digits and dashes")
    text = path.read_text() if path.exists() else "tenants:\n"
    indent = _indent(text)
    secret = None if trusted else path.with_name(f"{name}.secret")
    made = TOKEN_PREFIX + secrets.token_urlsafe(_SECRET_BYTES) if token else ""
    entry = [f"{name}:"]
    if secret is not None:
        entry.append(f"  payload_secret_file: {secret.name}")
    if trusted:
        # JSON is YAML, whatever characters a value has.
        entry.append(f"  oidc: [{json.dumps(trusted._asdict())}]")
    if hosts:
        entry.append(f"  hosts: [{', '.join(hosts)}]")
    if made:
        entry.append(f"  tokens: [{{sha256: {hashlib.sha256(made.encode()).hexdigest()}}}]")
    lines = "".join(f"{' ' * indent}{line}\n" for line in entry)
    if secret is not None:
        _write_new(secret, base64.b64encode(secrets.token_bytes(_SECRET_BYTES)) + b"\n")
    try:
        _replace(path, f"{text.rstrip()}\n{lines}")
    except BaseException:
        if secret is not None:
            secret.unlink()
        raise
    return Added(secret, made)


def _indent(text: str) -> int:
    """The column of the tenants' names.

    Raises:
        ValueError: the tenants are not the last lines of the file, each with lines of its own.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"the file is not YAML: {error}") from error
    entries = root.value if isinstance(root, yaml.MappingNode) and not root.flow_style else []
    for key, value in entries[-1:]:
        if key.value == "tenants" and isinstance(value, yaml.MappingNode):
            if value.flow_style is False:
                return int(value.value[0][0].start_mark.column)
        elif key.value == "tenants" and value.value == "":
            return 2
    raise ValueError("the file must end with the tenants, each on lines of its own")


def _replace(path: Path, text: str) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    _write_new(draft, text.encode(), mode)
    try:
        read_tenants(draft, Files())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _write_new(path: Path, content: bytes, mode: int = 0o600) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
