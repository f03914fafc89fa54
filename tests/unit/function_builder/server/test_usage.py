"""What tenants use: counted once, by tenant and day, and shown to its tenant and the operator."""

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from function_builder.contract.usage import Usage, UsageRows
from function_builder.queue.port import QueueUnavailable
from function_builder.server.service import Service
from tests.support.requests import SECRET
from tests.unit.function_builder.server.test_tenancy import (
    ACME,
    BODY,
    BUILDS,
    FILE,
    READS,
    ZETA,
    ask,
    post,
    send,
    started,
)

EXAMPLE = Path(__file__).parents[4] / "examples" / "bill.py"


class Store:
    """A store in memory, which may be away."""

    def __init__(self) -> None:
        self.rows: dict[tuple[date, str], Usage] = {}
        self.away = False

    async def prepare(self) -> None:
        if self.away:
            raise QueueUnavailable

    async def write(self, day: date, tenant: str, usage: Usage) -> None:
        self.rows[day, tenant] = usage

    async def read(self, first: date, last: date, tenant: str) -> UsageRows:
        return {
            key: usage
            for key, usage in self.rows.items()
            if first <= key[0] <= last and tenant in ("", key[1])
        }


@pytest.fixture
def service(tmp_path) -> Service:
    for name, content in (("payload-secret", SECRET), ("acme", ACME), ("zeta", ZETA)):
        (tmp_path / name).write_text(content)
    (tmp_path / "hook").write_text("whsec_" + 32 * "A")
    (tmp_path / "tenants.yaml").write_text(FILE)
    service = started(tmp_path)
    service.builds = None
    assert service.usage is not None
    service.usage._clock = lambda: 1_700_000_000.0  # type: ignore[attr-defined]
    return service


async def usage(service: Service, secret: str, query: str = "", **more: str) -> dict[str, Any]:
    answer = await ask(service, "/usage?from=2023-11-01" + query, secret, **more)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def test_a_tenant_sees_its_own_and_the_operator_all(service):
    await post(service, ACME, x_build_tenant="acme")
    await post(service, "", authorization=f"Bearer {BUILDS}")
    await post(service, ZETA, x_build_tenant="zeta")
    await post(service, "wrong", x_build_tenant="zeta")
    document = await usage(service, ACME, x_build_tenant="acme")
    assert (document["from"], document["to"]) == ("2023-11-01", "2023-11-14")
    assert "since" in document
    (row,) = document["usage"]
    # No slot was had for longer than BuildKit's absence took to be seen.
    assert 0 <= row.pop("buildSeconds") < 5
    assert row == {
        "day": "2023-11-14",
        "tenant": "acme",
        "builds": {"unreachable": 2},
        "receivedBytes": 2 * len(BODY),
    }
    seen = (await usage(service, SECRET))["usage"]
    assert [each["tenant"] for each in seen] == ["acme", "zeta"]
    assert (await usage(service, SECRET, "&tenant=zeta"))["usage"] == seen[1:]
    assert not (await usage(service, SECRET, "&to=2023-11-13"))["usage"]
    metrics = service.metrics.registry
    labels = {"tenant": "acme", "outcome": "unreachable"}
    assert metrics.get_sample_value("function_builder_tenant_builds_total", labels) == 2
    received = "function_builder_tenant_received_bytes_total"
    assert metrics.get_sample_value(received, {"tenant": "zeta"}) == len(BODY)


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("from=1.11.2026", 400, "1.11.2026"),
        ("to=2026-02-30", 400, "is not a day"),
        ("from=2023-11-02&to=2023-11-01", 400, "to is before from"),
        ("tenant=zeta", 403, "its own usage alone"),
    ],
)
async def test_a_query_that_is_wrong_is_a_problem(service, query, status, words):
    answer = await send(service, "GET", f"/usage?{query}", {"Authorization": f"Bearer {READS}"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, words in answer.json()["detail"]) == (status, True)


async def test_a_stranger_and_a_token_that_may_not_read_learn_nothing(service):
    answer = await ask(service, "/usage", "wrong", x_build_tenant="acme")
    assert answer.status_code == 401
    answer = await send(service, "GET", "/usage", {"Authorization": f"Bearer {BUILDS}"})
    assert answer.status_code == 403


async def test_what_is_not_proven_is_counted_for_no_tenant(service):
    await post(service, "wrong", x_build_tenant="acme")
    await post(service, "wrong", x_build_tenant="invented")
    await post(service, ACME, x_build_tenant="zeta")
    assert not (await usage(service, SECRET))["usage"]
    samples = [
        sample
        for family in service.metrics.registry.collect()
        for sample in family.samples
        if "tenant" in sample.labels
    ]
    assert not samples


async def test_what_a_store_does_not_take_is_written_later(service):
    store = service.usage.store = Store()
    await post(service, ACME, x_build_tenant="acme")
    store.away = True
    answer = await ask(service, "/usage?from=2023-11-01", SECRET)
    assert answer.status_code == 503
    store.away = False
    document = await usage(service, SECRET)
    assert "since" not in document
    assert [row["tenant"] for row in document["usage"]] == ["acme"]
    assert store.rows[date(2023, 11, 14), "acme"].received_bytes == len(BODY)


def test_the_example_makes_a_bill(tmp_path):
    prices = {"currency": "EUR", "build": "0.01", "second": "0.0002", "gigabyte": "0.05"}
    (tmp_path / "prices.json").write_text(json.dumps(prices))
    rows = [
        {
            "day": f"2026-11-0{day}",
            "tenant": tenant,
            "builds": {"success": 90, "failed": 10, "lost": 5},
            "buildSeconds": 1000.5,
            "receivedBytes": 2 * 10**9,
        }
        for day in (1, 2)
        for tenant in ("acme", "zeta")
    ]
    document = {"from": "2026-11-01", "to": "2026-11-30", "usage": rows}

    def bill(document: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(EXAMPLE), str(tmp_path / "prices.json")]
        text = json.dumps(document)
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)

    assert bill(document).stdout.splitlines() == [
        "2026-11-01 to 2026-11-30",
        "acme: 200 builds, 2001.0 s, 4000000000 bytes: 2.60 EUR",
        "zeta: 200 builds, 2001.0 s, 4000000000 bytes: 2.60 EUR",
    ]
    refused = bill(document | {"since": "2026-11-03T00:00:00Z"})
    assert (refused.returncode, refused.stdout) == (1, "")


def test_a_builder_without_tenants_loads_nothing_of_them(tmp_path):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.support.services import idle_service\n"
        "from function_builder.server.app import create_app\n"
        f"create_app(idle_service(Path({str(tmp_path)!r})))\n"
        "parts = ('function_builder.tenants', 'function_builder.server.tenancy',"
        " 'function_builder.server.audit', 'function_builder.server.usage', 'nats')\n"
        "print([name for name in sys.modules for part in parts"
        " if name == part or name.startswith(part + '.')])\n"
    )
    root = Path(__file__).parents[4]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
