"""How the keys of an issuer are read and kept, from a real server."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from function_builder.oidc import fetch, issuers
from function_builder.oidc.fetch import IssuerError, fetch_keys
from function_builder.oidc.issuers import FLOOR_SECONDS, FRESH_SECONDS, KEPT_SECONDS, IssuerKeys
from function_builder.oidc.keys import Rejected
from function_builder.oidc.trust import Issuer as Trusted
from tests.support.issuer import Issuer, as_json

DISCOVERY = "/.well-known/openid-configuration"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def settled(keys: IssuerKeys) -> None:
    if keys._task is not None:
        await asyncio.wait([keys._task])


async def test_keys_are_found_by_discovery(issuer: Issuer) -> None:
    assert set(await fetch_keys(Trusted(issuer.url))) == {"one"}
    assert issuer.asked == [DISCOVERY, "/jwks"]


async def test_a_named_place_of_keys_is_asked_alone_with_the_token(
    issuer: Issuer, tmp_path: Path
) -> None:
    """As Kubernetes' API server is, which lets no stranger read them."""
    sent: list[str | None] = []

    def answer(request: Any) -> Any:
        sent.append(request.headers["Authorization"])
        return as_json({"keys": [issuer.jwk("one")]})

    issuer.answers["/openid/v1/jwks"] = answer
    (tmp_path / "token").write_text("ours\n")
    named = f"{issuer.url}/openid/v1/jwks"
    trusted = Trusted("https://kubernetes.default.svc", named, token_file=tmp_path / "token")
    assert set(await fetch_keys(trusted)) == {"one"}
    assert (issuer.asked, sent) == (["/openid/v1/jwks"], ["Bearer ours"])


@pytest.mark.parametrize(
    ("path", "answer", "why"),
    [
        (DISCOVERY, (302, {"Location": "/jwks"}, b""), "answered 302"),
        (DISCOVERY, (404, {}, b""), "answered 404"),
        (DISCOVERY, as_json({"issuer": "https://other.example.com"}), "not that of this issuer"),
        (DISCOVERY, as_json([]), "not that of this issuer"),
        ("/jwks", (307, {"Location": "/other"}, b""), "answered 307"),
        ("/jwks", (200, {}, b"{"), "not JSON"),
        ("/jwks", (200, {}, fetch.MAX_ANSWER_BYTES * b" " + b"{}"), "more than 262144 bytes"),
        ("/jwks", as_json({"keys": []}), "no key that can verify"),
        ("/jwks", as_json({}), "not a JWK set"),
    ],
)
async def test_answers_that_cannot_be_used(
    issuer: Issuer, path: str, answer: Any, why: str
) -> None:
    issuer.answers[path] = lambda _: answer
    with pytest.raises(IssuerError, match=why):
        await fetch_keys(Trusted(issuer.url))
    assert set(issuer.asked) <= {DISCOVERY, "/jwks"}


@pytest.mark.parametrize(
    "uri",
    ["http://127.0.0.1:1/jwks", "https://169.254.169.254/", "file:///etc/passwd", "", None, 1],
)
async def test_only_the_issuers_own_host_is_asked(issuer: Issuer, uri: Any) -> None:
    issuer.answers[DISCOVERY] = lambda _: as_json(issuer.metadata() | {"jwks_uri": uri})
    with pytest.raises(IssuerError, match="not its own host"):
        await fetch_keys(Trusted(issuer.url))
    assert issuer.asked == [DISCOVERY]


async def test_an_answer_that_does_not_end_is_given_up(issuer: Issuer, monkeypatch) -> None:
    monkeypatch.setattr(fetch, "ANSWER_SECONDS", 0.05)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def wait() -> None:
        await ended.wait()

    def answer(_: Any) -> Any:
        asyncio.run_coroutine_threadsafe(wait(), loop).result(10)
        return 200, {}, b""

    issuer.answers[DISCOVERY] = answer
    with pytest.raises(IssuerError, match="TimeoutError"):
        await fetch_keys(Trusted(issuer.url))
    ended.set()


async def test_a_new_key_is_read_when_a_token_needs_it_but_not_in_a_storm(issuer: Issuer) -> None:
    clock = Clock()
    keys = IssuerKeys(Trusted(issuer.url), clock=clock)
    assert await keys.find("one")
    issuer.add_key("two")
    for number in range(50):
        assert await keys.find(f"unknown {number}") is None
    assert await keys.find("two") is None
    assert issuer.asked.count("/jwks") == 1
    clock.now += FLOOR_SECONDS
    found = await asyncio.gather(*(keys.find(kid) for kid in ("x", "two", "y", "two")))
    assert [bool(each) for each in found] == [False, True, False, True]
    assert issuer.asked.count("/jwks") == 2


async def test_known_keys_stay_while_the_issuer_does_not_answer_for_a_day(issuer: Issuer) -> None:
    clock, failed = Clock(), list[str]()
    keys = IssuerKeys(Trusted(issuer.url), clock=clock, failed=failed.append)
    clock.now += 5
    assert keys.age == 5
    assert await keys.find("one")
    assert (keys.age, failed) == (0, [])
    issuer.answers["/jwks"] = lambda _: (503, {}, b"")
    clock.now += FRESH_SECONDS
    keys.refresh()
    await settled(keys)
    assert await keys.find("one")
    assert (keys.age, failed) == (FRESH_SECONDS, [issuer.url])
    clock.now += KEPT_SECONDS
    assert await keys.find("one") is None
    assert issuer.asked.count("/jwks") == 3


async def test_a_key_that_the_issuer_removed_is_forgotten(issuer: Issuer) -> None:
    clock = Clock()
    keys = IssuerKeys(Trusted(issuer.url), clock=clock)
    assert await keys.find("one")
    assert await keys.find("")
    issuer.add_key("two")
    del issuer.keys["one"]
    clock.now += FRESH_SECONDS - 1
    keys.refresh()
    assert keys._task is None
    clock.now += 1
    keys.refresh()
    await settled(keys)
    assert await keys.find("one") is None
    assert await keys.find("two")


async def test_issuers_are_those_in_force(issuer: Issuer) -> None:
    trusted = issuers.Issuers()
    trusted.use([Trusted(issuer.url)])
    assert (await trusted.verify(issuer.token()))["iss"] == issuer.url
    trusted.use([Trusted(issuer.url), Trusted("https://other.example.com")])
    await trusted.verify(issuer.token())
    assert issuer.asked.count("/jwks") == 1
    with pytest.raises(Rejected, match="no key"):
        await trusted.verify(issuer.token(header={"kid": "../one"}))
    trusted.close()
    with pytest.raises(Rejected, match="is not trusted"):
        await trusted.verify(issuer.token())
