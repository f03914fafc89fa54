"""How a setting is declared, and how its text is read.

Each parser returns the value of a variable's text, or raises a ValueError that says what the text
must be.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final, TypeAlias

from function_builder.contract.callback_url import CallbackHosts
from function_builder.contract.image_format import HIGHEST_LEVELS
from function_builder.contract.log import LogPrefixes
from function_builder.contract.push_patterns import PushPatterns

Networks: TypeAlias = tuple[IPv4Network | IPv6Network, ...]
"""Ranges of IP addresses."""

EMBEDDED: Final = "embedded"
"""The value of `nats_url` for a nats-server of the builder's own."""

_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|h|m|s)")
_SIZES: Final = {
    "": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
}
_REGISTRY: Final = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?")
_FRONTEND: Final = re.compile(r"[A-Za-z0-9._:/\[\]-]+(@sha256:[0-9a-f]{64}|=built-in)?")
_MIRROR: Final = re.compile(_REGISTRY.pattern + r"(/[a-z0-9._/-]+)?")
_REPOSITORY: Final = re.compile(
    r"([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+"
)


def setting(
    variable: str, parse: Callable[[str], Any], default: Any, doc: str, *, secret: bool = False
) -> Any:
    """Declare a setting.

    Args:
        variable: its environment variable.
        parse: reads the variable's text.
        default: its value without the variable.
        doc: its text in docs/settings.md and in `serve --help`.
        secret: whether neither errors nor logs may show its value.
    """
    return field(
        default=default,
        repr=not secret,
        metadata={"variable": variable, "parse": parse, "doc": " ".join(doc.split())},
    )


def text(value: str) -> str:
    """Any text."""
    return value


def flag(value: str) -> bool:
    """Go's strconv.ParseBool, as in pro-builder."""
    word = value.strip().lower()
    if word in ("1", "t", "true"):
        return True
    if word in ("0", "f", "false", ""):
        return False
    raise ValueError("must be true or false")


def optional_flag(value: str) -> bool | None:
    """A flag, or nothing."""
    return flag(value) if value.strip() else None


def compression(value: str) -> str:
    """The name of a compression, or nothing."""
    name = value.strip().lower()
    if name and name not in HIGHEST_LEVELS:
        raise ValueError(f"must be one of {', '.join(HIGHEST_LEVELS)}")
    return name


def compression_level(value: str) -> int | None:
    """A level that some compression has, or nothing."""
    if not value.strip():
        return None
    level, highest = count(value), max(HIGHEST_LEVELS.values())
    if level > highest:
        raise ValueError(f"must be at most {highest}")
    return level


def count(value: str) -> int:
    """A whole number from 0."""
    number = int(value)
    if number < 0:
        raise ValueError("must not be negative")
    return number


def seconds(value: str) -> float:
    """A duration: seconds, or Go's notation."""
    duration = value.strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", duration):
        return float(duration)
    parts = _DURATION.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise ValueError("must be a duration such as 90s or 5m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def silence(value: str) -> float:
    """A duration of 1s or more: a busy event loop is silent for some tenths of a second."""
    duration = seconds(value)
    if duration < 1:
        raise ValueError("must be 1s or more")
    return duration


def size(value: str) -> int:
    """Bytes, with or without a unit."""
    match = re.fullmatch(r"([0-9]+)\s*([A-Za-z]*)", value.strip())
    if match is None or match[2].upper() not in _SIZES:
        raise ValueError("must be a size such as 1GiB or 512MB")
    return int(match[1]) * _SIZES[match[2].upper()]


def log_prefixes(value: str) -> LogPrefixes:
    """The name of a LogPrefixes, or pro-builder's true and false."""
    try:
        return LogPrefixes(value.strip().lower())
    except ValueError:
        pass
    try:
        return LogPrefixes.FULL if flag(value) else LogPrefixes.NONE
    except ValueError:
        raise ValueError("must be full, time or none") from None


def log_limit(value: str) -> int:
    """Bytes as BuildKit reads them: -1 is no limit; BuildKit ignores a value of over 32 bits."""
    if value.strip() == "-1":
        return -1
    limit = size(value)
    if limit >= 2**31:
        raise ValueError("must be less than 2GiB, or -1 for no limit")
    return limit


def log_level(value: str) -> str:
    """A level of BuildKit's log."""
    if value not in ("debug", "info", "warn", "error"):
        raise ValueError("must be debug, info, warn or error")
    return value


def words(value: str) -> tuple[str, ...]:
    """A list, separated by commas."""
    return tuple(word.strip() for word in value.split(",") if word.strip())


def networks(value: str) -> Networks:
    """A list of networks."""
    try:
        return tuple(map(ip_network, words(value)))
    except ValueError as error:
        # The library's text names the address and the fault, such as host bits that are set.
        raise ValueError(f"must be networks such as 10.0.0.0/8: {error}") from error


def addresses(value: str) -> tuple[str, ...]:
    """A list of IP addresses."""
    servers = words(value)
    for server in servers:
        try:
            ip_address(server)
        except ValueError:
            raise ValueError("must be IP addresses, such as 10.0.0.2,10.0.0.3") from None
    return servers


def registries(value: str) -> tuple[str, ...]:
    """A list of registries' hosts."""
    hosts = words(value)
    if not all(map(_REGISTRY.fullmatch, hosts)):
        raise ValueError("must be HOST:PORT,..., such as registry.internal:5000")
    return hosts


def pairs(value: str) -> tuple[tuple[str, str], ...]:
    """A list of registries, each with a value."""
    found = [word.partition("=") for word in words(value)]
    for host, _, other in found:
        if not (_REGISTRY.fullmatch(host) and other):
            raise ValueError("must be REGISTRY=VALUE,..., such as ghcr.io=mirror.internal:5000")
    return tuple((host, other) for host, _, other in found)


def mirrors(value: str) -> tuple[tuple[str, str], ...]:
    """A list of registries, each with a mirror."""
    found = pairs(value)
    if not all(_MIRROR.fullmatch(mirror) for _, mirror in found):
        raise ValueError("must be REGISTRY=MIRROR,..., such as ghcr.io=mirror.internal:5000")
    return found


def repository(value: str) -> str:
    """A repository with its registry, or nothing."""
    name = value.strip().rstrip("/")
    if name and not _REPOSITORY.fullmatch(name):
        raise ValueError("must be REGISTRY/NAME, such as registry.internal:5000/build-cache")
    return name


def frontends(value: str) -> tuple[str, ...]:
    """A list of images that may be a Dockerfile's frontend."""
    entries = words(value)
    if not all(map(_FRONTEND.fullmatch, entries)):
        raise ValueError(
            "must be NAME, NAME@sha256:DIGEST (64 hex digits) or NAME=built-in, comma separated"
        )
    return entries


def nats(value: str) -> str:
    """URLs of NATS, EMBEDDED, or nothing."""
    schemes = ("nats://", "tls://")
    if (
        value
        and value != EMBEDDED
        and not all(word.startswith(schemes) for word in value.split(","))
    ):
        raise ValueError("must be embedded, or nats://HOST:PORT, or tls://HOST:PORT")
    return value


def replicas(value: str) -> int:
    """The numbers of replicas that JetStream allows."""
    if value not in ("1", "3", "5"):
        raise ValueError("must be 1, 3 or 5")
    return int(value)


EMPTY_IS_A_VALUE: Final = (
    text,
    words,
    frontends,
    networks,
    mirrors,
    pairs,
    registries,
    addresses,
    CallbackHosts.parse,
    PushPatterns.parse,
)
"""Parsers for which "" is a value, and does not mean the default."""
