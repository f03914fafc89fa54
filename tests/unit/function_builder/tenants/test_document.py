"""What a tenants file says, and all that is refused, with its line and column."""

import base64
import hashlib
import json
import string
from collections.abc import Sequence

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from function_builder.builds.source_policy import SourcePolicy
from function_builder.contract.tenancy import Scope
from function_builder.items import Fault
from function_builder.tenants.document import TenantsError, read_tenants
from function_builder.tenants.files import Files
from tests.unit.function_builder.tenants.conftest import HASH, OWN, TOKEN, Place

WHOLE = f"""\
tenants:
  acme:
    payload_secret_file: [acme, acme-previous]
    webhook_secret_file: hook
    hosts: [acme.builder.example.com, ACME.example.org]
    tokens:
      - {{sha256: {HASH}, scopes: [read]}}
  zeta:
    payload_secret_file: zeta
    hosts: zeta.builder.example.com
"""


def test_all_that_a_file_may_say(place: Place) -> None:
    tenants = place.read(WHOLE)
    acme, zeta = tenants.by_name["acme"], tenants.by_name["zeta"]
    assert acme.secrets == [b"the payload secret of acme", b"the payload secret of acme-previous"]
    assert acme.hosts == ["acme.builder.example.com", "acme.example.org"]
    assert acme.webhook_keys == [bytes(24)]
    assert (zeta.secrets, zeta.tokens) == ([b"the payload secret of zeta"], [])
    found = tenants.of_token(TOKEN)
    assert found is not None
    assert (found[0], list(found[1].scopes)) == (acme, [Scope.READ])
    assert tenants.default.secrets == [OWN]
    assert b"secret of" not in repr(acme).encode()


def test_a_file_without_tenants_leaves_the_default_one(place: Place) -> None:
    assert list(place.read("tenants: {}").by_name) == ["default"]


def test_the_default_tenant_may_have_hosts_and_tokens(place: Place) -> None:
    default = place.read(f"tenants: {{default: {{tokens: [{{sha256: {HASH}}}]}}}}").default
    assert default.secrets == [OWN]
    assert default.tokens[0].scopes == frozenset(Scope)


@pytest.mark.parametrize(
    ("authority", "name"),
    [
        ("acme.builder.example.com", "acme"),
        ("Acme.Builder.Example.com.:8080", "acme"),
        ("acme.example.org:80", "acme"),
        ("zeta.builder.example.com", "zeta"),
        ("builder.example.com", None),
        ("x.acme.example.org", None),
        ("[::1]:8080", None),
        ("", None),
    ],
)
def test_the_tenant_of_a_host(place: Place, authority: str, name: str | None) -> None:
    found = place.read(WHOLE).at_host(authority)
    assert (found and found.name) == name


EMPTY = hashlib.sha256(b"").hexdigest()


