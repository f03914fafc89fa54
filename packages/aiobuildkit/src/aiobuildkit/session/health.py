"""The health check of a session: BuildKit calls it every few seconds; two failures end it."""

from __future__ import annotations

from collections.abc import Mapping

from aiobuildkit.protos.session_pb2 import HealthCheckRequest, HealthCheckResponse
from aiobuildkit.session.session import Handler, unary

__all__ = ["Health"]


class Health:
    """Serves `grpc.health.v1.Health`. It always answers SERVING."""

    def handlers(self) -> Mapping[str, Handler]:
        """The one method that BuildKit calls."""
        return {"/grpc.health.v1.Health/Check": unary(HealthCheckRequest, self._check)}

    async def _check(self, _request: HealthCheckRequest) -> HealthCheckResponse:
        return HealthCheckResponse(status=HealthCheckResponse.SERVING)
