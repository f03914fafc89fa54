"""The topology `pool`: BuildKits of their own, with volumes, and builders that share them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.cluster.cluster import REGISTRY
from tests.cluster.load import Load, address, build
from tests.cluster.openfaas import RELEASE, URL, OpenFaaS
from tests.support.images import pull

pytestmark = pytest.mark.timeout(600)

SLOTS = 3
VALUES = {
    "topology": "pool",
    "replicas": 2,
    "pool": {"replicas": 2},
    "proBuilder": {"maxInflight": SLOTS},
    "settings": {"ready_when_full": "true"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def release(openfaas: OpenFaaS) -> AsyncIterator[None]:
    await openfaas.certificates(f"{RELEASE}-buildkit")
    async with openfaas.installed(values=VALUES):
        yield


async def test_any_builder_builds_on_the_pool(openfaas):
    for number, pod in enumerate(await openfaas.pods()):
        image = f"pool/any:{number}"
        said = await build(openfaas, address(pod), image, "FROM busybox\nRUN echo pool >/said\n")
        repository, _, tag = image.partition(":")
        assert pull(REGISTRY, repository, tag).digest == said["digest"]


async def test_buildkit_takes_nobody_without_a_certificate(openfaas):
    dialled = (
        "import socket, ssl\n"
        "context = ssl.create_default_context(cafile='/var/secrets/certs/ca.crt')\n"
        f"with socket.create_connection(('{RELEASE}-buildkit', 1234), timeout=10) as plain:\n"
        f"    with context.wrap_socket(plain, server_hostname='{RELEASE}-buildkit') as tls:\n"
        "        try: print(tls.recv(1))\n"
        "        except ssl.SSLError as error: print(error.reason)\n"
    )
    pod = (await openfaas.pods())[0]["metadata"]["name"]
    assert "CERTIFICATE_REQUIRED" in await openfaas.python(pod, dialled)


async def test_a_name_with_hundreds_of_addresses_is_known_whole(openfaas, tell):
    """They do not fit into a datagram, so that the resolver has to ask again over TCP."""
    number = 500
    await openfaas.apply(*_headless("hundreds", number))
    asked = (
        "import socket, time\n"
        "def ask(): return {a[4][0] for a in socket.getaddrinfo('hundreds', 1234)}\n"
        f"while len(known := ask()) != {number}: time.sleep(0.2)\n"
        "begun = time.monotonic()\n"
        "for _ in range(10): ask()\n"
        "print(f'{(time.monotonic() - begun) * 100:.1f} ms')\n"
    )
    pod = (await openfaas.pods())[0]["metadata"]["name"]
    try:
        took = await openfaas.python(pod, asked)
    finally:
        await openfaas.kubectl("delete", "service/hundreds", "endpointslice/hundreds")
    tell("DNS", [("addresses of a headless Service", "to ask for them all"), (number, took)])


def _headless(name: str, number: int) -> tuple[dict[str, object], dict[str, object]]:
    """A headless Service with addresses at which nobody is (RFC 2544's)."""
    metadata = {"name": name, "labels": {"kubernetes.io/service-name": name}}
    port = {"name": "buildkit", "port": 1234}
    endpoints = [
        {"addresses": [f"198.18.{each // 250}.{each % 250 + 1}"]} for each in range(number)
    ]
    return (
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"clusterIP": "None", "ports": [port]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata,
            "addressType": "IPv4",
            "ports": [port],
            "endpoints": endpoints,
        },
    )


async def test_a_buildkit_of_the_pool_keeps_its_cache_when_its_pod_goes(openfaas):
    dockerfile = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid >/id\n"
    builder = address((await openfaas.pods())[0])
    await openfaas.kubectl("scale", f"statefulset/{RELEASE}-buildkit", "--replicas=1")
    await openfaas.kubectl("wait", "--for=delete", f"pod/{RELEASE}-buildkit-1", "--timeout=60s")
    try:
        first = await build(openfaas, builder, "pool/cached:1", dockerfile)
        await openfaas.kubectl("delete", "pod", f"{RELEASE}-buildkit-0")
        await _all_there(openfaas)
        second = await build(openfaas, builder, "pool/cached:1", dockerfile)
    finally:
        await openfaas.kubectl("scale", f"statefulset/{RELEASE}-buildkit", "--replicas=2")
        await _all_there(openfaas)
    assert first["digest"] == second["digest"]


async def test_a_service_of_full_builders_answers_429(openfaas):
    """As `ready_when_full` promises: without it nobody would be left to answer."""
    client = await openfaas.get("pod", "client")
    gate = f"{client['status']['podIP']}:9999"
    waits = f"FROM busybox\nRUN until wget -q -O /dev/null http://{gate}; do sleep 0.2; done\n"
    builders = [address(pod) for pod in await openfaas.pods()]
    metrics = [builder.replace(":8080", ":8081/metrics") for builder in builders]
    secret = openfaas.payload_secret.strip()
    async with asyncio.TaskGroup() as builds:
        for number, builder in enumerate(builders * SLOTS):
            builds.create_task(build(openfaas, builder, f"pool/full:{number}", waits))
        full = f"function_builder_slots_taken {float(SLOTS)}\n"
        async with asyncio.timeout(60):
            while not all(full in said for said in await openfaas.client("get", *metrics)):
                await asyncio.sleep(0.5)

        assert await openfaas.client("statuses", secret, *[URL] * 4) == [429] * 4

        await openfaas.shell("mkdir /tmp/gate && touch /tmp/gate/index.html")
        await openfaas.shell("httpd -p 9999 -h /tmp/gate")
    assert set(await openfaas.client("statuses", secret, *builders)) == {400}


async def test_no_build_is_lost_while_builders_and_buildkits_come_and_go(openfaas, tell):
    async with Load(openfaas, URL, "pool/load") as load:
        await load.builds_during("two builders, two BuildKits")
        await load.during("a rolling update of both")
        await openfaas.upgrade(values=VALUES | {"podAnnotations": {"example.com/rolled": "yes"}})
        await _all_there(openfaas)
        for component in ("buildkit", "pro-builder"):
            await load.during(f"{component} pods are deleted")
            for pod in await openfaas.pods(component):
                await openfaas.kubectl("delete", "pod", pod["metadata"]["name"])
                await _all_there(openfaas)
    load.tell(tell, "Builds under load on a pool of BuildKits, of clients that try again")
    load.check()


async def _all_there(openfaas: OpenFaaS) -> None:
    for workload in (f"statefulset/{RELEASE}-buildkit", f"deployment/{RELEASE}"):
        await openfaas.kubectl("rollout", "status", workload, "--timeout=180s")