def entry(text: str) -> str:
    return f"tenants:\n  acme:\n    payload_secret_file: acme\n    {text}\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "line 1, column 1: the file is empty"),
        ("tenants: [", "line 2, column 1: not YAML: "),
        ("a: 1\n\0", "line 1, column 1: not YAML: a character that YAML does not allow"),
        ("tenants:\n  a: {}\n---\n", "not YAML: but found another document"),
        ("- tenants", "line 1, column 1: must be a mapping"),
        ("{}", "line 1, column 1: tenants is absent"),
        ("tenant: {}", 'line 1, column 1: "tenant" is unknown: did you mean tenants?'),
        ("tenants: [acme]", "line 1, column 10: must be a mapping"),
        ("tenants:\n  Acme: {}", 'line 2, column 3: "Acme" is not a tenant\'s name'),
        ("tenants:\n  acme-: {}", 'line 2, column 3: "acme-" is not a tenant\'s name'),
        ("tenants:\n  acme:", "line 2, column 8: must be a mapping"),
        ("tenants:\n  acme: {}", "line 2, column 3: acme cannot prove itself"),
        ("tenants: {acme: {payload_secret_file: null}}", "column 11: acme cannot prove itself"),
        (entry("host: a"), 'line 4, column 5: "host" is unknown: did you mean hosts?'),
        (entry("x: a"), 'line 4, column 5: "x" is unknown: use payload_secret_file, '),
        (entry("payload_secret_file: a"), '4, column 5: "payload_secret_file" is there twice'),
        (entry("hosts: []"), "line 4, column 12: must be a list that is not empty"),
        (entry("hosts: ['']"), "line 4, column 13: must be a text that is not empty"),
        (entry("hosts: {a: b}"), "line 4, column 12: must be a list that is not empty"),
        (entry("hosts: [[a]]"), "line 4, column 13: must be a text that is not empty"),
        (entry("hosts: https://a"), 'line 4, column 12: "https://a" is not a host name'),
        (entry("hosts: a:80"), 'line 4, column 12: "a:80" is not a host name'),
        (entry("hosts: [a, A]"), "line 4, column 16: a is there twice"),
        (entry("tokens: {sha256: a}"), "line 4, column 13: must be a list that is not empty"),
        (entry("tokens: [{}]"), "line 4, column 14: sha256 is absent"),
        (entry(f"tokens: [{{sha256: {EMPTY}}}]"), "23: this is the hash of an empty token"),
        (entry("tokens: [{sha256: abc}]"), "line 4, column 23: must be 64 lower-case hex digits"),
        (entry(f"tokens: [{{sha256: {HASH}, scopes: [all]}}]"), '"all" is not a scope'),
        (entry("webhook_secret_file: acme"), "line 4, column 26: the webhook secret must begin"),
        (entry("registry_config: acme"), '4, column 22: "acme": it is not JSON'),
        (entry("registry_config: own.json"), "the auth of r.example.com is not base64 of"),
        (entry("build_secrets_key: acme"), 'line 4, column 24: "acme" is not a key: '),
        (entry("build_timeout: fast"), "line 4, column 20: must be a duration such as 90s"),
        (entry("max_body_bytes: 1XB"), "line 4, column 21: must be a size such as 1GiB"),
        (entry("weight: 0"), "line 4, column 13: must be a whole number from 1 to 10000"),
        (entry("builds_per_hour: 0"), "must be a whole number from 1 to 10000"),
        (entry("max_queue: few"), "line 4, column 16: must be a whole number from 0 to 10000"),
        (entry("allowed_frontends: ['a b']"), "line 4, column 25: must be NAME, "),
        (entry("push: [r.io/a, acme/**]"), 'line 4, column 20: "acme/**" matches nothing: begin'),
        (entry("push: https://r.io/a"), "line 4, column 11: "),
        (entry("push: r.io/a:1"), 'line 4, column 11: "r.io/a:1" matches nothing: a repository'),
        ("tenants: {a: {payload_secret_file: absent}}", '"absent" cannot be read: No such file'),
        ("tenants: {a: {payload_secret_file: .}}", '"." cannot be read: Is a directory'),
        ("tenants: {a: {payload_secret_file: empty}}", "column 36: the file has 0 bytes"),
        ("tenants: {a: {payload_secret_file: short}}", "column 36: the file has 10 bytes"),
        ("tenants: {a: {payload_secret_file: own}}", "the secret is also that of default"),
        ("tenants: {a: {payload_secret_file: [acme, acme]}}", "43: the secret is there twice"),
        ("tenants: {default: {payload_secret_file: acme}}", "default has the builder's own"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(place: Place, text: str, fault: str) -> None:
    (found,) = place.faults(text)
    assert fault in found


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("payload_secret_file", "acme", "the secret"),
        ("webhook_secret_file", "hook", "the secret"),
        ("hosts", "builder.example.com", "builder.example.com"),
        ("tokens", f"[{{sha256: {HASH}}}]", "the token"),
    ],
)
def test_two_tenants_share_nothing_that_tells_them_apart(
    place: Place, key: str, value: str, what: str
) -> None:
    own = "" if key == "payload_secret_file" else "payload_secret_file: {file}, "
    acme, zeta = (own.format(file=file) + f"{key}: {value}" for file in ("acme", "zeta"))
    text = f"tenants:\n  acme: {{{acme}}}\n  zeta: {{{zeta}}}\n"
    (fault,) = place.faults(text)
    assert fault.startswith("line 3, ")
    assert fault.endswith(f"{what} is also that of acme")


def test_two_tenants_have_the_same_credentials_for_one_registry(place: Place) -> None:
    """Where they share a BuildKit, it asks the builds of both for one answer."""
    for name, user in (("acme", "a"), ("zeta", "z"), ("same", "a")):
        auth = base64.b64encode(f"{user}:password".encode()).decode()
        config = {"auths": {"https://r.example.com/v1/": {"auth": auth}}}
        place.path.with_name(f"{name}.json").write_text(json.dumps(config))
    text = """\
tenants:
  acme: {payload_secret_file: acme, registry_config: acme.json}
  zeta: {payload_secret_file: zeta, registry_config: FILE.json}
"""
    place.read(text.replace("FILE", "same"))
    (fault,) = place.faults(text.replace("FILE", "zeta"))
    assert "line 3, column 54: acme has other credentials for r.example.com" in fault


