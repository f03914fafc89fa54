"""Which OIDC tokens a tenants file gives to which tenant."""

from functools import partial
from typing import Any

import pytest

from function_builder.contract.tenancy import Scope
from function_builder.oidc.trust import ClaimPath, Issuer, Trust, TrustIndex, claim_values
from tests.unit.function_builder.tenants.conftest import Place

GITHUB = "issuer: https://token.actions.example.com, audience: builder"


def file(acme: str, zeta: str = "") -> str:
    lines = f"tenants:\n  acme: {{oidc: [{{{acme}}}]}}\n"
    return lines + (f"  zeta: {{oidc: [{{{zeta}}}]}}\n" if zeta else "")


def test_a_token_is_the_tenants_whose_claims_it_has(place: Place) -> None:
    tenants = place.read(
        file(
            f"{GITHUB}, claims: {{repository_owner: [acme, acme-labs], private: true}}",
            f"{GITHUB}, claims: {{repository_owner: zeta, k8s: {{sa: {{name: ci}}}}}}"
            ", scopes: read",
        )
    )
    said: dict[str, Any] = {"iss": "https://token.actions.example.com", "aud": ["x", "builder"]}
    acme = said | {"repository_owner": "acme-labs", "private": True}
    zeta = said | {"repository_owner": ["a", "zeta"], "k8s": {"sa": {"name": "ci"}}}
    (mine,) = tenants.of_claims(acme)["acme"]
    (theirs,) = tenants.of_claims(zeta)["zeta"]
    assert mine.scopes == set(Scope)
    assert theirs.scopes == {Scope.READ}
    assert tenants.scopes("zeta", [mine.id, theirs.id]) == {Scope.READ}
    assert tenants.scopes("absent", [mine.id]) == frozenset()
    both = acme | zeta | {"repository_owner": ["acme", "zeta"]}
    assert set(tenants.of_claims(both)) == {"acme", "zeta"}
    for wrong in (
        {"aud": "build"},
        {"aud": None},
        {"aud": {"builder": 1}},
        {"iss": "https://other.example.com"},
        {"private": False},
        {"private": None},
        {"repository_owner": "ACME"},
        {"repository_owner": {"acme": 1}},
    ):
        assert tenants.of_claims(acme | wrong) == {}
    for k8s in (None, "sa", {"sa": "ci"}, {"sa": {"name": {"ci": 1}}}):
        assert tenants.of_claims(zeta | {"k8s": k8s}) == {}
    (issuer,) = tenants.issuers
    assert issuer.url == "https://token.actions.example.com"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("issuer: https://a.example", "line 2, column 17: audience and claims are absent"),
        (f"{GITHUB}, claims: {{}}", "must name a claim"),
        (f"{GITHUB}, claims: {{a: {{}}}}", "must name a claim"),
        (f"{GITHUB}, claims: [a]", "must be a mapping"),
        (f"{GITHUB}, claims: {{ref: refs/heads/*}}", 'a claim must be "refs/heads/*" exactly'),
        (f"{GITHUB}, claims: &a {{b: *a}}", "a claim has at most 8 names from the token's top"),
        (f"{GITHUB}, claims: {{a: []}}", "must be a list that is not empty"),
        (f"{GITHUB}, claims: {{a: b}}, scopes: all", '"all" is not a scope'),
        (f"{GITHUB}, claim: {{a: b}}", '"claim" is unknown: did you mean claims?'),
        ("issuer: a, audience: b, claims: {c: d}", '"a" must be a URL such as https://'),
        ("issuer: http://a.example, audience: b, claims: {c: d}", "must begin with https://"),
        ("issuer: 'https://a.example?b', audience: b, claims: {c: d}", "without query"),
        ("issuer: 'https://u@a.example', audience: b, claims: {c: d}", "must be a URL"),
        ("issuer: 'https://[a', audience: b, claims: {c: d}", "must be a URL"),
        (f"{GITHUB}, claims: {{a: b}}, jwks_uri: http://a.example/k", "must begin with https://"),
        (f"{GITHUB}, claims: {{a: b}}, ca_file: absent", '"absent" cannot be read: No such file'),
        (f"{GITHUB}, claims: {{a: b}}, ca_file: acme", '"acme" cannot be read: it has no cert'),
        (f"{GITHUB}, claims: {{a: b}}, token_file: absent", '"absent" is not a file'),
    ],
)
def test_what_is_wrong_is_named_with_its_place(place: Place, text: str, fault: str) -> None:
    (found,) = place.faults(file(text))
    assert fault in found


@pytest.mark.parametrize(
    ("acme", "zeta", "fault"),
    [
        ("claims: {a: b}", "claims: {a: b}", "a token can be that of acme too"),
        ("claims: {a: [b, c]}", "claims: {a: [c, d]}", "a token can be that of acme too"),
        ("claims: {a: b}", "claims: {c: d}", "a token can be that of acme too"),
        ("claims: {a: b, c: d}", "claims: {a: b}", "a token can be that of acme too"),
        ("claims: {a: b}", "claims: {a: c}, token_file: own", "the issuer has another jwks_uri"),
    ],
)
def test_two_tenants_of_one_token_are_refused(
    place: Place, acme: str, zeta: str, fault: str
) -> None:
    (found,) = place.faults(file(f"{GITHUB}, {acme}", f"{GITHUB}, {zeta}"))
    assert found.startswith("line 3, ")
    assert fault in found


def test_an_audience_or_a_claim_tells_tenants_apart(place: Place) -> None:
    place.read(file(f"{GITHUB}, claims: {{a: b}}", f"{GITHUB}2, claims: {{a: b}}"))
    place.read(file(f"{GITHUB}, claims: {{a: b, c: d}}", f"{GITHUB}, claims: {{a: b, c: e}}"))


def test_a_trust_is_compared_with_those_that_share_its_rarest_claim() -> None:
    """With 1,000 tenants of one issuer, all pairs would be half a million comparisons."""
    index, issuer = TrustIndex(), Issuer("https://a.example")
    for number in range(1000):
        claims: dict[ClaimPath, frozenset[str]] = {
            ("owner",): frozenset({f"t{number}"}),
            ("ref",): frozenset({"main"}),
        }
        assert not list(index.candidates(issuer.url, claims.get))
        index.add(f"t{number}", Trust(issuer, "builder", claims, frozenset()))
    token = partial(claim_values, {"owner": ["t7", "t8"], "ref": "main"})
    assert {owner for owner, _ in index.candidates(issuer.url, token)} == {"t7", "t8"}
    assert not list(index.candidates(issuer.url, partial(claim_values, {"ref": "main"})))
    assert not list(index.candidates("https://b.example", token))
    only_ref: dict[ClaimPath, frozenset[str]] = {("ref",): frozenset({"main"})}
    assert len(list(index.candidates(issuer.url, only_ref.get))) == 1000
