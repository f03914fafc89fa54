"""The JSON Schema for editors says what the builder says, where no other file is needed for it."""

import json
from importlib import resources

import jsonschema_rs
import pytest
import yaml

from function_builder import tenants as package
from function_builder.tenants import document, trusts
from tests.unit.function_builder.tenants.conftest import HASH, Place
from tests.unit.function_builder.tenants.test_document import WHOLE, entry
from tests.unit.function_builder.tenants.test_trusts import GITHUB
from tests.unit.function_builder.tenants.test_trusts import file as trusted

SCHEMA = json.loads(resources.files(package).joinpath("schema.json").read_text())


def test_it_has_the_keys_that_are_read() -> None:
    definitions = SCHEMA["$defs"]
    assert tuple(SCHEMA["properties"]) == document.TOP_KEYS
    assert tuple(definitions["tenant"]["properties"]) == document.TENANT_KEYS
    assert tuple(definitions["token"]["properties"]) == document.TOKEN_KEYS
    assert tuple(definitions["trust"]["properties"]) == trusts.TRUST_KEYS


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        trusted(f"{GITHUB}, claims: {{a: b, c: [d, true], e: {{f: 1}}}}, scopes: read"),
        "tenants: {}",
        "tenants: {default: {hosts: [a], build_timeout: 60, push: '**'}}",
    ],
)
def test_what_is_right_fits(place: Place, text: str) -> None:
    place.read(text)
    jsonschema_rs.Draft202012Validator(SCHEMA).validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "tenant: {}",
        "tenants: [acme]",
        "tenants: {Acme: {payload_secret_file: acme}}",
        "tenants: {acme: null}",
        "tenants: {acme: {}}",
        "tenants: {acme: {tokens: null}}",
        "tenants: {default: {payload_secret_file: acme}}",
        entry("registry_config: [a]"),
        entry("build_timeout: fast"),
        entry("max_body_bytes: {}"),
        entry("push: []"),
        entry("weight: 0"),
        entry("max_inflight: 1.5"),
        entry("max_queue: -1"),
        entry("host: a"),
        entry("hosts: []"),
        entry("hosts: ['']"),
        entry("hosts: [[a]]"),
        entry("tokens: [{}]"),
        entry("tokens: [{sha256: abc}]"),
        entry(f"tokens: [{{sha256: {HASH}, scopes: [all]}}]"),
        entry(f"tokens: [{{sha256: {HASH}, scopes: []}}]"),
        entry(f"tokens: [{{sha256: {HASH}, name: a}}]"),
        trusted("issuer: https://a, audience: b"),
        trusted("issuer: a, audience: b, claims: {c: d}"),
        trusted(f"{GITHUB}, claims: {{}}"),
        trusted(f"{GITHUB}, claims: {{a: []}}"),
        trusted(f"{GITHUB}, claims: {{a: b}}, scopes: all"),
    ],
)
def test_what_is_wrong_does_not(place: Place, text: str) -> None:
    assert place.faults(text)
    assert not jsonschema_rs.Draft202012Validator(SCHEMA).is_valid(yaml.safe_load(text))
