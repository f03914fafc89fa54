"""Kubernetes' own schemas: what an API server of a given version would say of an object's form."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

import jsonschema_rs

VERSIONS = ("1.29", "1.30", "1.33", "1.37")
"""The oldest that the chart takes, the first with AppArmor's field, and two newer ones."""

Validators = dict[tuple[str, str], Any]

_DEFINITIONS = "/api/_definitions.json#"


@cache
def _definitions(version: str) -> dict[str, Any]:
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    path = files("kubernetes_validate") / folder / "_definitions.json"
    definitions = json.loads(path.read_text().replace(_DEFINITIONS, "#"))["$defs"]
    assert isinstance(definitions, dict)
    return definitions


@cache
def _validator(version: str, api_version: str, kind: str) -> Any:
    group, _, name = api_version.rpartition("/")
    wanted = {"group": group, "version": name, "kind": kind}
    definitions = _definitions(version)
    (definition,) = (
        key
        for key, schema in definitions.items()
        if wanted in schema.get("x-kubernetes-group-version-kind", [])
    )
    schema = {"$ref": f"#/$defs/{definition}", "$defs": definitions}
    return jsonschema_rs.Draft202012Validator(schema)


def is_kubernetes(resource: dict[str, Any]) -> bool:
    """Not of an operator or of the Gateway API, which the cluster may lack."""
    group = resource["apiVersion"].rpartition("/")[0]
    return "." not in group or (group.endswith(".k8s.io") and not group.startswith("gateway."))


def faults(version: str, resource: dict[str, Any]) -> list[str]:
    """What is wrong with an object, unknown fields too. Operators' objects are not judged."""
    if not is_kubernetes(resource):
        return []
    validator = _validator(version, resource["apiVersion"], resource["kind"])
    return [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(resource)]
