"""The queue: where builders find NATS and the store, and the NATS that the chart runs itself."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
from nats.js.api import StreamConfig

from function_builder.engine import find_tool
from function_builder.queue.access import Access
from function_builder.queue.connection import Unavailable
from function_builder.queue.jetstream import JetStream
from function_builder.settings import Settings
from tests.chart.cases import POOL, QUEUE, QUEUE_CLUSTER, QUEUE_ELSEWHERE
from tests.chart.render import Release, refused, render
from tests.support import free_address

NATS = "pro-builder-nats"
PASSWORD = "12e5"  # which NATS would take for a number
CASES = [QUEUE, QUEUE_CLUSTER]


def settings(release: Release, **secrets: str) -> Settings:
    """As the builder reads them, after Kubernetes has put the Secret's values in."""
    read = dict(release.environment)
    for name, value in secrets.items():
        read = {key: text.replace(f"$({name})", value) for key, text in read.items()}
    return Settings.from_environment(read)


def volumes(release: Release) -> dict[str, Any]:
    return {each["name"]: each for each in release.builders["spec"]["volumes"]}


def mounted(release: Release) -> dict[str, str]:
    mounts = release.container("pro-builder")["volumeMounts"]
    return {each["name"]: each["mountPath"] for each in mounts}


def test_without_a_queue_builders_know_nothing_of_one():
    release = render()
    assert not [name for name in release.environment if name.startswith(("nats_", "store_"))]
    assert not release.all("PersistentVolumeClaim")
    assert {each["metadata"]["name"] for each in release.workloads} == {"pro-builder"}


def test_the_default_is_openfaas_own_nats():
    read = settings(render({"queue": {"enabled": True, "storeUrl": "s3://builds"}}))
    assert (read.nats_url, read.nats_replicas) == ("nats://nats.openfaas:4222", 1)
    assert read.store_url == "s3://builds"


def test_a_nats_elsewhere_has_its_credentials_and_certificates_from_secrets():
    release = render(QUEUE_ELSEWHERE)
    read = settings(release)
    assert read.nats_url == QUEUE_ELSEWHERE["queue"]["natsUrl"]
    assert read.nats_replicas == 3
    assert read.nats_credentials_file == "/var/secrets/nats/nats.creds"
    assert read.nats_cert_file == "/var/secrets/nats-tls/tls.crt"
    files = {
        f"{mounted(release)[name]}/{item['path']}"
        for name in ("nats-credentials", "nats-tls")
        for item in volumes(release)[name]["secret"]["items"]
    }
    assert files == {
        read.nats_credentials_file,
        read.nats_ca_file,
        read.nats_cert_file,
        read.nats_key_file,
    }


def test_an_nkey_is_a_file_and_a_password_a_part_of_the_url():
    def auth(kind: str) -> Release:
        queue = {**QUEUE_ELSEWHERE["queue"], "auth": {"kind": kind, "secret": "nats-user"}}
        return render({"queue": queue})

    assert settings(auth("nkey")).nats_nkey_seed_file == "/var/secrets/nats/nkey.seed"
    read = settings(auth("password"), QUEUE_USER="us", QUEUE_PASSWORD="word")
    assert read.nats_url == "tls://us:word@nats-0.nats:4222,tls://us:word@nats-1.nats:4222"
    assert read.nats_credentials_file == ""
    assert "nats-credentials" not in volumes(auth("password"))


def test_the_buckets_credentials_are_environment_variables():
    container = render(QUEUE_ELSEWHERE).container("pro-builder")
    assert container["envFrom"] == [{"secretRef": {"name": "builds-bucket"}}]
    assert "envFrom" not in render(QUEUE).container("pro-builder")


def test_a_store_without_a_bucket_is_a_volume_that_uninstalling_keeps():
    release = render(QUEUE_CLUSTER)
    claim = release.one("PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "shared",
        "resources": {"requests": {"storage": "200Gi"}},
    }
    assert volumes(release)["store"]["persistentVolumeClaim"]["claimName"] == "pro-builder-store"
    assert settings(release).store_url.startswith(f"file://{mounted(release)['store']}/")
    theirs = {"enabled": True, "existingClaim": "theirs"}
    release = render({"queue": {"enabled": True, "storeVolume": theirs}})
    assert volumes(release)["store"]["persistentVolumeClaim"]["claimName"] == "theirs"
    assert not release.all("PersistentVolumeClaim")