def test_all_faults_are_named_at_once_in_their_order(place: Place) -> None:
    text = "tenants:\n  B: {}\n  a: {payload_secret_file: absent, hosts: 'a b'}\nmore: 1\n"
    assert [fault.partition(",")[0] for fault in place.faults(text)] == [
        "line 2",
        "line 3",
        "line 3",
        "line 4",
    ]


def test_a_file_that_cannot_be_read_is_a_fault(place: Place) -> None:
    place.path.write_bytes(b"tenants: {}\n\xff")
    with pytest.raises(TenantsError, match="the file is not UTF-8"):
        place.read_again()
    place.path.unlink()
    with pytest.raises(TenantsError, match="cannot be read: No such file"):
        place.read_again()


_scalars = st.sampled_from(["acme", "zeta", "tenants", "", "a.b", HASH, "read"]) | st.text(
    string.printable, max_size=6
)
_keys = st.sampled_from(["acme", "zeta", "tenants", "payload_secret_file", "hosts", "tokens"])
_documents = st.recursive(
    _scalars | st.none() | st.integers(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(_keys | _scalars, each, max_size=3),
    max_leaves=12,
)


@settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], deadline=None
)
@given(_documents.map(yaml.safe_dump) | st.text())
def test_any_text_is_read_or_refused_with_places(place: Place, text: str) -> None:
    faults: Sequence[Fault] = ()
    try:
        place.read(text)
    except TenantsError as error:
        faults = error.faults
    assert all(fault.line > 0 and fault.column > 0 for fault in faults)


def write_credentials(place: Place) -> None:
    for name, word in (("acme.json", "YTpi"), ("other.json", "YzpkCg==")):
        text = json.dumps({"auths": {"r.example.com": {"auth": word}}})
        (place.path.parent / name).write_text(text)


POOLS = """\
tenants:
  acme: {payload_secret_file: acme, registry_config: acme.json, buildkit_url: "tcp://acme:1234"}
  zeta: {payload_secret_file: zeta, registry_config: other.json, buildkit_url: "tcp://ZETA:1234"}
"""


def test_credentials_may_differ_where_buildkits_do(place: Place) -> None:
    write_credentials(place)
    found = place.read(POOLS)
    assert found.buildkit_urls == {"acme": "tcp://acme:1234", "zeta": "tcp://ZETA:1234"}
    assert "zeta" in found.by_name
    (fault,) = place.faults(
        POOLS.replace(', buildkit_url: "tcp://acme:1234"', "").replace(
            ', buildkit_url: "tcp://ZETA:1234"', ""
        )
    )
    assert "acme has other credentials for r.example.com" in fault


def test_a_buildkit_of_ones_own_is_no_others(place: Place) -> None:
    write_credentials(place)
    shared = POOLS.replace("ZETA", "acme").replace("other.json", "acme.json")
    (fault,) = place.faults(shared)
    assert "line 3" in fault
    assert "also that of acme: name one that is zeta's alone" in fault
    own = "tenants: {default: {buildkit_url: 'tcp://a:1'}}"
    assert "default has the builder's own BuildKits" in place.faults(own)[0]
    assert "not an address of BuildKit" in place.faults(entry("buildkit_url: 'ftp://a'"))[0]
    place.write(entry("buildkit_url: 'tcp://b:1'"))
    with pytest.raises(TenantsError, match="this BuildKit is the builder's own"):
        read_tenants(place.path, Files(), [OWN], buildkit_url="tcp://a:1,tcp://b:1")
    assert read_tenants(place.path, Files(), [OWN], buildkit_url="dns://b:1").by_name["acme"]


def test_a_policy_is_read_with_the_places_of_its_own(place: Place) -> None:
    policy = place.path.parent / "policy.json"
    policy.write_text(
        '{"rules": [{"action": "ALLOW", "selector": {"identifier": "docker-image://r.io/*"}}]}'
    )
    rules = place.read(entry("policy: policy.json")).by_name["acme"].policy
    assert [str(each) for each in rules] == ["docker-image://r.io/*"]
    with pytest.raises(TenantsError, match=r"line 4, column 13: .*may then only DENY and CONVERT"):
        read_tenants(place.path, Files(), [OWN], SourcePolicy(rules))
    policy.write_text('{"rules": [{"action": "NONE"}]}')
    assert len(place.faults(entry("policy: policy.json"))) == 2
    (fault,) = place.faults(entry("policy: absent.json"))
    assert "cannot be read" in fault
