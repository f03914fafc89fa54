"""pro-builder's values: builders with a BuildKit beside each, as its users have them."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.cluster import REGISTRY
from tests.cluster.load import Load, address, build
from tests.cluster.openfaas import PRO_BUILDER, URL, OpenFaaS

pytestmark = pytest.mark.timeout(600)

UNIQUE = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid >/id && cat /id\n"
"""Two builds of it give one image only by the cache."""


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def release(openfaas: OpenFaaS) -> AsyncIterator[None]:
    async with openfaas.installed(PRO_BUILDER):
        yield


async def test_faas_cli_publishes_through_the_service_and_the_image_runs_as_a_pod(openfaas):
    image = f"{REGISTRY}/users/hello:1"
    dockerfile = (
        'FROM busybox\\nCOPY . .\\nRUN sh function/handler.sh >/said\\nCMD ["cat", "/said"]'
    )
    said = await openfaas.shell(f"""
        mkdir -p /tmp/project/template/shell/function /tmp/project/hello && cd /tmp/project
        printf 'language: shell\\nfprocess: cat /said\\n' >template/shell/template.yml
        printf '{dockerfile}' >template/shell/Dockerfile
        echo 'echo built in the cluster' >hello/handler.sh
        printf 'version: 1.0\\nprovider: {{name: openfaas}}\\nfunctions:\\n' >stack.yaml
        printf '  hello: {{lang: shell, handler: ./hello, image: "{image}"}}\\n' >>stack.yaml
        echo '{openfaas.payload_secret.strip()}' >/tmp/payload-secret
        faas-cli publish -f stack.yaml --remote-builder {URL}/build \\
            --payload-secret /tmp/payload-secret 2>&1
    """)
    assert f"success building and pushing image: {image}" in said

    run = ("run", "hello", f"--image={image}", "--restart=Never", "--rm", "--attach", "--quiet")

    assert await openfaas.kubectl(*run) == "built in the cluster\n"


async def test_builders_run_as_declared(openfaas):
    look = (
        "import os, pathlib\n"
        "status = pathlib.Path('/proc/1/status').read_text()\n"
        "kept = ('Uid', 'Gid', 'CapBnd', 'NoNewPrivs', 'Seccomp')\n"
        "for line in status.splitlines():\n"
        "    name, _, value = line.partition(':\\t')\n"
        "    if name in kept: print(name, *value.split())\n"
        "print('token', os.path.exists('/var/run/secrets/kubernetes.io'))\n"
        "for place in ('/', '/home/app', '/opt'):\n"
        "    try: pathlib.Path(place, 'new').touch()\n"
        "    except OSError as error: print(place, error.strerror)\n"
    )
    for pod in await openfaas.pods():
        name = pod["metadata"]["name"]
        said = await openfaas.python(name, look)
        assert said.splitlines() == [
            "Uid 1000 1000 1000 1000",
            "Gid 1000 1000 1000 1000",
            "CapBnd 0000000000000000",
            "NoNewPrivs 1",
            # Of seccomp(2): filtered.
            "Seccomp 2",
            "token False",
            "/ Read-only file system",
            "/home/app Read-only file system",
            "/opt Read-only file system",
        ]


async def test_every_builder_is_scraped_as_its_annotations_say(openfaas):
    await build(openfaas, URL, "metrics/one:1", "FROM scratch\nCOPY Dockerfile /\n")
    pods = await openfaas.pods()
    urls = []
    for pod in pods:
        notes = pod["metadata"]["annotations"]
        assert notes["prometheus.io/scrape"] == "true"
        where = f"{pod['status']['podIP']}:{notes['prometheus.io/port']}"
        urls.append(f"http://{where}{notes['prometheus.io/path']}")

    scraped = await openfaas.client("get", *urls)

    samples = [
        sample
        for text in scraped
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    assert sum(s.value for s in samples if s.name == "function_builder_builds_total") >= 1
    up = [s.value for s in samples if s.name == "function_builder_buildkit_up"]
    assert up == [1] * len(pods)


async def test_the_payload_secret_rotates_without_a_restart(openfaas, tell):
    old, new = openfaas.payload_secret.strip(), "the next secret"
    before = _started(await openfaas.pods())
    urls = [address(pod) for pod in await openfaas.pods()]

    async def seconds_until(secret: str, status: int) -> str:
        begun = time.monotonic()
        while set(await openfaas.client("statuses", secret, *urls)) != {status}:
            await asyncio.sleep(1)
        return f"{time.monotonic() - begun:.0f} s"

    assert set(await openfaas.client("statuses", old, *urls)) == {400}
    assert set(await openfaas.client("statuses", new, *urls)) == {401}
    try:
        both = {"payload-secret": new, "payload-secret-previous": old}
        await openfaas.secret("payload-secret", both)
        taken = await seconds_until(new, 400)
        assert set(await openfaas.client("statuses", old, *urls)) == {400}
        await openfaas.secret("payload-secret", {"payload-secret": new})
        refused = await seconds_until(old, 401)
        assert set(await openfaas.client("statuses", new, *urls)) == {400}
    finally:
        await openfaas.secret("payload-secret", {"payload-secret": old})
        await seconds_until(old, 400)

    assert _started(await openfaas.pods()) == before
    tell(
        "The payload secret rotates (the kubelet looks every 5 s here, every 60 s by default)",
        [
            ("step", "old secret", "new secret", "until all builders follow"),
            ("new one set, old one as previous", "taken", "taken", taken),
            ("old one removed", "refused", "taken", refused),
        ],
    )


def _started(pods) -> dict[str, list[str]]:
    """When each container of each pod was last started."""
    return {
        pod["metadata"]["uid"]: [
            status["state"]["running"]["startedAt"]
            for status in pod["status"]["containerStatuses"]
            + pod["status"]["initContainerStatuses"][1:]
        ]
        for pod in pods
    }


async def test_a_restarted_buildkit_finds_its_cache(openfaas, tell):
    name = (await openfaas.pods())[0]["metadata"]["name"]
    dockerfile = UNIQUE
    rows = [("what happened to BuildKit", "seconds until ready", "RUN step", "image")]

    async def again(what: str, begun: float) -> str:
        await openfaas.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s")
        seconds = f"{time.monotonic() - begun:.0f}"
        pod = await openfaas.get("pod", name)
        said = await build(openfaas, address(pod), "cached/one:1", dockerfile)
        ran = any(line.startswith("l:") for line in said["log"])
        rows.append((what, seconds, "run" if ran else "cached", said["digest"][:19]))
        return str(said["digest"])

    first = await again("nothing yet", time.monotonic())
    begun = time.monotonic()
    killed = ("exec", name, "--container=buildkit", "--", "kill", "-TERM", "1")
    await openfaas.kubectl(*killed)
    restarted = "jsonpath={.status.initContainerStatuses[1].restartCount}=1"
    await openfaas.kubectl("wait", f"pod/{name}", f"--for={restarted}", "--timeout=60s")
    second = await again("its container was ended", begun)
    begun = time.monotonic()
    await openfaas.kubectl("delete", "pod", name)
    await openfaas.kubectl("wait", "--for=create", f"pod/{name}", "--timeout=60s")
    third = await again("its pod was deleted", begun)

    tell("BuildKit's cache on its volume", rows)
    assert [row[2] for row in rows[1:]] == ["run", "cached", "cached"]
    assert first == second == third


async def test_no_build_is_lost_while_pods_come_and_go(openfaas, tell):
    async with Load(openfaas, URL, "load/fn") as load:
        await load.builds_during("two replicas")
        await load.during("scaling to three")
        await openfaas.upgrade(PRO_BUILDER, values={"replicas": 3})
        await load.builds_during("three replicas")
        await load.during("a rolling update")
        changed = {"replicas": 3, "podAnnotations": {"example.com/rolled": "yes"}}
        await openfaas.upgrade(PRO_BUILDER, values=changed)
        await load.during("pods are deleted")
        for pod in await openfaas.pods():
            await openfaas.kubectl("delete", "pod", pod["metadata"]["name"])
            await openfaas.kubectl("rollout", "status", "statefulset/pro-builder", "--timeout=180s")
    assert len(await openfaas.pods()) == 3
    load.tell(tell, "Builds under load on builders with a sidecar, of clients that try again")
    load.check()
