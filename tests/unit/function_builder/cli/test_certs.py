"""`function-builder certs`; that a real BuildKit takes them is for tests/integration."""

import re
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.unit.function_builder.cli.in_process import run

FILES = {
    *("ca.crt", "ca.key"),
    *("client/ca.crt", "client/client.crt", "client/client.key"),
    *("server/ca.crt", "server/server.crt", "server/server.key"),
}


def certs(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run(directory.parent, "certs", str(directory), *words)


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_what_is_written_and_what_it_is_for(tmp_path):
    made = certs(tmp_path, "--host", "buildkitd.openfaas", "--host", "::1", "--days", "30")
    assert made.returncode == 0, made.stderr
    assert files(tmp_path).keys() == FILES
    assert str(tmp_path / "ca.key") in made.stdout
    authority = certificate(tmp_path / "ca.crt")
    for kind, usage in [
        ("server", ExtendedKeyUsageOID.SERVER_AUTH),
        ("client", ExtendedKeyUsageOID.CLIENT_AUTH),
    ]:
        leaf = certificate(tmp_path / kind / f"{kind}.crt")
        leaf.verify_directly_issued_by(authority)
        uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(uses) == [usage]
        left = leaf.not_valid_after_utc - datetime.now(UTC)
        assert timedelta(days=29, hours=23) < left <= timedelta(days=30)
        assert (tmp_path / kind / "ca.crt").read_bytes() == (tmp_path / "ca.crt").read_bytes()
    names = certificate(tmp_path / "server" / "server.crt").extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["buildkitd.openfaas"]
    assert names.value.get_values_for_type(x509.IPAddress) == [ip_address("::1")]


def test_keys_are_for_their_owner_alone(tmp_path):
    certs(tmp_path)
    for path in tmp_path.rglob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    authority = certificate(tmp_path / "ca.crt")
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_once_more_the_same_authority_signs_new_ones(tmp_path):
    certs(tmp_path)
    before = files(tmp_path)
    assert certs(tmp_path).returncode == 0
    changed = {name for name, content in files(tmp_path).items() if content != before[name]}
    assert changed == {name for name in FILES if "/" in name and "ca.crt" not in name}


def spoil_key(directory: Path) -> None:
    (directory / "ca.key").write_text("no key")


def lose_certificate(directory: Path) -> None:
    (directory / "ca.crt").unlink()


def mix(directory: Path) -> None:
    certs(directory / "other")
    (directory / "other" / "ca.key").rename(directory / "ca.key")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_key, "are not a certificate and a key"),
        (lose_certificate, "No such file or directory"),
        (mix, "is not the key of"),
    ],
)
def test_an_authority_that_is_none_is_left_alone(tmp_path, spoil, says):
    certs(tmp_path)
    spoil(tmp_path)
    before = files(tmp_path)
    refused = certs(tmp_path)
    assert refused.returncode == 1
    assert re.fullmatch(rf"error: .*{says}.*\n", refused.stderr)
    assert files(tmp_path) == before


def test_a_host_that_no_certificate_can_name(tmp_path):
    refused = certs(tmp_path, "--host", "bücher.example")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
