"""The namespace `openfaas` as pro-builder's users have it, and the chart installed there."""

import json
import shutil
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster.cluster import NODE, REGISTRY, Cluster
from tests.cluster.commands import CommandFailed, run
from tests.cluster.images import BUILDER, CHART, FAAS_CLI
from tests.support import VECTORS

Tell = Callable[[str, Sequence[Sequence[object]]], None]
"""Takes a table, a title and rows of which the first is the head, for the end of a run."""

NAMESPACE: Final = "openfaas"
RELEASE: Final = "pro-builder"
URL: Final = "http://pro-builder.openfaas:8080"
PRO_BUILDER: Final = VECTORS / "pro-builder-values.yaml"
"""A values file as users of the closed chart keep one."""

PYTHON: Final = "/opt/function-builder/bin/python3"
"""Of the builder's image, which has no shell."""

HERE: Final[Mapping[str, Any]] = {
    # The node has two processors, and the tests more pods than these hold at their real requests.
    "proBuilder": {"resources": {"requests": {"cpu": "10m"}}},
    "buildkit": {
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        # No registry of the internet is reached.
        "registries": {"docker.io": {"mirrors": [REGISTRY]}, REGISTRY: {"http": True}},
    },
    "imagePullPolicy": "Always",
}
"""What this cluster adds to every values file."""

_CLIENT: Final = Path(__file__).with_name("client.py")
_VOLUMES: Final = 4


