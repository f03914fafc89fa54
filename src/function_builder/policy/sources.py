"""A builder's source policy, with what BuildKit must not read: its own machine, metadata services.

BuildKit fetches `ADD` of a URL or a git repository itself, from its own network instead of that of
RUN steps. So each solve has these expressions, and BuildKit denies matching sources. It only
matches the address in the Dockerfile: a name that resolves to such an address, a redirect and a
submodule are not denied. docs/network.md says how to prevent those.

The syntax is RE2's. Source: BuildKit, `sourcepolicy/matcher.go`; the identifiers are those of
`client/llb/source.go`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from function_builder.builds.source_policy import SourcePolicy, denying

_METADATA: Final = (
    r"169\.254\.\d+\.\d+",
    # Alibaba Cloud, Azure.
    r"100\.100\.100\.200",
    r"168\.63\.129\.16",
    # Link-local, AWS, Google Cloud.
    r"\[fe[89ab][^\]]*\]",
    r"\[fd00:0*ec2:[^\]]*\]",
    r"\[fd20:0*ce:[^\]]*\]",
    r"(?:[^/?#@]*\.)?metadata(?:\.google\.internal)?",
    r"instance-data(?:\.[^/?#@:]*)?",
)
_LOOPBACK: Final = (
    r"(?:127|0)\.\d+\.\d+\.\d+",
    r"(?:[^/?#@]*\.)?localhost",
    r"localhost\.localdomain|localhost6?|ip6-localhost|ip6-loopback",
    # Each spelling of ::1, of :: and of addresses that contain an IPv4 address.
    r"\[(?:0|::|64:ff9b:)[^\]]*\]",
    r"\[[^\]]*[.%][^\]]*\]",
)
_UNUSUAL: Final = (
    # git's resolver reads 2130706433, 0x7f000001, 0177.0.0.1 and 127.1 as addresses.
    r"(?:(?:0x[0-9a-f]*|\d+)\.)*0x[0-9a-f]*(?:\.(?:0x[0-9a-f]*|\d+))*",
    r"\d+(?:\.\d+){0,2}",
    r"(?:\d+\.)*0\d+(?:\.\d+)*",
    # Go's HTTP client converts characters that look like digits and dots.
    r"[^/?#@]*[^\x00-\x7f][^/?#@]*",
)
_USER: Final = r"(?:[^/?#]*@)?"
_END: Final = r"\.?(?::\d*)?(?:[/?#]|$)"


def _any(hosts: Iterable[str]) -> str:
    return "|".join(hosts)


LOCAL_SOURCES: Final = (
    rf"^(?i:https?|git)://{_USER}(?i:{_any(_METADATA + _LOOPBACK + _UNUSUAL)}){_END}",
    # A registry on BuildKit's own machine is common.
    rf"^docker-image(?:\+blob)?://(?i:{_any(_METADATA)}){_END}",
)


def builder_policy(file: str, *, local_sources: bool, covers_steps: bool = False) -> SourcePolicy:
    """The rules for all builds of a builder.

    Args:
        file: of the operator's rules; empty: there are none.
        local_sources: whether the addresses above may be read.
        covers_steps: whether RUN steps are under the rules too.

    Raises:
        OSError: the file cannot be read.
        SourcePolicyError: something in it is wrong.
    """
    local = [] if local_sources else denying(LOCAL_SOURCES, "local_sources")
    if not file:
        return SourcePolicy(local=local, covers_steps=covers_steps)
    from function_builder.policy.source_policy_file import (  # noqa: PLC0415 (few have a file)
        read_source_policy,
    )

    return SourcePolicy(read_source_policy(Path(file)), local, covers_steps)
