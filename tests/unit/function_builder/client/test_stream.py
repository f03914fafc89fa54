import json
from collections.abc import AsyncIterator

from function_builder.client.runtime import Answer, Request
from function_builder.client.stream import STREAM_TYPE, BuildStream
from function_builder.client.verifier import Verifier


class Received:
    """An answer that is here."""

    request = Request("POST", "http://builder/build", {})
    status_code = 200

    def __init__(self, *objects: dict[str, object]) -> None:
        self.headers = {"content-type": STREAM_TYPE}
        self._body = "".join(f"{json.dumps(each)}\n" for each in objects).encode()

    async def aread(self) -> bytes:
        return self._body

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        yield self._body

    async def aclose(self) -> None:
        pass


def unsigned() -> Verifier:
    return Verifier(None, required=False)


async def test_a_stream_goes_on_with_a_full_request_if_buildkit_lost_what_was_not_sent() -> None:
    """Its steps follow those of the first attempt, so that a view does not take them for one."""
    progress = {"status": "in_progress", "duration": 1}
    lost = {"status": "failed", "error": "lost", "duration": 2, "missing": [[1, 3]]}
    first = Received(progress | {"log": ["a", "b"], "steps": ["1 started", "2"]}, lost)
    second = Received(
        progress | {"log": ["c"], "steps": ["1 cached"]}, {"status": "success", "duration": 3}
    )
    requests = []

    async def again() -> tuple[Answer, Verifier]:
        requests.append(1)
        return second, unsigned()

    stream = BuildStream(first, unsigned(), again)
    found = [pair async for event in stream for pair in zip(event.log, event.steps, strict=True)]
    assert found == [("a", "1 started"), ("b", "2"), ("c", "3 cached")]
    assert (await stream.result()).raise_for_status().duration == 3
    assert requests == [1]
