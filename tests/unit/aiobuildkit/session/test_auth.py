import asyncio
from urllib.parse import unquote

import pytest
from google.protobuf.message import Message
from nacl.signing import VerifyKey

from aiobuildkit import Auth, Credentials, HTTPRequest, HTTPResponse, StatusCode, Tokens
from aiobuildkit.protos import session_pb2 as pb
from aiobuildkit.session import tokens as tokens_module
from tests.unit.aiobuildkit.fake_buildkit import Call
from tests.unit.aiobuildkit.sessions import asked


async def look_up_later(host: str) -> Credentials | None:
    await asyncio.sleep(0)
    return Credentials("user", f"secret of {host}") if host == "known:5000" else None


def look_up_now(host: str) -> Credentials | None:
    return Credentials("user", f"secret of {host}") if host == "known:5000" else None


@pytest.mark.parametrize("lookup", [look_up_now, look_up_later])
@pytest.mark.parametrize(
    ("host", "username", "secret"),
    [("known:5000", "user", "secret of known:5000"), ("unknown", "", "")],
)
async def test_credentials_are_looked_up_by_host(tmp_path, lookup, host, username, secret):
    request = pb.CredentialsRequest(host=host).SerializeToString()
    method = "/moby.filesync.v1.Auth/Credentials"
    call = await asked(tmp_path, Auth(lookup), method, request)
    reply = pb.CredentialsResponse.FromString(await call.receive() or b"")
    assert (reply.username, reply.secret) == (username, secret)


def test_credentials_do_not_show_their_secret():
    assert "swordfish" not in repr(Credentials("user", "swordfish"))


SALT = b"salt of the daemon"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(tokens_module, "_PAUSES", (0.0,))


class Service:
    """A token service that gives a token, or fails as it is told."""

    def __init__(self, answer: HTTPResponse | OSError) -> None:
        self.answer = answer

    async def send(self, _: HTTPRequest) -> HTTPResponse:
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer


GIVEN = HTTPResponse(200, b'{"access_token": "good", "expires_in": 300}')
REFUSED = HTTPResponse(400, b'{"error": "invalid_grant"}')


async def answer(tmp_path, auth: Auth, name: str, request: Message) -> Call:
    method = f"/moby.filesync.v1.Auth/{name}"
    return await asked(tmp_path, auth, method, request.SerializeToString())


async def fetch(tmp_path, auth: Auth, scope: str, host: str = "known:5000") -> Call:
    request = pb.FetchTokenRequest(
        client_id="buildkit-client", host=host, realm="http://auth/token", scopes=[scope]
    )
    return await answer(tmp_path, auth, "FetchToken", request)


async def authority(tmp_path, auth: Auth, host: str = "known:5000") -> bytes:
    """The key that BuildKit is given; empty: it is to ask for credentials."""
    request = pb.GetTokenAuthorityRequest(host=host, salt=SALT)
    call = await answer(tmp_path, auth, "GetTokenAuthority", request)
    message = await call.receive()
    if message is None:
        assert int(call.trailers["grpc-status"]) == StatusCode.UNIMPLEMENTED
        return b""
    return pb.GetTokenAuthorityResponse.FromString(message).public_key


async def test_sessions_with_the_same_credentials_prove_that_they_are_one_authority(tmp_path):
    tokens = Tokens(Service(GIVEN).send)
    key = await authority(tmp_path, Auth(look_up_now, tokens=tokens))
    request = pb.VerifyTokenAuthorityRequest(host="known:5000", salt=SALT, payload=b"payload")
    later = Auth(look_up_later, tokens=tokens)
    call = await answer(tmp_path, later, "VerifyTokenAuthority", request)
    signed = pb.VerifyTokenAuthorityResponse.FromString(await call.receive() or b"").signed
    assert VerifyKey(key).verify(signed) == b"payload"
    rotated = Auth(lambda _: Credentials("user", "rotated"), tokens=tokens)
    assert await authority(tmp_path, rotated) not in (key, b"")


async def test_tokens_are_served_where_there_is_a_secret_to_keep_and_a_way_to_fetch_them(tmp_path):
    tokens = Tokens(Service(GIVEN).send)
    assert not await authority(tmp_path, Auth(look_up_now))
    assert not await authority(tmp_path, Auth(look_up_now, tokens=tokens), "unknown")
    static = Credentials("", "", registry_token="static")
    assert await authority(tmp_path, Auth(lambda _: static))


async def test_a_token_is_fetched_with_the_credentials_for_its_scopes(tmp_path):
    asked_for = []

    def look_up_scoped(host, scopes):
        asked_for.append((host, *scopes))
        return Credentials("", "", registry_token="scoped")

    auth = Auth(look_up_now, tokens=Tokens(Service(GIVEN).send), scoped_lookup=look_up_scoped)
    call = await fetch(tmp_path, auth, "repository:a/b:pull")
    reply = pb.FetchTokenResponse.FromString(await call.receive() or b"")
    assert (reply.token, reply.issued_at) == ("scoped", 0)
    assert asked_for == [("known:5000", "repository:a/b:pull")]
    call = await fetch(tmp_path, Auth(look_up_now, tokens=Tokens(Service(GIVEN).send)), "s:x:pull")
    reply = pb.FetchTokenResponse.FromString(await call.receive() or b"")
    assert (reply.token, reply.expires_in) == ("good", 300)


@pytest.mark.parametrize(
    ("trouble", "others_too"), [(ConnectionRefusedError("refused"), True), (REFUSED, False)]
)
async def test_a_host_without_a_token_is_left_to_buildkit(tmp_path, trouble, others_too):
    tokens = Tokens(Service(trouble).send)
    auth = Auth(look_up_now, tokens=tokens)
    assert await authority(tmp_path, auth)
    call = await fetch(tmp_path, auth, "repository:a/b:pull")
    assert await call.receive() is None
    assert list(auth.failures) == ["known:5000"]
    assert not await authority(tmp_path, auth)
    # Out of reach is out of reach for each session; a refusal may be due to this one's scopes.
    other = Auth(look_up_now, tokens=tokens)
    assert bool(await authority(tmp_path, other)) is not others_too


async def test_a_refused_push_says_what_was_pushed(tmp_path):
    auth = Auth(
        look_up_now,
        tokens=Tokens(Service(REFUSED).send),
        describe=lambda host, scopes: f"failed to push {host}/{scopes[0].split(':')[1]}:1",
    )
    call = await fetch(tmp_path, auth, "repository:a/b:pull,push")
    assert await call.receive() is None
    assert unquote(call.trailers["grpc-message"]).startswith(
        "failed to push known:5000/a/b:1: failed to authorize: failed to fetch oauth token: "
    )
    assert not auth.failures
