"""The scopes of a tenant's bearer tokens."""

from __future__ import annotations

from collections.abc import Mapping

from function_builder.contract.errors import shown
from function_builder.contract.tenancy import ALL_SCOPES, Scope
from function_builder.items import Item


def read_scopes(fields: Mapping[str, Item]) -> frozenset[Scope]:
    """The value of `scopes`; all of them if it is absent."""
    if "scopes" not in fields:
        return ALL_SCOPES
    scopes = set()
    for text, item in fields["scopes"].texts():
        if text in set(Scope):
            scopes.add(Scope(text))
        else:
            item.fail(f"{shown(text)} is not a scope: use {' or '.join(Scope)}")
    return frozenset(scopes)