class OpenFaaS:
    """The namespace with its secrets, volumes for caches, and a pod of clients."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl in the namespace; its output."""
        return await self.cluster.kubectl(f"--namespace={NAMESPACE}", *arguments, stdin=stdin)

    async def get(self, *arguments: str) -> Any:
        """What `kubectl get` says, as JSON."""
        return json.loads(await self.kubectl("get", *arguments, "--output=json"))

    async def pods(self, component: str = "pro-builder") -> list[Any]:
        """The pods of the builder, or of a pool's `buildkit`, or of `nats`."""
        return list((await self.get("pods", f"--selector=component={component}"))["items"])

    async def prepare(self) -> None:
        """Make the namespace, with what its users have before they install the chart."""
        await self.cluster.kubectl("create", "namespace", NAMESPACE)
        await self.kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=60s")
        await self.secret("payload-secret", {"payload-secret": self.payload_secret})
        key = (VECTORS / "build-secrets.key").read_text()
        await self.secret("pro-builder-build-secrets-key", {"key": key})
        await self.secret("aws-ecr-credentials", {"aws-ecr-credentials": "[default]\n"})
        await self.apply(_config_map("client", {_CLIENT.name: _CLIENT.read_text()}), _client_pod())
        await self.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=120s")

    @property
    def payload_secret(self) -> str:
        """What signs requests."""
        return (VECTORS / "payload-secret").read_text()

    async def secret(self, name: str, values: Mapping[str, str]) -> None:
        """Make a Secret, or give it other values."""
        await self.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name},
                "data": {key: b64encode(value.encode()).decode() for key, value in values.items()},
            }
        )

    async def certificates(self, *hosts: str) -> None:
        """Make the certificates of builders and BuildKits on TCP, as docs/kubernetes.md does."""
        directory = self.cluster.root / "certs"
        shutil.rmtree(directory, ignore_errors=True)
        named = [f"--host={host}" for host in hosts]
        await run(sys.executable, "-m", "function_builder", "certs", directory, *named)
        for side, name in (("server", "daemon"), ("client", "client")):
            files = {file.name: file.read_text() for file in (directory / side).iterdir()}
            await self.secret(f"buildkit-{name}-certs", files)

    async def apply(self, *objects: Mapping[str, Any]) -> None:
        """Apply objects."""
        await self.kubectl("apply", "--filename=-", stdin=yaml.safe_dump_all(objects))

    async def client(self, *arguments: str, stdin: str | None = None) -> Any:
        """Run client.py in the pod of clients; what it says, as JSON."""
        command = (
            "exec",
            "--stdin",
            "client",
            "--container=sdk",
            "--",
            PYTHON,
            "/client/client.py",
        )
        return json.loads(await self.kubectl(*command, *arguments, stdin=stdin))

    async def python(self, pod: str, script: str) -> str:
        """Run a script in a builder's pod, which has no shell; its output."""
        return await self.kubectl(
            "exec", pod, "--container=pro-builder", "--", PYTHON, "-c", script
        )

    async def shell(self, script: str) -> str:
        """Run a script in the pod of clients, where faas-cli is; its output."""
        return await self.kubectl("exec", "client", "--container=shell", "--", "sh", "-ec", script)

    async def helm(self, command: str, *arguments: str | Path) -> str:
        """Run a command of helm's about our release; its output."""
        return await run(
            "helm",
            *(command, RELEASE, f"--namespace={NAMESPACE}", *arguments),
            environment=self.cluster.environment,
        )

    async def upgrade(self, *files: Path, values: Mapping[str, Any] | None = None) -> None:
        """Install the chart, or upgrade it, and wait until all its pods are there.

        Args:
            files: values files, later ones over earlier ones.
            values: further values, over those of all files.
        """
        options = self._options(*files, values=values)
        try:
            await self.helm(
                "upgrade", CHART, "--install", "--wait=legacy", "--timeout=3m", *options
            )
        except CommandFailed as error:
            error.add_note(await self.description())
            raise

    def _options(self, *files: Path, values: Mapping[str, Any] | None = None) -> list[str]:
        written = []
        for number, content in enumerate((HERE, values or {})):
            path = self.cluster.root / f"values-{number}.yaml"
            path.write_text(yaml.safe_dump(dict(content)))
            written.append(path)
        return [f"--values={path}" for path in (*files, *written)]

    async def description(self) -> str:
        """What an operator would look at when pods do not come up."""
        said = [
            await self.kubectl("get", "pods,pvc", "--output=wide"),
            await self.kubectl("get", "events", "--sort-by=.lastTimestamp"),
        ]
        for pod in (await self.get("pods"))["items"]:
            name = pod["metadata"]["name"]
            log = ("logs", name, "--all-containers", "--prefix", "--tail=20", "--ignore-errors")
            said.append(await self.kubectl(*log))
        return "\n".join(said)

    async def uninstall(self) -> None:
        """Uninstall the chart, and wait until its pods and claims are gone."""
        await self.helm("uninstall", "--ignore-not-found")
        pods = "--selector=component in (pro-builder, buildkit, nats)"
        await self.kubectl("wait", "--for=delete", "pods", pods, "--timeout=120s")
        await self.kubectl("wait", "--for=delete", "pvc", "--all", "--timeout=60s")

    @asynccontextmanager
    async def installed(
        self, *files: Path, values: Mapping[str, Any] | None = None
    ) -> AsyncIterator[None]:
        """The chart, installed for the time of an `async with`, with empty volumes for caches."""
        async with self.volumes():
            try:
                await self.upgrade(*files, values=values)
                yield
            finally:
                await self.uninstall()

    @asynccontextmanager
    async def volumes(self) -> AsyncIterator[None]:
        """Volumes on the node, which outlive claims, as many as any of the tests binds."""
        names = [f"cache-{number}" for number in range(_VOLUMES)]
        root = self.cluster.root / "volumes"
        for name in names:
            (root / name).mkdir(parents=True)
        await self.apply(*(_volume(name, self.cluster.root) for name in names))
        try:
            yield
        finally:
            await self.cluster.kubectl("delete", "pv", *names)
            shutil.rmtree(root)


def _config_map(name: str, files: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": dict(files),
    }


def _volume(name: str, root: Path) -> dict[str, Any]:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "50Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(root / "volumes" / name)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


def _client_pod() -> dict[str, Any]:
    """A pod outside of the release: Python with our client, and a shell with faas-cli."""
    shared = {"name": "shared", "mountPath": "/shared"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
            "containers": [
                {
                    "name": "sdk",
                    "image": f"{REGISTRY}/{BUILDER}",
                    "command": [PYTHON, "-c", "import signal; signal.pause()"],
                    "volumeMounts": [
                        shared,
                        {"name": "client", "mountPath": "/client"},
                        {"name": "tmp", "mountPath": "/tmp"},
                    ],
                },
                {
                    "name": "shell",
                    "image": f"{REGISTRY}/{FAAS_CLI}",
                    "command": ["sleep", "2147483647"],
                    "volumeMounts": [shared],
                },
            ],
            "volumes": [
                {"name": "client", "configMap": {"name": "client"}},
                {"name": "shared", "emptyDir": {}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    }
