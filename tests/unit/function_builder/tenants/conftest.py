"""A directory of a tenants file and its secrets."""

import base64
import hashlib
from pathlib import Path

import pytest

from function_builder.tenants.document import TenantsError, read_tenants
from function_builder.tenants.files import Files
from function_builder.tenants.tenant import Tenants

OWN = b"the builder's own payload secret"
TOKEN = "fbk_acme"
HASH = hashlib.sha256(TOKEN.encode()).hexdigest()


class Place:
    """Where a tenants file is.

    Attributes:
        path: the file's.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / "tenants.yaml"
        for name in ("acme", "acme-previous", "zeta"):
            (root / name).write_text(f"the payload secret of {name}\n")
        (root / "empty").write_text(" \n")
        (root / "short").write_text("0123456789")
        (root / "own").write_bytes(OWN)
        (root / "own.json").write_text('{"auths": {"r.example.com": {"auth": "?"}}}')
        (root / "hook").write_text("whsec_" + base64.b64encode(bytes(24)).decode())

    def write(self, text: str) -> None:
        self.path.write_text(text)

    def read(self, text: str) -> Tenants:
        self.write(text)
        return self.read_again()

    def read_again(self) -> Tenants:
        return read_tenants(self.path, Files(), [OWN])

    def faults(self, text: str) -> list[str]:
        with pytest.raises(TenantsError) as caught:
            self.read(text)
        assert str(caught.value).splitlines() == [
            f"tenants.yaml: {fault}" for fault in caught.value.faults
        ]
        return [str(fault) for fault in caught.value.faults]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)
