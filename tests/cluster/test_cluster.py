"""The cluster itself: a pod runs, and finds a Service by its name."""

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

    said = await cluster.kubectl(
        "run",
        plain,
        "client",
        "--image=busybox",
        "--restart=Never",
        "--rm",
        "--attach",
        "--quiet",
        "--",
        "wget",
        "-qO-",
        "http://web.plain.svc.cluster.local",
    )

    assert said == "served\n"
