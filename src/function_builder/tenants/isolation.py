"""Check the BuildKits of tenants, and their credentials where they share a BuildKit."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from function_builder.buildkits.addresses import Addresses
from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.items import Item


class Isolation:
    """Remembers the tenant of each BuildKit, and the credentials of each registry on it.

    Args:
        shared: the builder's `buildkit_url`; empty: it is not known.
    """

    def __init__(self, shared: str) -> None:
        self._owners: dict[object, str] = {}
        self._registries: dict[tuple[str, str], tuple[str, object]] = {}
        if shared:
            # What the setting says is checked where it is used.
            with suppress(ValueError):
                addresses = Addresses.parse(shared)
                self._owners = dict.fromkeys([*addresses.fixed, *addresses.names], DEFAULT_TENANT)

    def read_url(self, name: str, fields: Mapping[str, Item]) -> str:
        """A tenant's `buildkit_url`; empty: it uses the builder's BuildKits."""
        if "buildkit_url" not in fields:
            return ""
        item = fields["buildkit_url"]
        if name == DEFAULT_TENANT:
            item.fail(f"{DEFAULT_TENANT} has the builder's own BuildKits")
            return ""
        url = item.text()
        try:
            addresses = Addresses.parse(url)
        except ValueError as error:
            item.fail(str(error))
            return ""
        for each in (*addresses.fixed, *addresses.names):
            owner = self._owners.setdefault(each, name)
            if owner != name:
                whose = "the builder's own" if owner == DEFAULT_TENANT else f"also that of {owner}"
                item.fail(f"this BuildKit is {whose}: name one that is {name}'s alone")
        return url

    def claim_registry(self, url: str, host: str, access: object, name: str, item: Item) -> None:
        """Note a tenant's credentials for a registry: on one BuildKit, all must have the same.

        Args:
            url: the tenant's `buildkit_url`.
            host: the registry's.
            access: the credentials.
            name: the tenant's.
            item: receives the fault.
        """
        owner, known = self._registries.setdefault((url, host), (name, access))
        if access != known:
            item.fail(
                f"{owner} has other credentials for {host}: on one BuildKit, one's builds may pull "
                "with the other's, and fail. Give both the same, or one of them a buildkit_url"
            )
