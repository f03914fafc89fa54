"""As much of a Kubernetes API server as helm asks for `lookup`: kinds, and one object."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from tests.chart.render import KUBERNETES, Resource

_KINDS = {
    "v1": ("ConfigMap", "Pod", "Service"),
    "apps/v1": ("StatefulSet",),
    "autoscaling/v2": ("HorizontalPodAutoscaler",),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "policy/v1": ("PodDisruptionBudget",),
}


def _resources(version: str) -> dict[str, Any]:
    resources = [
        {"name": kind.lower() + "s", "kind": kind, "namespaced": True, "verbs": ["get"]}
        for kind in _KINDS[version]
    ]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}


def _group(version: str) -> dict[str, Any]:
    name, _, number = version.partition("/")
    each = {"groupVersion": version, "version": number}
    return {"name": name, "versions": [each], "preferredVersion": each}


@contextmanager
def api_server(stateful_set: Resource) -> Iterator[dict[str, Any]]:
    """Serve a StatefulSet `pro-builder` on 127.0.0.1, and give the kubeconfig that leads there."""
    metadata = {"name": "pro-builder", "namespace": "openfaas"}
    found = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, **stateful_set}
    major, minor = KUBERNETES.split(".")
    groups = [version for version in _KINDS if "/" in version]
    answers = {
        "/version": {"major": major, "minor": minor, "gitVersion": f"v{KUBERNETES}.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/api/v1": _resources("v1"),
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [*map(_group, groups)]},
        **{f"/apis/{version}": _resources(version) for version in groups},
        "/apis/apps/v1/namespaces/openfaas/statefulsets/pro-builder": found,
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            body = json.dumps(answer or {"kind": "Status", "status": "Failure", "code": 404})
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name there)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever).start()
        try:
            yield _kubeconfig(f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()


def _kubeconfig(url: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "fake", "cluster": {"server": url}}],
        "users": [{"name": "fake", "user": {}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        "current-context": "fake",
    }
