"""`function-builder tenants`."""

import hashlib
import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from function_builder.tenants.document import read_tenants
from function_builder.tenants.files import Files
from tests.unit.function_builder.cli.in_process import run

TRUST = ["acme", "--oidc", "b", "--audience", "c"]


def tenants(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run(directory, "tenants", *words)


def test_a_new_tenant_has_secrets_and_the_customer_what_it_needs(tmp_path: Path) -> None:
    made = tenants(tmp_path, "add", "acme", "--host", "acme.example.com", "--token")
    assert (made.returncode, made.stderr) == (0, "")
    for name in ("tenants.yaml", "acme.secret"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    tenant = read_tenants(tmp_path / "tenants.yaml", Files()).by_name["acme"]
    (secret,) = tenant.secrets
    assert secret == (tmp_path / "acme.secret").read_bytes().strip()
    assert secret.decode() not in made.stdout
    (token,) = (word for word in made.stdout.split() if word.startswith("fbk_"))
    assert tenant.tokens[0].sha256 == hashlib.sha256(token.encode()).hexdigest()
    assert token not in (tmp_path / "tenants.yaml").read_text()
    for line in (
        "  URL             https://acme.example.com\n",
        "  payload secret  acme.secret\n",
        "  faas-cli publish -f stack.yaml --remote-builder https://acme.example.com/build ",
    ):
        assert line in made.stdout
    checked = tenants(tmp_path, "check", "tenants.yaml")
    assert (checked.returncode, checked.stdout) == (0, "tenants.yaml is valid: acme, default\n")


def test_a_tenant_of_an_issuer_needs_no_secret(tmp_path: Path) -> None:
    issuer = "https://token.actions.example.com"
    words = [
        "--oidc",
        issuer,
        "--audience",
        "b: [",
        "--claim",
        "owner=acme",
        "--claim",
        "owner=a'b",
    ]
    made = tenants(tmp_path, "add", "acme", *words)
    assert (made.returncode, made.stderr) == (0, "")
    assert f"  OIDC token      of {issuer}\n" in made.stdout
    assert "secret" not in made.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["tenants.yaml"]
    (trust,) = read_tenants(tmp_path / "tenants.yaml", Files()).by_name["acme"].trusts
    assert (trust.issuer.url, trust.audience) == (issuer, "b: [")
    assert trust.claims == {("owner",): {"acme", "a'b"}}


def test_what_is_in_the_file_stays_as_it_is(tmp_path: Path) -> None:
    before = "# ours\ntenants:\n    zeta:   # the first\n        payload_secret_file: zeta\n"
    (tmp_path / "zeta").write_text("the payload secret of zeta")
    (tmp_path / "all.yaml").write_text(before)
    (tmp_path / "all.yaml").chmod(0o640)
    made = tenants(tmp_path, "add", "acme", "-f", "all.yaml")
    assert "  header          X-Build-Tenant: acme\n" in made.stdout
    after = (tmp_path / "all.yaml").read_text()
    assert after == f"{before}    acme:\n      payload_secret_file: acme.secret\n"
    assert stat.S_IMODE((tmp_path / "all.yaml").stat().st_mode) == 0o640
    assert set(read_tenants(tmp_path / "all.yaml", Files()).by_name) == {"zeta", "acme", "default"}


@pytest.mark.parametrize(
    ("text", "words", "error"),
    [
        ("tenants: {}\n", ["acme"], "the file must end with the tenants"),
        ("- a\n", ["acme"], "the file must end with the tenants"),
        ("tenants: [\n", ["acme"], "the file is not YAML"),
        ("tenants:\n", ["Acme"], "a name has 1 to 40 lower-case letters"),
        ("tenants:\n", ["acme", "--host", "https://a"], "is not a host name"),
        ("tenants:\n", ["acme", "--oidc", "https://a"], "--claim belong together"),
        ("tenants:\n", [*TRUST, "--claim", "d"], "must be NAME=VALUE"),
        ("tenants:\n", [*TRUST, "--claim", "d=e"], '"b" must be a URL'),
        ("tenants:\n  acme: {tokens: [{sha256: a}]}\n", ["acme"], '"acme" is there twice'),
    ],
)
def test_what_cannot_be_added_changes_nothing(
    tmp_path: Path, text: str, words: list[str], error: str
) -> None:
    (tmp_path / "tenants.yaml").write_text(text)
    made = tenants(tmp_path, "add", *words)
    assert made.returncode == 1
    assert error in made.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"tenants.yaml"}
    assert (tmp_path / "tenants.yaml").read_text() == text


def test_a_secret_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "acme.secret").write_text("of before")
    made = tenants(tmp_path, "add", "acme")
    assert (made.returncode, made.stderr) == (1, "error: acme.secret: File exists\n")
    assert (tmp_path / "acme.secret").read_text() == "of before"
    assert not (tmp_path / "tenants.yaml").exists()


def test_check_tells_places_and_knows_the_builders_own_secret(tmp_path: Path) -> None:
    (tmp_path / "payload-secret").write_text("the builder's own secret")
    (tmp_path / "tenants.yaml").write_text("tenants:\n  a: {payload_secret_file: payload-secret}\n")
    made = tenants(tmp_path, "check", "tenants.yaml", "--secrets", ".")
    assert made.returncode == 1
    assert (
        made.stderr
        == "error: tenants.yaml: line 2, column 28: the secret is also that of default\n"
    )


def test_the_schema_is_printed(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "function_builder", "tenants", "schema"]
    printed = subprocess.run(program, check=True, capture_output=True, cwd=tmp_path)
    assert json.loads(printed.stdout)["required"] == ["tenants"]
