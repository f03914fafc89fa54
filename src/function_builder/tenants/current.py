"""The current tenants: those of the last valid version of the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from function_builder.builds.source_policy import NO_SOURCE_POLICY, SourcePolicy
from function_builder.tenants.document import read_tenants
from function_builder.tenants.files import Files
from function_builder.tenants.tenant import Tenant, Tenants

OwnSecrets: TypeAlias = Callable[[Callable[[Path], bytes]], Sequence[bytes]]
"""Reads the builder's own payload secrets, by a function that reads a file."""


class Changes(NamedTuple):
    """The names of the tenants that a new file changes, in alphabetical order.

    Attributes:
        added: the new ones.
        removed: those that the new file does not have.
        changed: those with another key, secret or file.
    """

    added: Sequence[str] = ()
    removed: Sequence[str] = ()
    changed: Sequence[str] = ()

    @classmethod
    def between(cls, before: Mapping[str, Tenant], after: Mapping[str, Tenant]) -> Changes:
        """What is not the same."""
        return cls(
            sorted(after.keys() - before.keys()),
            sorted(before.keys() - after.keys()),
            sorted(name for name in before.keys() & after.keys() if before[name] != after[name]),
        )


class CurrentTenants:
    """A tenants file that is read again when it, or a file that it names, has changed.

    Args:
        path: the file.
        own: reads the builder's own payload secrets.
        policy: the builder's source policy, which a tenant's may narrow.
        buildkit_url: of the builder's own BuildKits, which no tenant may use as its own.

    Attributes:
        tenants: those of the last valid version.
        stale: whether the file has changed and is not valid.

    Raises:
        TenantsError: it is not valid at the start.
        Exception: what `own` raises.
    """

    def __init__(
        self,
        path: Path,
        own: OwnSecrets,
        policy: SourcePolicy = NO_SOURCE_POLICY,
        buildkit_url: str = "",
    ) -> None:
        self._path = path
        self._own = own
        self._policy = policy
        self._buildkit_url = buildkit_url
        self._files = Files()
        self.tenants = self._read()
        self.stale = False

    def refresh(self) -> Changes | None:
        """Read the file again if it has changed; None: it has not.

        Raises:
            TenantsError: it is not valid. `tenants` stays. Raised once for each change.
            Exception: what `own` raises.
        """
        if not self._files.changed():
            return None
        self.stale = True
        before, self.tenants = self.tenants, self._read()
        self.stale = False
        return Changes.between(before.by_name, self.tenants.by_name)

    @property
    def digest(self) -> str:
        """The SHA-256 of the file when it was last read, in hex; empty if it cannot be read."""
        return self._files.digest(self._path)

    def _read(self) -> Tenants:
        files = self._files = Files()
        return read_tenants(
            self._path, files, self._own(files.read), self._policy, self._buildkit_url
        )
