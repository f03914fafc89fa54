"""A Kubernetes of one node, made of its own programs, for the time of an `async with`.

It lives in the network and mount namespaces of the process that starts it (scripts/cluster-test
makes them): every address is of the ranges that RFC 5737 keeps for documentation, and nothing of
it is reached from outside, nor reaches out.
"""

import contextlib
import json
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx2
import trustme

from function_builder.engine.address import tcp_answers, unix_answers
from function_builder.engine.process import Program, SupervisedProcess
from function_builder.engine.tools import find_tool
from tests.cluster.commands import CommandFailed, run

NODE: Final = "node"
NODE_ADDRESS: Final = "192.0.2.1"
PODS: Final = "198.51.100.0/24"
SERVICES: Final = "203.0.113.0/24"
API_SERVICE: Final = "203.0.113.1"
DNS_SERVICE: Final = "203.0.113.10"
DOMAIN: Final = "cluster.local"
REGISTRY: Final = f"{NODE_ADDRESS}:5000"
"""Where images come from and go to; also what stands for every registry on the internet."""

_API: Final = f"{NODE_ADDRESS}:6443"
_ETCD: Final = "127.0.0.1:2379"
_PLUGINS: Final = Path("/usr/lib/cni")
_DNS: Final = Path(__file__).with_name("dns.yaml")

_IDENTITIES: Final = {
    # user: group; Kubernetes reads them out of a certificate's CN and O.
    "admin": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    f"system:node:{NODE}": "system:nodes",
    "system:kube-proxy": "",
}


