"""What the endpoints share."""

import asyncio
from types import SimpleNamespace

from function_builder.builds.build import Build, BuildRequest, Outcome
from function_builder.contract.config import BuildConfig
from tests.services import idle_service


def request() -> BuildRequest:
    return BuildRequest(
        config=BuildConfig(skip_push=True),
        reader=SimpleNamespace(size=0, read=lambda *_: b""),
        context=[],
        digests=[],
        frontend={},
        secrets={},
        trust_domain="open",
    )


async def test_a_build_that_is_cancelled_before_its_first_step_has_an_end(tmp_path):
    service = idle_service(tmp_path)
    build = Build(request())
    task = service.start(build)
    service.cancel_builds("the builder is shutting down")
    await asyncio.wait([task], timeout=5)
    assert build.result is not None
    assert build.outcome is Outcome.CANCELLED
    assert not service.running


async def test_a_build_without_buildkit_is_told_so(tmp_path):
    service = idle_service(tmp_path)
    build = Build(request())
    await asyncio.wait([service.start(build)], timeout=5)
    assert build.outcome is Outcome.UNREACHABLE
