"""Tokens: what a service is asked by which method, and what is made of any answer."""

import asyncio
import base64
import json
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiobuildkit import Credentials, HTTPRequest, HTTPResponse, RPCError, Tokens
from aiobuildkit.session import tokens as module
from aiobuildkit.session.token_messages import TokenRequest

BOB = Credentials("bob", "p w:ä&=")
IDENTITY = Credentials("", "refresh me")
SCOPES = ("repository:a/b:pull", "repository:c/d:pull,push")
REQUEST = TokenRequest("r.test", "https://auth.test/token?account=x", "r.test", SCOPES)
TOKEN = HTTPResponse(200, b'{"token": "good", "expires_in": 300}')
NOT_SERVED = HTTPResponse(404, b"<html>")


class Service:
    """Gives these answers by method, in order, the last one over and over; notes the requests."""

    def __init__(self, **answers: HTTPResponse | OSError | list[HTTPResponse | OSError]) -> None:
        self._answers = {
            method: list(given) if isinstance(given, list) else [given]
            for method, given in answers.items()
        }
        self.requests: list[HTTPRequest] = []

    async def send(self, request: HTTPRequest) -> HTTPResponse:
        self.requests.append(request)
        answers = self._answers[request.method]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer

    @property
    def methods(self) -> list[str]:
        return [request.method for request in self.requests]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(module, "_PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.0)


async def fetched(service: Service, credentials: Credentials | None = BOB) -> str:
    return (await Tokens(service.send).fetch(REQUEST, credentials)).value


async def failure(service: Service, credentials: Credentials | None = BOB) -> str:
    with pytest.raises(RPCError) as caught:
        await Tokens(service.send).fetch(REQUEST, credentials)
    text = str(caught.value)
    assert credentials is None or credentials.secret not in text
    return text


async def test_a_password_is_posted_as_a_form():
    service = Service(POST=HTTPResponse(200, b'{"access_token": "good"}'))
    assert await fetched(service) == "good"
    (request,) = service.requests
    assert request.url == REQUEST.realm
    assert {name: value for name, (value,) in parse_qs(request.body.decode()).items()} == {
        "grant_type": "password",
        "service": "r.test",
        "client_id": "buildkit-client",
        "scope": " ".join(SCOPES),
        "username": "bob",
        "password": "p w:ä&=",
    }


async def test_an_identity_token_is_posted_as_a_refresh_token():
    service = Service(POST=HTTPResponse(200, b'{"access_token": "good"}'))
    assert await fetched(service, IDENTITY) == "good"
    form = parse_qs(service.requests[0].body.decode())
    assert (form["grant_type"], form["refresh_token"]) == (["refresh_token"], ["refresh me"])
    assert "password" not in form


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 405, 501, 500])
async def test_a_password_is_offered_by_get_where_post_is_not_served(status):
    service = Service(POST=HTTPResponse(status, b"<html>"), GET=TOKEN)
    assert await fetched(service) == "good"
    request = service.requests[-1]
    query = parse_qs(urlsplit(request.url).query)
    assert query == {"account": ["x"], "service": ["r.test"], "scope": list(SCOPES)}
    encoded = request.headers["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(encoded).decode() == "bob:p w:ä&="


async def test_a_page_of_the_web_is_no_token():
    page = HTTPResponse(200, b"<html>sign on</html>")
    assert await fetched(Service(POST=page, GET=TOKEN)) == "good"
    assert "no token in the answer from GET" in await failure(Service(POST=page, GET=page))


@pytest.mark.parametrize(("status", "methods"), [(405, 1), (400, 1), (404, 2), (401, 2)])
async def test_an_identity_token_is_no_password(status, methods):
    """By GET it may be answered as if it came from anybody, so only where JFrog's may serve."""
    service = Service(POST=HTTPResponse(status), GET=HTTPResponse(400))
    await failure(service, IDENTITY)
    assert len(service.methods) == methods


async def test_without_credentials_the_get_is_anonymous():
    service = Service(GET=TOKEN)
    assert await fetched(service, None) == "good"
    assert "Authorization" not in service.requests[0].headers


async def test_a_registry_token_asks_nobody():
    given = Credentials("bob", "password", registry_token="static")
    assert (await Tokens().fetch(REQUEST, given)).value == "static"


async def test_a_bad_moment_is_waited_for():
    service = Service(POST=[HTTPResponse(503, retry_after=9), HTTPResponse(429), TOKEN])
    assert await fetched(service) == "good"
    assert await fetched(Service(POST=[ConnectionResetError(), TOKEN])) == "good"
    with pytest.raises(ConnectionRefusedError):
        await fetched(Service(POST=ConnectionRefusedError()))
    slow = Service(POST=TimeoutError())
    with pytest.raises(TimeoutError):
        await fetched(slow)
    assert len(slow.requests) == 1


async def test_a_service_that_never_answers_has_a_bound():
    async def silent(_: HTTPRequest) -> HTTPResponse:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(TimeoutError):
        await Tokens(silent, fetch_timeout=0.01).fetch(REQUEST, BOB)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"errors": [{"code": "UNAUTHORIZED", "message": "no"}]}', "401 Unauthorized: unauth"),
        (b'{"error": "invalid_grant", "error_description": "a\\nb"}', ": invalid_grant: a b"),
        (b'{"details": "incorrect username or password"}', ": incorrect username or password"),
        (json.dumps({"error": f"you sent {BOB.secret}"}).encode(), ": you sent ***"),
        (json.dumps({"error": "Ym9iOnAgdzrDpCY9"}).encode(), ": ***"),
        (b'{"errors": [7]}', "401 Unauthorized"),
        (b'{"error": "' + b"x" * 5000 + b'"}', "401 Unauthorized: xxx"),
        (b"[" * 100_000, "401 Unauthorized"),
    ],
    ids=range(8),
)
async def test_the_error_has_the_services_words_and_no_secret(body, said):
    text = await failure(Service(POST=NOT_SERVED, GET=HTTPResponse(401, body)))
    where = "unexpected status from GET request to https://auth.test/token: "
    assert text.startswith(f"failed to fetch oauth token: {where}")
    assert said in text
    assert len(text) < 500


