"""The cluster itself: the Kubernetes that is pinned; a pod finds a Service by its name."""

import re
from pathlib import Path

MODULE = Path(__file__).parents[1] / "tools" / "cluster-kubernetes" / "go.mod"

_WEB = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
    - name: web
      image: busybox
      command: [sh, -c, "echo served > /tmp/index.html && exec httpd -f -p 8080 -h /tmp"]
      readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
"""


async def test_a_pod_reaches_a_service_by_its_name(cluster):
    await cluster.kubectl("create", "namespace", "plain")
    plain = "--namespace=plain"
    await cluster.kubectl("wait", plain, "--for=create", "serviceaccount/default")
    await cluster.kubectl("apply", plain, "--filename=-", stdin=_WEB)
    await cluster.kubectl("wait", plain, "--for=condition=Ready", "pod/web", "--timeout=60s")

    # Not attached: a pod may have said all before kubectl listens.
    asked = ["wget", "-qO-", "http://web.plain.svc.cluster.local"]
    await cluster.kubectl(
        "run", plain, "client", "--image=busybox", "--restart=Never", "--", *asked
    )
    ended = "--for=jsonpath={.status.phase}=Succeeded"
    await cluster.kubectl("wait", plain, ended, "pod/client", "--timeout=60s")
    said = await cluster.kubectl("logs", plain, "pod/client")

    assert said == "served\n"


async def test_the_cluster_says_the_version_that_is_pinned(cluster):
    said = re.search(r"k8s.io/kubernetes (\S+)", MODULE.read_text())
    assert said
    version = await cluster.kubectl("get", "--raw=/version")
    assert f'"gitVersion": "{said[1]}"' in version