class Cluster:
    """etcd, the API server and its controllers, containerd, a kubelet, kube-proxy.

    Args:
        root: a directory for all its state and logs; short, for the sake of sockets.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start it, and wait until its node is ready for pods."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it: pods first, then what runs them."""
        await self._stack.aclose()

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator; its output.

        Raises:
            CommandFailed: it did not exit with 0.
        """
        return await run("kubectl", *arguments, environment=self.environment, stdin=stdin)

    async def get(self, *arguments: str) -> Any:
        """What `kubectl get` says, as JSON."""
        return json.loads(await self.kubectl("get", *arguments, "--output=json"))

    @property
    def environment(self) -> dict[str, str]:
        """For kubectl and helm."""
        return {"KUBECONFIG": str(self._config("admin")), "HOME": str(self.root)}

    async def _start(self) -> None:
        self._certificates()
        await self._program(
            "etcd",
            f"--data-dir={self.root}/etcd",
            f"--listen-client-urls=http://{_ETCD}",
            f"--advertise-client-urls=http://{_ETCD}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--log-level=error",
            ready=lambda: _healthy(f"http://{_ETCD}/health"),
        )
        await self._program(
            "kube-apiserver", *self._api_server(), ready=lambda: self._answers("/readyz")
        )
        pki = self.root / "pki"
        await self._program(
            "kube-controller-manager",
            f"--kubeconfig={self._config('system:kube-controller-manager')}",
            f"--service-account-private-key-file={pki}/apiserver.key",
            f"--root-ca-file={pki}/ca.crt",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            ready=lambda: tcp_answers("127.0.0.1:10257"),
        )
        await self._program(
            "kube-scheduler",
            f"--kubeconfig={self._config('system:kube-scheduler')}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            ready=lambda: tcp_answers("127.0.0.1:10259"),
        )
        await self._containerd()
        await self._kubelet()
        await self._program(
            "kube-proxy",
            f"--config={self._file('kube-proxy.json', self._proxy())}",
            ready=lambda: _healthy("http://127.0.0.1:10256/livez"),
        )
        await self.kubectl("wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=60s")
        await self.kubectl("apply", f"--filename={_DNS}")
        await self.kubectl(
            "rollout", "status", "deployment/coredns", "--namespace=kube-system", "--timeout=60s"
        )

    async def _containerd(self) -> None:
        root = self.root / "containerd"
        socket = root / "containerd.sock"
        self._cni()
        self._mirrors()
        await self._program(
            "containerd",
            f"--config={self._file('containerd.toml', _containerd_toml(root))}",
            ready=lambda: unix_answers(socket),
        )
        # Sandboxes and containers have shims for parents, which outlive containerd.
        self._stack.push_async_callback(self._end_containers, socket)

    async def _kubelet(self) -> None:
        root = self.root / "kubelet"
        root.mkdir()
        # Volumes that a pod mounts must reach containers, and be gone with them.
        await run("mount", "--bind", root, root)
        await run("mount", "--make-rshared", root)
        await self._program(
            "kubelet",
            f"--config={self._file('kubelet.json', self._kubelet_configuration())}",
            f"--kubeconfig={self._config(f'system:node:{NODE}')}",
            f"--hostname-override={NODE}",
            f"--node-ip={NODE_ADDRESS}",
            f"--root-dir={root}",
            f"--cert-dir={root}/pki",
            ready=lambda: _healthy("http://127.0.0.1:10248/healthz"),
        )

    def _api_server(self) -> list[str]:
        pki = self.root / "pki"
        return [
            f"--etcd-servers=http://{_ETCD}",
            "--bind-address=0.0.0.0",
            f"--advertise-address={NODE_ADDRESS}",
            "--secure-port=6443",
            f"--service-cluster-ip-range={SERVICES}",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt",
            f"--kubelet-client-certificate={pki}/admin.crt",
            f"--kubelet-client-key={pki}/admin.key",
            f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
            f"--service-account-key-file={pki}/apiserver.key",
            f"--service-account-signing-key-file={pki}/apiserver.key",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            # The node has no name that DNS knows.
            "--kubelet-preferred-address-types=InternalIP",
        ]

    def _kubelet_configuration(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.root / "pki" / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": f"unix://{self.root}/containerd/containerd.sock",
            # Debian 12 may run cgroups v1, which newer kubelets refuse by default.
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": "/",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "clusterDNS": [DNS_SERVICE],
            "clusterDomain": DOMAIN,
            "resolvConf": str(self._file("resolv.conf", "")),
            "failSwapOn": False,
            "podLogsDir": str(self.root / "pod-logs"),
            # The disk is the developer's: how full it is is not this test's matter.
            "evictionHard": {"memory.available": "0%", "nodefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "syncFrequency": "5s",
        }

    def _proxy(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(self._config("system:kube-proxy"))},
            "hostnameOverride": NODE,
            "mode": "nftables",
            "clusterCIDR": PODS,
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            # The machine's own settings are not a test's to change.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpBeLiberal": False},
        }

    async def _program(
        self, name: str, *arguments: str, ready: Callable[[], Awaitable[bool]]
    ) -> None:
        program = SupervisedProcess(
            Program(
                name=name,
                argv=(str(find_tool(name)), *arguments),
                ready=ready,
                prepare=lambda: None,
                environment={"TMPDIR": str(self.root)},
                log=self.root / f"{name}.log",
                start_timeout=120,
                # Nothing that they would save is wanted; the API server takes a minute for it.
                stop_timeout=2,
            )
        )
        await program.start()
        self._stack.push_async_callback(program.stop)

    def _certificates(self) -> None:
        """One authority for all; a key and a certificate for each who speaks to the API."""
        pki = self.root / "pki"
        pki.mkdir()
        authority = trustme.CA(key_type=trustme.KeyType.RSA)
        authority.cert_pem.write_to_path(pki / "ca.crt")
        names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")
        server = authority.issue_cert(
            *names,
            API_SERVICE,
            NODE_ADDRESS,
            "127.0.0.1",
            common_name="kube-apiserver",
            key_type=trustme.KeyType.RSA,
        )
        _write(server, pki / "apiserver")
        for user, group in _IDENTITIES.items():
            client = authority.issue_cert(
                "client.invalid", common_name=user, organization_name=group or None
            )
            _write(client, pki / user)
            self._file(f"{user}.kubeconfig", self._kubeconfig(user))

    def _kubeconfig(self, user: str) -> dict[str, Any]:
        pki = self.root / "pki"
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "clusters": [
                {
                    "name": "it",
                    "cluster": {
                        "server": f"https://{_API}",
                        "certificate-authority": str(pki / "ca.crt"),
                    },
                }
            ],
            "users": [
                {
                    "name": "it",
                    "user": {
                        "client-certificate": str(pki / f"{user}.crt"),
                        "client-key": str(pki / f"{user}.key"),
                    },
                }
            ],
        }

    def _cni(self) -> None:
        """Routed, not bridged: an answer passes the host, which undoes a Service's rule on it."""
        configuration = {
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "ptp",
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(self.root / "addresses"),
                        "ranges": [[{"subnet": PODS}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
            ],
        }
        self._file("containerd/cni/pods.conflist", configuration)

    def _mirrors(self) -> None:
        """The one registry here stands for every one that a name may begin with."""
        hosts = f'[host."http://{REGISTRY}"]\n  capabilities = ["pull", "resolve"]\n'
        self._file("containerd/certs.d/_default/hosts.toml", hosts)

    def _config(self, user: str) -> Path:
        return self.root / f"{user}.kubeconfig"

    def _file(self, name: str, content: str | Mapping[str, Any]) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
        return path

    async def _answers(self, path: str) -> bool:
        try:
            await self.kubectl("get", f"--raw={path}", "--request-timeout=2s")
        except CommandFailed:
            return False
        return True

    async def _end_containers(self, socket: Path) -> None:
        ctr = ("ctr", f"--address={socket}", "--namespace=k8s.io")
        for container in (await run(*ctr, "containers", "list", "--quiet")).split():
            for end in (("tasks", "delete", "--force"), ("containers", "delete")):
                # A container whose program has ended has no task any more.
                with contextlib.suppress(CommandFailed):
                    await run(*ctr, *end, container)


def make_network() -> None:
    """Give the namespace its node address and let packets through; `lo` is up already."""
    for command in (
        # A bridge without ports stands for a network card: it has an address, which is all.
        ("ip", "link", "add", NODE, "type", "bridge"),
        ("ip", "address", "add", f"{NODE_ADDRESS}/32", "dev", NODE),
        ("ip", "link", "set", NODE, "up"),
    ):
        subprocess.run(command, check=True)
    for setting in ("net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet"):
        (Path("/proc/sys") / setting).write_text("1")


async def _healthy(url: str) -> bool:
    try:
        async with httpx2.AsyncClient(trust_env=False, timeout=2) as http:
            return (await http.get(url)).status_code == 200
    except httpx2.HTTPError:
        return False


def _write(leaf: trustme.LeafCert, path: Path) -> None:
    leaf.private_key_pem.write_to_path(f"{path}.key")
    leaf.cert_chain_pems[0].write_to_path(f"{path}.crt")


def _containerd_toml(root: Path) -> str:
    return f"""\
version = 3
root = "{root}/root"
state = "{root}/state"
[grpc]
  address = "{root}/containerd.sock"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{REGISTRY}/pause:latest"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{root}/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  # Without a security module of the kernel's there is none to set.
  disable_apparmor = true
  # Root may be without CAP_SYS_RESOURCE, which a score below one's own asks for.
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{_PLUGINS}"]
    conf_dir = "{root}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"
"""
