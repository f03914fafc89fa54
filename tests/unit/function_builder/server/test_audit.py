"""The audit log: what it says of each decision, and what no request can make it say."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from function_builder.contract.builds import new_id
from function_builder.errors import StartError
from function_builder.server import keys, tenancy
from function_builder.server.audit import AuditLog
from function_builder.server.decisions import AuditEvent, Decision, TenantsRead
from function_builder.server.service import Service
from tests.support.requests import SECRET
from tests.unit.function_builder.server.test_tenancy import (
    ACME,
    BUILDS,
    FILE,
    HASHES,
    ZETA,
    ask,
    post,
    send,
    started,
    submitted,
)

PAGE = Path(__file__).parents[4] / "docs" / "audit.md"


@pytest.fixture
def service(tmp_path) -> Iterator[Service]:
    for name, content in (("payload-secret", SECRET), ("acme", ACME), ("zeta", ZETA)):
        (tmp_path / name).write_text(content)
    (tmp_path / "hook").write_text("whsec_" + 32 * "A")
    (tmp_path / "tenants.yaml").write_text(FILE)
    service = started(tmp_path, audit_log=str(tmp_path / "audit.log"))
    yield service
    assert service.audit is not None
    service.audit.close()


def lines(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "audit.log").read_text().splitlines()]


async def test_each_decision_has_a_line(service, tmp_path):
    build = (await submitted(service, ACME, x_build_tenant="acme"))["buildId"]
    assert (await post(service, "", authorization=f"Bearer {BUILDS}")).status_code == 503
    for method, target in (
        ("GET", "/builds"),
        ("GET", f"/builds/{build}"),
        ("DELETE", f"/builds/{build}"),
        ("POST", f"/builds/{build}/retry"),
        ("GET", f"/builds/{new_id()}/log"),
    ):
        await ask(service, target, ACME, method, x_build_tenant="acme")
    await ask(service, f"/builds/{build}", "another secret", x_build_tenant="acme")
    seen = lines(tmp_path)
    secret, token = keys.credential_id(service.settings, ACME.encode()), f"token:{HASHES[1][:8]}"
    assert [(each["event"], each["decision"], each["credential"]) for each in seen] == [
        ("build", "allowed", secret),
        ("build", "allowed", token),
        ("builds.list", "allowed", secret),
        ("builds.read", "allowed", secret),
        ("builds.cancel", "allowed", secret),
        ("builds.retry", "allowed", secret),
        ("builds.log", "denied", secret),
        ("builds.read", "denied", ""),
    ]
    first, last = seen[0], seen[-1]
    assert (first["tenant"], first["image"], first["build"]) == ("acme", "r/f:1", build)
    assert first["request"] == "POST /build"
    # Who is not proven is not named as the tenant.
    assert (last["tenant"], last["claimed"]) == ("", "acme")
    assert last["why"].startswith("401: ")
    text = (tmp_path / "audit.log").read_text()
    assert not any(told in text for told in (ACME, BUILDS, HASHES[1]))


async def test_a_hostile_value_forges_no_line(service, tmp_path):
    evil = 'x\\n{"event":"build"}\x7f' + 5000 * "y"
    await send(service, "GET", "/builds/%0A%1B%5B2J%E2%80%A8%E2%80%AE", {"X-Build-Tenant": evil})
    text = (tmp_path / "audit.log").read_text()
    assert text.count("\n") == 1
    assert re.fullmatch(r"[ -~]+\n", text)
    (line,) = lines(tmp_path)
    assert line["request"] == "GET /builds/\n\x1b[2J\u2028\u202e"
    assert len(line["claimed"]) == 1024


def test_a_rename_and_a_truncation_rotate_it(tmp_path):
    path = tmp_path / "audit.log"
    log = AuditLog(str(path))
    for number in range(3):
        log.note(AuditEvent.LIST, Decision(tenant=str(number)))
        if number == 0:
            path.rename(tmp_path / "audit.log.1")
        if number == 1:
            path.write_bytes(b"")
    log.close()
    assert [line["tenant"] for line in lines(tmp_path)] == ["2"]
    assert json.loads((tmp_path / "audit.log.1").read_text())["tenant"] == "0"


def test_a_file_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(StartError, match="cannot be written: Not a directory"):
        AuditLog("/dev/null/x")
    log = AuditLog("/dev/full")
    with capture_logs() as logs:
        log.note(AuditEvent.LIST, Decision())
    log.close()
    assert [entry["event"] for entry in logs] == ["a decision is not in the audit log"]


def test_standard_output(capsys):
    AuditLog("-").note(AuditEvent.LIST, Decision(why="401: no"))
    assert json.loads(capsys.readouterr().out)["decision"] == "denied"


def test_the_page_has_each_event_and_each_key():
    page = PAGE.read_text()
    told = set(re.findall(r"^\| `([a-z._]+)` \| ", page, re.MULTILINE))
    common = {"time", "event", "decision"}
    forms = [common | set(Decision._fields), common | set(TenantsRead._fields)]
    assert told == forms[0] | forms[1] | {event.value for event in AuditEvent}
    examples = re.findall(r"^\{.*\}$", page, re.MULTILINE)
    assert [set(json.loads(example)) for example in examples] == forms


async def test_each_reading_of_the_tenants_file_has_a_line(service, tmp_path, monkeypatch):
    # The test alone looks at the file.
    monkeypatch.setattr(tenancy, "CHECK_SECONDS", 3600.0)
    path = tmp_path / "tenants.yaml"
    tenants: Any = service.tenants
    async with tenants.watching(service.metrics, service.audit):
        for text in (
            FILE.replace("  zeta:", "  yota:"),
            "tenants:\n  zeta: {payload_secret_file: zeta, host: a}\n",
            "tenants:\n  zeta: {payload_secret_file: zeta}\n",
        ):
            path.write_text(text)
            await tenants.refresh()
        (tmp_path / "zeta").write_text("another secret of sixteen bytes")
        await tenants.refresh()
        await tenants.refresh()
    first, renamed, refused, fewer, rotated = lines(tmp_path)
    assert {each["event"] for each in lines(tmp_path)} == {"tenants.read"}
    assert first["added"] == ["acme", "default", "zeta"]
    assert first["file"] == hashlib.sha256(FILE.encode()).hexdigest()
    assert (renamed["added"], renamed["removed"], renamed["changed"]) == (["yota"], ["zeta"], [])
    assert (refused["decision"], refused["added"]) == ("denied", [])
    assert "line 2, column 37" in str(refused["why"])
    assert (fewer["added"], fewer["removed"]) == (["zeta"], ["acme", "yota"])
    assert fewer["file"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (rotated["changed"], rotated["file"]) == (["zeta"], fewer["file"])
    assert ZETA not in (tmp_path / "audit.log").read_text()