@pytest.mark.parametrize("realm", ["", "file:///etc/passwd", "token", "http://", "http://[x"])
async def test_a_realm_that_is_no_web_address_is_refused(realm):
    request = TokenRequest("r.test", realm, "", ())
    with pytest.raises(RPCError, match=r"the registry r\.test names a token service"):
        await Tokens(Service().send).fetch(request, BOB)


@pytest.mark.parametrize(
    "token", ["", "a\r\nX: y", "ä", 7, None, "x" * (64 * 1024 + 1)], ids=range(6)
)
async def test_what_no_header_can_hold_is_no_token(token):
    answer = HTTPResponse(200, json.dumps({"token": token}).encode())
    assert "no token" in await failure(Service(POST=NOT_SERVED, GET=answer))


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize(
    ("answer", "least", "most"),
    [
        ({}, 60, 60),
        ({"expires_in": 0}, 60, 60),
        ({"expires_in": -5}, 60, 60),
        ({"expires_in": 300}, 300, 300),
        ({"expires_in": "300"}, 300, 300),
        ({"expires_in": 1e300}, 86400, 86400),
        ({"expires_in": []}, 60, 60),
        # The test runs minutes after its parameters are made, so it makes these times itself.
        ({"expires_in": 300, "issued_at": partial(ago, 100)}, 100, 200),
        ({"expires_in": 300, "issued_at": partial(ago, 10_000)}, 10, 10),
        ({"expires_in": 300, "issued_at": partial(ago, -10_000)}, 300, 300),
        ({"expires_in": 300, "issued_at": "yesterday"}, 300, 300),
        ({"expires_in": 300, "issued_at": 7}, 300, 300),
    ],
)
async def test_how_long_buildkit_may_keep_it(answer, least, most):
    told = {name: value() if callable(value) else value for name, value in answer.items()}
    body = json.dumps({"token": "good", **told}).encode()
    token = await Tokens(Service(POST=HTTPResponse(200, body)).send).fetch(REQUEST, BOB)
    assert least <= token.expires_in <= most


async def test_which_hosts_tokens_are_served_for(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now, time=time.time))
    tokens = Tokens(Service().send)
    assert tokens.serves("r", BOB)
    assert not tokens.serves("r", None)
    assert not tokens.serves("r", Credentials("bob", ""))
    assert not Tokens().serves("r", BOB)
    assert Tokens().serves("r", Credentials("", "", registry_token="t"))
    tokens.leave("r")
    assert not tokens.serves("r", BOB)
    assert tokens.serves("other", BOB)
    now += module.UNREACHABLE_SECONDS + 1
    assert tokens.serves("r", BOB)


def test_the_authority_follows_credentials_host_and_salt():
    tokens = Tokens()
    keys = [
        bytes(tokens.authority(host, salt, credentials))
        for host in ("r", "r2")
        for salt in (b"1", b"2")
        for credentials in (BOB, Credentials("bob", "other"), Credentials("bo", "bp w:ä&="))
    ]
    assert len(set(keys)) == len(keys)
    assert bytes(tokens.authority("r", b"1", BOB)) == keys[0]
    assert bytes(Tokens().authority("r", b"1", BOB)) != keys[0]


def test_nothing_shows_its_secret():
    request = HTTPRequest("POST", "u", {"Authorization": "swordfish"}, b"swordfish")
    shown = [Credentials("u", "swordfish", "swordfish"), request, HTTPResponse(200, b"swordfish")]
    assert "swordfish" not in repr(shown)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(["token", "access_token", "expires_in", "issued_at", "errors", "error"])
BODIES = st.dictionaries(KEYS, JSON).map(lambda body: json.dumps(body).encode()) | st.binary()


@given(st.integers(100, 599), BODIES)
def test_any_answer_is_a_token_or_an_error(status, body):
    async def run() -> None:
        service = Service(POST=HTTPResponse(status, body), GET=HTTPResponse(status, body))
        try:
            token = await Tokens(service.send).fetch(REQUEST, BOB)
        except RPCError as error:
            said.append(str(error))
        else:
            assert token.value.isprintable()
            assert 10 <= token.expires_in <= 86400

    said: list[str] = []
    before = module._PAUSES, module._LONGEST_PAUSE
    module._PAUSES, module._LONGEST_PAUSE = (0.0, 0.0, 0.0), 0.0  # type: ignore[misc]
    try:
        asyncio.run(run())
    finally:
        module._PAUSES, module._LONGEST_PAUSE = before  # type: ignore[misc]
    assert all(text.isprintable() for text in said)
