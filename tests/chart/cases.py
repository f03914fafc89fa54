"""The values that the chart is rendered with: each way to run it, and all options at once."""

from typing import Any

import yaml

from tests.support import VECTORS

PRO_BUILDER: dict[str, Any] = yaml.safe_load((VECTORS / "pro-builder-values.yaml").read_text())

EVERYTHING: dict[str, Any] = {
    "replicas": 3,
    "imagePullSecrets": [{"name": "pull"}],
    "proBuilder": {
        "image": "registry.internal/function-builder:1",
        "maxInflight": 4,
        "env": [{"name": "https_proxy", "value": "http://proxy:3128"}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca", "readOnly": True}],
    },
    "buildkit": {
        "maxParallelism": 8,
        "registries": {
            "docker.io": {"mirrors": ["mirror.internal:5000"]},
            "mirror.internal:5000": {"http": True},
            "registry.internal": {"ca": ["/ca/ca.crt"]},
        },
        "config": '[log]\nformat = "json"',
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca", "readOnly": True}],
        "cache": {"size": "200Gi", "storageClassName": "fast"},
    },
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "buildSecrets": {"privateKeySecret": "pro-builder-build-secrets-key"},
    "awsCredentialsSecret": "aws-ecr-credentials",
    "serviceAccountAnnotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/builder"},
    "securityContext": {"fsGroup": 65534},
    "nodeSelector": {"pool": "builds"},
    "tolerations": [{"key": "builds", "operator": "Exists"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "spot", "operator": "DoesNotExist"}]}
                ]
            }
        }
    },
    "settings": {
        "max_body_bytes": 268435456,
        "build_timeout": "45m",
        "log_prefixes": "time",
        "max_queue": 16,
        "queue_timeout": "10m",
        "ready_when_full": True,
    },
    "service": {
        "annotations": {"a": "b"},
        "ipFamilyPolicy": "PreferDualStack",
        "ipFamilies": ["IPv6", "IPv4"],
    },
    "listen": "[::]:9080",
    "metricsListen": "0.0.0.0:9081",
    "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["10.0.0.10"], "options": [{"name": "ndots", "value": "1"}]},
    "hostAliases": [{"ip": "10.0.0.7", "hostnames": ["registry.internal"]}],
    "runtimeClassName": "kata",
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "platform"},
    "priorityClassName": "builds",
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": "pro-builder"}},
        }
    ],
    "networkPolicy": {
        "from": [{"namespaceSelector": {"matchLabels": {"builds": "yes"}}}],
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
        "egressExcept": [],
    },
    "autoscaling": {"enabled": True},
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True},
    },
    "test": {"baseImage": "busybox", "image": "registry.internal/test:1"},
}

POOL: dict[str, Any] = {"topology": "pool", "replicas": 3, "pool": {"replicas": 4}}

TENANTS_POOLS: dict[str, Any] = {
    "tenants": {
        "secret": "tenants",
        "pools": {
            "acme": {"replicas": 2, "nodeSelector": {"customer": "acme"}},
            "globex": {"replicas": 1},
        },
    }
}

QUEUE: dict[str, Any] = {
    "queue": {"enabled": True, "nats": {"enabled": True}, "storeUrl": "s3://builds/production"}
}
QUEUE_CLUSTER: dict[str, Any] = {
    "queue": {
        "enabled": True,
        "nats": {
            "enabled": True,
            "replicas": 3,
            "image": "registry.internal/function-builder:1",
            "tlsSecret": "nats-certs",
            "size": "20Gi",
            "storageClassName": "fast",
            "tolerations": [{"key": "queue", "operator": "Exists"}],
        },
        "storeVolume": {"enabled": True, "size": "200Gi", "storageClassName": "shared"},
    }
}
QUEUE_ELSEWHERE: dict[str, Any] = {
    "queue": {
        "enabled": True,
        "natsUrl": "tls://nats-0.nats:4222,tls://nats-1.nats:4222",
        "natsReplicas": 3,
        "auth": {"kind": "credentials", "secret": "nats-user"},
        "tls": {"secret": "nats-certs", "clientCertificate": True},
        "storeUrl": "s3://builds",
        "storeSecret": "builds-bucket",
    }
}

OUTSIDE: dict[str, Any] = {
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "host": "builder.example.com",
        "tlsSecret": "builder-certificate",
        "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "1g"},
    },
    "gateway": {
        "enabled": True,
        "parentRefs": [{"name": "public", "namespace": "gateways"}],
        "hostnames": ["builder.example.com"],
    },
}

CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "pro-builder": PRO_BUILDER,
    "everything": EVERYTHING,
    "pool": POOL,
    "pool, everything": {**EVERYTHING, **POOL},
    "pool, cert-manager": {
        **POOL,
        "tls": {"certManager": {"enabled": True, "issuerRef": {"name": "builds"}}},
    },
    "tenants' pools": TENANTS_POOLS,
    "pool, tenants' pools, cert-manager": {
        **POOL,
        **TENANTS_POOLS,
        "tls": {"certManager": {"enabled": True, "issuerRef": {"name": "builds"}}},
    },
    "external": {"topology": "external", "buildkit": {"url": "tcp://buildkitd.builds:1234"}},
    "emptyDir": {"buildkit": {"cache": {"type": "emptyDir", "size": "20Gi"}}},
    "user namespaces": {"buildkit": {"hostUsers": False}},
    "privileged": {"buildkit": {"rootless": False}},
    "pool, user namespaces": {**POOL, "buildkit": {"hostUsers": False}},
    "queue": QUEUE,
    "queue, cluster": {**EVERYTHING, **QUEUE_CLUSTER},
    "queue, elsewhere": {**POOL, **QUEUE_ELSEWHERE},
    "clients outside": OUTSIDE,
    "bare": {
        "disableHmac": True,
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "metrics": {"scrapeAnnotations": False},
    },
}


def nested(path: str, value: Any) -> dict[str, Any]:
    """One value, named by its keys with dots between."""
    for key in reversed(path.split(".")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def value_of(values: dict[str, Any], path: str) -> Any:
    """The value that `nested` would set."""
    found: Any = values
    for key in path.split("."):
        found = found[key]
    return found
