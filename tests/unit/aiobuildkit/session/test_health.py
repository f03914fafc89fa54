from aiobuildkit.protos import session_pb2 as pb
from tests.unit.aiobuildkit.sessions import in_session


async def test_health_is_answered_at_once(tmp_path):
    async with in_session(tmp_path) as wire:
        call = await wire.ask("/grpc.health.v1.Health/Check", b"")
        reply = pb.HealthCheckResponse.FromString(await call.receive() or b"")
        assert reply.status == pb.HealthCheckResponse.SERVING
        assert call.trailers["grpc-status"] == "0"
