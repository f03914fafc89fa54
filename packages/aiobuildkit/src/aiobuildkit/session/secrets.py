"""Build secrets, which BuildKit requests from the session for `RUN --mount=type=secret`."""

from __future__ import annotations

from collections.abc import Mapping

from aiobuildkit.errors import RPCError, StatusCode
from aiobuildkit.protos.session_pb2 import GetSecretRequest, GetSecretResponse
from aiobuildkit.session.session import Handler, unary

__all__ = ["Secrets"]


class Secrets:
    """Serves BuildKit's `Secrets`.

    Args:
        values: secrets by ID. For an unknown ID, BuildKit leaves out the mount, or fails the step
            if the mount is `required`.
    """

    def __init__(self, values: Mapping[str, bytes]) -> None:
        self._values = dict(values)

    def handlers(self) -> Mapping[str, Handler]:
        """`GetSecret`."""
        return {"/moby.buildkit.secrets.v1.Secrets/GetSecret": unary(GetSecretRequest, self._get)}

    async def _get(self, request: GetSecretRequest) -> GetSecretResponse:
        name = request.id.decode("utf-8", "replace")
        try:
            return GetSecretResponse(data=self._values[name])
        except KeyError:
            raise RPCError(StatusCode.NOT_FOUND, f"no secret {name!r}") from None
