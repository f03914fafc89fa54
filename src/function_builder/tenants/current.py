"""The tenants in force: those of the file when it was last right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from function_builder.builds.source_policy import NO_SOURCE_POLICY, SourcePolicy
from function_builder.tenants.document import read_tenants
from function_builder.tenants.files import Files
from function_builder.tenants.tenant import Tenants

OwnSecrets: TypeAlias = Callable[[Callable[[Path], bytes]], Sequence[bytes]]
"""Reads the builder's own payload secrets, by a function that reads a file."""


class CurrentTenants:
    """A tenants file that is read again when it, or a file that it names, has changed.

    Args:
        path: the file.
        own: reads the builder's own payload secrets.
        policy: the builder's source policy, which a tenant's may narrow.
        buildkit_url: of the builder's own BuildKits, which no tenant may name.

    Attributes:
        tenants: those in force.
        stale: whether the file has changed, and is wrong.

    Raises:
        TenantsError: it is wrong at the start.
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

    def refresh(self) -> bool:
        """Read the file again if it has changed; returns whether it had.

        Raises:
            TenantsError: it is wrong, and the tenants in force stay. It is raised once a change.
            Exception: what `own` raises.
        """
        if not self._files.changed():
            return False
        self.stale = True
        self.tenants = self._read()
        self.stale = False
        return True

    def _read(self) -> Tenants:
        files = self._files = Files()
        return read_tenants(
            self._path, files, self._own(files.read), self._policy, self._buildkit_url
        )
