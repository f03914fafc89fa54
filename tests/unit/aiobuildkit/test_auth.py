import asyncio

import pytest

from aiobuildkit import Auth, Credentials
from aiobuildkit.protos import session_pb2 as pb
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
