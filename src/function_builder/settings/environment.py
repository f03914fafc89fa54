"""The settings as the environment has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Final

from function_builder.settings.access import AccessSettings
from function_builder.settings.buildkit import BuildKitSettings
from function_builder.settings.policy import PolicySettings
from function_builder.settings.queue import QueueSettings
from function_builder.settings.registries import RegistrySettings
from function_builder.settings.serving import ServingSettings
from function_builder.settings.values import EMPTY_IS_A_VALUE


class SettingsError(ValueError):
    """A setting is invalid; the text names it and its valid values."""


@dataclass(frozen=True, kw_only=True)
class Settings(
    # In --help the last is the first, because a dataclass has the fields of its last base first.
    QueueSettings,
    PolicySettings,
    BuildKitSettings,
    RegistrySettings,
    AccessSettings,
    ServingSettings,
):
    """The settings of `function-builder serve`; each field's metadata has its variable and text."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], **flags: Any) -> Settings:
        """Read the variables; flags that are not None override them.

        Raises:
            SettingsError: a value is invalid; the text names the variable and valid values.
        """
        values: dict[str, Any] = {}
        for setting in fields(cls):
            variable = setting.metadata["variable"]
            text = environment.get(variable)
            # pro-builder's charts set unused variables to ""; for a list, "" is a value.
            if text is None or (not text and setting.metadata["parse"] not in EMPTY_IS_A_VALUE):
                continue
            try:
                values[setting.name] = setting.metadata["parse"](text)
            except ValueError as error:
                shown = repr(text) if setting.repr else "…"
                raise SettingsError(f"{variable}={shown}: {_reason(error)}") from error
        values |= {name: value for name, value in flags.items() if value is not None}
        settings = cls(**values)
        if problem := settings.image_format.problem:
            raise SettingsError(f"compression, compression_level, oci_mediatypes: {problem}")
        return settings


def _reason(error: ValueError) -> str:
    return "must be a whole number" if "invalid literal" in str(error) else str(error)


def near_misses(environment: Mapping[str, str], others: Iterable[str] = ()) -> dict[str, str]:
    """Variables that are not read, but look like one that is: `MAX_INFLIGHT`, `max_inflght`.

    Args:
        environment: only the names are read.
        others: variables that are read elsewhere.

    Returns:
        Each such name, and the one that was probably meant.
    """
    read = {setting.metadata["variable"] for setting in fields(Settings)} | set(others)
    plain = {_plain(name): name for name in sorted(read)}
    # Other programs have variables in upper case, whose names may be similar and yet correct.
    own = {key: name for key, name in plain.items() if name.islower()}
    found = {}
    for name in environment.keys() - read:
        key = _plain(name)
        near = [key] if key in plain else get_close_matches(key, own, n=1, cutoff=_LIKENESS)
        if near:
            found[name] = plain[near[0]]
    return found


_LIKENESS: Final = 0.86
"""One letter off in a name of seven, two in one of fourteen (difflib's ratio)."""


def _plain(name: str) -> str:
    """A name without case and dashes: `maxInflight` and `MAX-INFLIGHT` are equal."""
    return re.sub(r"[-_.]", "", name).lower()
