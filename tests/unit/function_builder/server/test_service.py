"""What the endpoints share."""

import asyncio

import pytest

from function_builder.builds.build import Build, Outcome
from function_builder.policy.checks import checked
from function_builder.server.spool import Spool, SpoolSpace
from tests.support.build_requests import build_request
from tests.support.requests import make_tar
from tests.support.services import idle_service


async def test_a_build_that_is_cancelled_has_an_end(tmp_path):
    service = idle_service(tmp_path)
    build = Build(build_request())
    with service.slots.place() as place:
        task = asyncio.create_task(service.run(build, place))
        await asyncio.sleep(0)
        task.cancel("its client went away")
        await asyncio.wait([task], timeout=60)
    assert build.result is not None
    assert build.outcome is Outcome.CANCELLED
    assert not service.running


async def test_a_build_without_buildkit_is_told_so(tmp_path):
    service = idle_service(tmp_path)
    build = Build(build_request())
    with service.slots.place() as place:
        await asyncio.wait([asyncio.create_task(service.run(build, place))], timeout=60)
    assert build.outcome is Outcome.UNREACHABLE


async def test_no_build_is_begun_once_the_service_ends(tmp_path):
    service = idle_service(tmp_path)
    build = Build(build_request())
    with service.slots.place() as place:
        task = asyncio.create_task(service.run(build, place))
        service.end("the builder is shutting down")
        await asyncio.wait([task], timeout=60)
    assert build.refusal is not None
    assert build.refusal.status == 503


@pytest.mark.parametrize("ready_when_full", [False, True])
async def test_readiness_while_every_slot_is_taken(tmp_path, ready_when_full):
    service = idle_service(tmp_path, max_inflight=1, ready_when_full=ready_when_full)
    with service.slots.place():
        because = service.unready_because()
    # BuildKit is not there, but that is looked at last.
    assert ("every build slot is taken" in because) is not ready_when_full


@pytest.mark.parametrize(
    ("dockerfile", "named"),
    [("FROM scratch\n", False), ("ARG SOURCE_DATE_EPOCH=0\nFROM scratch\n", True)],
)
def test_a_dockerfile_may_name_its_epoch(tmp_path, dockerfile: str, named: bool):
    body = make_tar({"Dockerfile": dockerfile}, {"image": "r/f:1"})
    spool = Spool(SpoolSpace(tmp_path, 0))
    spool.append([body])
    found = checked(spool, idle_service(tmp_path).settings, None, "domain")
    assert found.names_epoch is named
