"""Settings for which a tenant may have its own values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final

from function_builder.contract.tenancy import Limits
from function_builder.items import Item
from function_builder.settings import Settings
from function_builder.tenants.tenant import Tenant

LISTS: Final = {"push": "allowed_pushes", "allowed_frontends": "allowed_frontends"}
NUMBERS: Final = {"build_timeout": "build_timeout", "max_body_bytes": "max_body_bytes"}
"""Keys of a tenant, and the variables of the settings, which read the values too."""

LIMITS: Final = ("weight", "max_inflight", "max_queue", "max_queued", "builds_per_hour")

_MOST: Final = 10_000

_AT_MOST: Final = ("build_timeout", "max_body_bytes")
"""The settings of which a tenant's value may not exceed the builder's."""

_BY_VARIABLE: Final = {each.metadata["variable"]: each for each in fields(Settings)}


def read_overrides(values: Mapping[str, Item]) -> Mapping[str, Any]:
    """The settings among a tenant's values, by their field's name."""
    found: dict[str, Any] = {}
    for key, variable in (LISTS | NUMBERS).items():
        if key not in values:
            continue
        items = values[key].texts() if key in LISTS else [(values[key].text(), values[key])]
        parsed = [_parse(variable, text, item) for text, item in items if text]
        if None not in parsed and parsed:
            texts = ",".join(text for text, _ in items)
            found[_BY_VARIABLE[variable].name] = _parse(variable, texts, values[key])
    return found


def read_limits(values: Mapping[str, Item]) -> Limits:
    """A tenant's limits."""
    found: dict[str, Any] = {}
    for key in LIMITS:
        if key in values and (text := values[key].text()):
            least = 0 if key == "max_queue" else 1
            if text.isascii() and text.isdigit() and least <= int(text) <= _MOST:
                found[key] = int(text)
            else:
                values[key].fail(f"must be a whole number from {least} to {_MOST}")
    return Limits(**found)


def tenant_settings(base: Settings, tenant: Tenant, *, is_default: bool) -> Settings:
    """The settings for a tenant's requests.

    Args:
        base: the builder's.
        tenant: the tenant.
        is_default: whether the builder's key for build secrets is the tenant's.
    """
    overrides = dict(tenant.overrides)
    for name in _AT_MOST:
        if name in overrides:
            overrides[name] = min(overrides[name], getattr(base, name))
    if not is_default:
        overrides["build_secrets_private_key_path"] = str(tenant.build_secrets_key or "")
    return replace(base, **overrides)


def _parse(variable: str, text: str, item: Item) -> Any:
    """The value of a setting; None, with a fault, if it is wrong."""
    try:
        return _BY_VARIABLE[variable].metadata["parse"](text)
    except ValueError as error:
        item.fail(str(error))
        return None
