"""The queue: a NATS of the release, a volume for its store, and builders that come and go."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.cluster.images import BUILDER
from tests.cluster.load import address
from tests.cluster.openfaas import RELEASE, URL, OpenFaaS

pytestmark = pytest.mark.timeout(900)

SLOTS = 2
NATS = f"{RELEASE}-nats"
ENDED = {"success", "failed", "cancelled"}
VALUES: dict[str, Any] = {
    "proBuilder": {"maxInflight": SLOTS},
    "buildkit": {"cache": {"type": "emptyDir"}},
    "settings": {"ready_when_full": "true"},
    "queue": {
        "enabled": True,
        # The builder's image, which has the program too: no other is built here.
        "nats": {
            "enabled": True,
            "image": f"ghcr.io/{BUILDER}",
            "size": "5Gi",
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        },
        # Enough for builders on one node.
        "storeVolume": {"enabled": True, "size": "5Gi", "accessModes": ["ReadWriteOnce"]},
    },
}
_DEPTH = re.compile(r'function_builder_queue_builds\{state="(\w+)",tenant="default"\} (\d+)')


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def release(openfaas: OpenFaaS) -> AsyncIterator[None]:
    await openfaas.secret("nats-secret", {"password": "5e6f00c1a9"})
    async with openfaas.installed(values=VALUES):
        yield
        # They outlive the release; each goes when its pods have gone.
        claims = (f"pvc/data-{NATS}-0", f"pvc/{RELEASE}-store")
        await openfaas.kubectl("delete", *claims, "--wait=false")


async def depth(openfaas: OpenFaaS) -> dict[str, int]:
    """The builds of the queue, as a builder's metrics have them."""
    stays = [pod for pod in await openfaas.pods() if "deletionTimestamp" not in pod["metadata"]]
    metrics = [address(pod).replace(":8080", ":8081/metrics") for pod in stays if _ready(pod)]
    (said,) = await openfaas.client("get", metrics[0])
    return {state: int(number) for state, number in _DEPTH.findall(said)}


def _ready(pod: dict[str, Any]) -> bool:
    conditions = {each["type"]: each["status"] for each in pod["status"]["conditions"]}
    return bool(conditions["Ready"] == "True")


async def submit(openfaas: OpenFaaS, name: str, number: int) -> list[str]:
    """Queue builds; returns their ids."""
    secret = openfaas.payload_secret.strip()
    ids: list[str] = await openfaas.client("submit", URL, secret, name, str(number))
    return ids


async def ended(openfaas: OpenFaaS) -> list[dict[str, Any]]:
    """All builds of the queue, when each has ended."""
    async with asyncio.timeout(300):
        while True:
            builds = await openfaas.client("builds", URL, openfaas.payload_secret.strip())
            if {build["status"] for build in builds} <= ENDED:
                return list(builds)
            await asyncio.sleep(1)


async def test_no_queued_build_is_lost_while_builders_and_nats_come_and_go(openfaas, tell):
    depths: dict[str, dict[str, int]] = {}

    async def before(what: str) -> None:
        depths[what] = await depth(openfaas)

    async def there() -> None:
        for workload in (f"deployment/{RELEASE}", f"statefulset/{NATS}"):
            await openfaas.kubectl("rollout", "status", workload, "--timeout=180s")

    ids = await submit(openfaas, "first", 30)
    await before("scaling to three builders")
    await openfaas.upgrade(values=VALUES | {"replicas": 3})
    await before("the pod of NATS is deleted")
    await openfaas.kubectl("delete", "pod", f"{NATS}-0")
    await there()
    ids += await submit(openfaas, "second", 20)
    await before("a builder is killed")
    killed = (await openfaas.pods())[0]["metadata"]["name"]
    await openfaas.kubectl("delete", "pod", killed, "--grace-period=0", "--force")
    await there()
    ids += await submit(openfaas, "third", 20)
    await before("a rolling update of builders and NATS")
    changed = VALUES | {"replicas": 3, "podAnnotations": {"example.com/rolled": "yes"}}
    await openfaas.upgrade(values=changed)
    await there()
    ids += await submit(openfaas, "fourth", 12)
    await before("scaling to one builder")
    await openfaas.upgrade(values=changed | {"replicas": 1})
    builds = await ended(openfaas)
    await before("the end")

    rows = [(what, said["waiting"], said["begun"]) for what, said in depths.items()]
    tell(
        "Queued builds while builders and NATS come and go",
        [("before", "waiting", "begun"), *rows],
    )
    attempts = Counter(build["attempt"] for build in builds)
    tell(
        "How often each was begun",
        [("attempts", "builds"), *sorted(attempts.items()), ("in all", len(builds))],
    )
    assert len(ids) == len(set(ids)) == 82
    assert sorted(build["id"] for build in builds) == sorted(ids)
    assert Counter(build["status"] for build in builds) == {"success": len(ids)}
    assert depths["scaling to three builders"]["waiting"] > 0
    assert depths["the end"] == {"waiting": 0, "begun": 0}

    said = await openfaas.client("log", URL, openfaas.payload_secret.strip(), ids[-1])
    assert any("RUN echo fourth-11" in line for line in said)