@pytest.mark.parametrize("values", CASES)
def test_our_own_nats_keeps_its_claims(values):
    kept = render(values).one("StatefulSet", NATS)["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert kept == {"whenScaled": "Retain", "whenDeleted": "Retain"}


def test_builders_know_each_server_of_our_own_nats():
    read = settings(render(QUEUE), QUEUE_PASSWORD="word")
    assert read.nats_url == f"nats://builder:word@{NATS}-0.{NATS}:4222"
    read = settings(render(QUEUE_CLUSTER), QUEUE_PASSWORD="word")
    assert read.nats_url.split(",") == [
        f"tls://builder:word@{NATS}-{number}.{NATS}:4222" for number in range(3)
    ]
    assert (read.nats_replicas, read.nats_ca_file) == (3, "/var/secrets/nats-tls/ca.crt")


@pytest.mark.parametrize("values", CASES)
def test_builders_alone_reach_our_own_nats(values):
    release = render(values)
    policy = release.one("NetworkPolicy", NATS)["spec"]
    for_builders, *for_servers = policy["ingress"]
    labels = release.builders["metadata"]["labels"]
    (peer,) = for_builders["from"]
    assert peer["podSelector"]["matchLabels"].items() <= labels.items()
    assert [port["port"] for port in for_builders["ports"]] == ["nats"]
    assert [port["port"] for rule in for_servers for port in rule["ports"]] == (
        ["route"] if values is QUEUE_CLUSTER else []
    )
    assert "monitor" not in str(policy)
    named = {each["name"] for each in release.container("nats")["ports"]}
    assert named == {"nats", "monitor"} | ({"route"} if values is QUEUE_CLUSTER else set())


@pytest.mark.parametrize("values", [QUEUE, {**POOL, **QUEUE}])
def test_builders_reach_nats_also_where_all_that_leaves_is_listed(values):
    bucket = {"to": [{"ipBlock": {"cidr": "192.0.2.7/32"}}]}
    listed = {"networkPolicy": {"egress": [{"to": []}], "builderEgress": [bucket]}}
    release = render({**values, **listed})
    egress = release.one("NetworkPolicy", "pro-builder")["spec"]["egress"]
    to_nats, *others = egress[-3:]
    server = release.one("StatefulSet", NATS)["spec"]["template"]["metadata"]["labels"]
    assert to_nats["to"][0]["podSelector"]["matchLabels"].items() <= server.items()
    assert others == [bucket, {"to": []}]
    if values.get("topology") == "pool":
        of_steps = release.one("NetworkPolicy", "pro-builder-buildkit")["spec"]["egress"]
        assert of_steps == [{"to": []}]


def test_the_autoscaler_follows_the_queue_if_it_is_told_to():
    scaled = {**QUEUE, "proBuilder": {"maxInflight": 4}}
    metrics = render({**scaled, "autoscaling": {"enabled": True, "queuedBuilds": True}}).one(
        "HorizontalPodAutoscaler"
    )["spec"]["metrics"]
    assert [each["type"] for each in metrics] == ["Pods", "External"]
    assert metrics[1]["external"] == {
        "metric": {"name": "function_builder_queue_builds"},
        "target": {"type": "AverageValue", "averageValue": "4"},
    }
    (metric,) = render({**scaled, "autoscaling": {"enabled": True}}).one("HorizontalPodAutoscaler")[
        "spec"
    ]["metrics"]
    assert metric["type"] == "Pods"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"queue": {"enabled": True}}, "queue.storeUrl names no bucket"),
        ({"queue": {"enabled": True, "storeUrl": "file:///srv"}}, "storeUrl"),
        ({"queue": {"natsUrl": "nats://user:password@nats:4222"}}, "natsUrl"),
        ({"queue": {"natsUrl": "nats"}}, "natsUrl"),
        ({"queue": {"nats": {"replicas": 2}}}, "replicas"),
        (
            {"queue": {"enabled": True, "storeUrl": "s3://b", "auth": {"kind": "password"}}},
            "queue.auth: secret",
        ),
        (
            {
                "autoscaling": {"enabled": True, "queuedBuilds": True},
                "proBuilder": {"maxInflight": 1},
            },
            "set queue.enabled",
        ),
        ({"settings": {"nats_url": "nats://nats:4222"}}, "nats_url"),
    ],
)
def test_a_queue_that_could_not_work_is_refused(values, named):
    assert named in refused(values)


