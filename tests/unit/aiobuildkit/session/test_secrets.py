import pytest

from aiobuildkit import Secrets, StatusCode
from aiobuildkit.protos import session_pb2 as pb
from tests.unit.aiobuildkit.sessions import asked


@pytest.mark.parametrize(("name", "value"), [("a", b"\0\xff"), ("empty", b"")])
async def test_secrets_are_given_by_id(tmp_path, name, value):
    request = pb.GetSecretRequest(id=name.encode()).SerializeToString()
    secrets = Secrets({"a": b"\0\xff", "empty": b""})
    call = await asked(tmp_path, secrets, "/moby.buildkit.secrets.v1.Secrets/GetSecret", request)
    assert pb.GetSecretResponse.FromString(await call.receive() or b"").data == value


@pytest.mark.parametrize("name", [b"b", b"\xff"])
async def test_an_unknown_secret_is_not_found(tmp_path, name):
    request = pb.GetSecretRequest(id=name).SerializeToString()
    method = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
    call = await asked(tmp_path, Secrets({"a": b""}), method, request)
    assert call.trailers["grpc-status"] == str(StatusCode.NOT_FOUND.value)


async def test_a_request_that_cannot_be_read_is_an_invalid_argument(tmp_path):
    method = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
    call = await asked(tmp_path, Secrets({}), method, b"\xff\xff")
    assert call.trailers["grpc-status"] == str(StatusCode.INVALID_ARGUMENT.value)