class Servers:
    """The chart's own servers on this machine, as its configuration and environment make them."""

    def __init__(self, release: Release, root: Path) -> None:
        self.number = release.one("StatefulSet", NATS)["spec"]["replicas"]
        self._config = release.one("ConfigMap", NATS)["data"]["nats.conf"]
        self._env = release.container("nats")["env"]
        self._command = release.container("nats")["command"]
        self._root = root
        self._clients = [free_address() for _ in range(self.number)]
        self._routes = [free_address() for _ in range(self.number)]
        self._monitors = [free_address() for _ in range(self.number)]
        self.ca = trustme.CA()
        self.ca.cert_pem.write_to_path(root / "ca.crt")
        certificate = self.ca.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(root / "tls.key")
        certificate.cert_chain_pems[0].write_to_path(root / "tls.crt")

    def url(self, release: Release, password: str) -> str:
        """The builders' URL, at the addresses here."""
        found = settings(release, QUEUE_PASSWORD=password).nats_url
        for number, address in enumerate(self._clients):
            found = found.replace(f"{NATS}-{number}.{NATS}:4222", address)
        return found

    async def start(self, number: int) -> asyncio.subprocess.Process:
        """Start one server."""
        root = self._root / str(number)
        root.mkdir()
        text = self._config.replace("/data", str(root)).replace("/var/secrets/tls", str(self._root))
        text = text.replace("/run/nats", str(root))
        for port, its in ((4222, self._clients), (6222, self._routes), (8222, self._monitors)):
            text = text.replace(f"port: {port}\n", f"port: {its[number].rpartition(':')[2]}\n")
        (root / "nats.conf").write_text(text)
        environment = {"POD_NAME": f"{NATS}-{number}"}
        for each in self._env:
            value = each.get("value", "").replace("$(PASSWORD)", PASSWORD)
            for other, address in enumerate(self._routes):
                value = value.replace(f"{NATS}-{other}.{NATS}:6222", address)
            environment.setdefault(each["name"], value)
        program, *flags = self._command
        command = [str(find_tool(program)), *flags[:-1], str(root / "nats.conf")]
        with (root / "log").open("wb") as log:
            return await asyncio.create_subprocess_exec(
                *(str(find_tool("setpriv")), "--pdeathsig", "KILL", "--", *command),
                env=environment,
                stdout=log,
                stderr=log,
            )


@pytest.mark.integration
@pytest.mark.parametrize("values", CASES, ids=["one", "cluster"])
async def test_our_own_nats_takes_builders_and_no_others(values, tmp_path):
    """Real servers: the routes of a cluster, their certificates, and messages on all of them."""
    release = render(values)
    servers = Servers(release, tmp_path)
    ca = str(tmp_path / "ca.crt") if servers.number > 1 else ""
    async with AsyncExitStack() as stack:
        for number in range(servers.number):
            process = await servers.start(number)
            stack.push_async_callback(process.wait)
            stack.callback(process.terminate)

        jetstream = JetStream(Access(url=servers.url(release, PASSWORD), ca=ca))
        async with asyncio.timeout(60):
            while True:
                try:
                    await jetstream.connect()
                    break
                except Unavailable:
                    await asyncio.sleep(0.1)
                    jetstream = JetStream(Access(url=servers.url(release, PASSWORD), ca=ca))
        stack.push_async_callback(jetstream.close)
        config = StreamConfig(name="S", subjects=["s"], num_replicas=servers.number)
        async with asyncio.timeout(60):
            while True:
                try:
                    await jetstream.ensure_stream(config)
                    break
                except Unavailable:
                    # No leader is elected yet.
                    await asyncio.sleep(0.1)
        assert await jetstream.publish("s", b"kept") == 1

        stranger = JetStream(Access(url=servers.url(release, "guessed"), ca=ca))
        with pytest.raises(Unavailable):
            await stranger.connect()
