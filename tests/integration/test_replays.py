"""A request that was seen on its way is no key: `replay_window`, with real requests."""

import asyncio
import hashlib
import hmac
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from function_builder.client import AsyncClient, BuildConfig
from function_builder.contract.result import BuildStatus
from tests.support.builders import RunningBuilder, running_builder
from tests.support.requests import SECRET, headers, make_tar, signature

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
WINDOW = 60
BODY = make_tar({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}, {"skipPush": True})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(buildkitd: str, tmp_path_factory) -> AsyncIterator[RunningBuilder]:
    """A builder that takes a request once, and within a minute."""
    root = tmp_path_factory.mktemp("guarded")
    async with running_builder(root / "b", buildkitd, replay_window=f"{WINDOW}s") as builder:
        yield builder


def stamped(body: bytes, *, seconds: float | None = None, secret: str = SECRET) -> dict[str, str]:
    """Headers made by hand, as docs/api.md has them."""
    now = f"{time.time() if seconds is None else seconds:.6f}"
    text = f"{now} {signature(body)}"
    mac = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return headers(body) | {"X-Build-Timestamp": f"{now} sha256={mac}"}


async def post(http, builder: RunningBuilder, sent: dict[str, str], body: bytes = BODY):
    answer = await http.post(f"{builder.url}/build", content=body, headers=sent)
    return answer.status_code, answer.json().get("error", "")


async def test_a_request_is_built_once(guarded, http):
    first, second = stamped(BODY), stamped(BODY)
    assert await post(http, guarded, first) == (200, "")
    for streamed in ({}, {"Accept": "application/x-ndjson"}):
        code, error = await post(http, guarded, first | streamed)
        assert (code, error) == (
            401,
            "this request was already accepted: sign it again to build it again",
        )
    # The same body, signed again, is another request.
    assert await post(http, guarded, second) == (200, "")


async def test_of_twins_that_come_together_one_is_built(guarded, http):
    sent = stamped(BODY)
    answers = await asyncio.gather(*(post(http, guarded, sent) for _ in range(8)))
    assert sorted(code for code, _ in answers) == [200] + [401] * 7


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dict, "X-Build-Timestamp is absent or wrong"),
        (lambda: {"X-Build-Timestamp": f"{time.time():.0f}"}, "X-Build-Timestamp is absent or"),
        (
            lambda: stamped(BODY, seconds=time.time() - 9000),
            "s behind the builder's clock, and may",
        ),
        (lambda: stamped(BODY, seconds=time.time() + 9000), "s ahead of the builder's clock, and"),
        (lambda: stamped(BODY, secret="another"), "X-Build-Timestamp is absent or wrong"),
        (lambda: stamped(BODY + b"\0"), "X-Build-Signature is absent or wrong"),
    ],
)
async def test_another_request_is_refused_in_words(guarded, http, change, reason):
    code, error = await post(http, guarded, headers(BODY) | change())
    assert code == 401
    assert reason in error
    assert SECRET not in error
    # It used nothing up.
    assert await post(http, guarded, stamped(BODY)) == (200, "")


async def test_a_timestamp_is_no_other_bodys(guarded, http):
    """Whoever has seen a request cannot put its time on one that was seen before."""
    old = make_tar({"Dockerfile": "FROM scratch\nCOPY Dockerfile /old\n"}, {"skipPush": True})
    moved = headers(old) | {"X-Build-Timestamp": stamped(BODY)["X-Build-Timestamp"]}
    code, error = await post(http, guarded, moved, old)
    assert (code, "X-Build-Timestamp is absent or wrong" in error) == (401, True)


async def test_strangers_are_refused_before_they_have_sent_a_body(guarded):
    """The timestamp is proven by the headers: a stranger's body is not waited for."""
    host, port = guarded.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    sent = headers(BODY) | {"Host": "x", "Content-Length": "1000000"}
    lines = [f"{name}: {value}" for name, value in sent.items()]
    writer.write("\r\n".join(["POST /build HTTP/1.1", *lines, "", ""]).encode())
    assert await asyncio.wait_for(reader.readline(), 30) == b"HTTP/1.1 401 Unauthorized\r\n"
    writer.close()
    await writer.wait_closed()


async def test_our_client_stamps_each_request(guarded, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    config = BuildConfig(skip_push=True)
    async with AsyncClient(guarded.url, payload_secret=SECRET.encode()) as client:
        results = [await client.build(tmp_path, config) for _ in range(2)]
        async with client.stream(tmp_path, config) as build:
            results.append(await build.result())
    assert [result.status for result in results] == [BuildStatus.SUCCESS] * 3


async def test_the_pages_lines_of_shell_make_a_request(guarded, tmp_path):
    section = PAGE.read_text().partition("### When it was signed\n")[2].partition("\n### ")[0]
    (lines,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    (tmp_path / "req.tar").write_bytes(BODY)
    (tmp_path / "payload-secret").write_text(SECRET)
    script = lines.replace("http://127.0.0.1:8080", guarded.url)
    assert script != lines
    said = await asyncio.to_thread(
        subprocess.run, ["sh", "-euc", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert '"status":"success"' in said.stdout, said


async def test_a_builder_that_does_not_ask_takes_any(builder, http):
    """Old clients, and new ones of old builders: the header is no part of the signature."""
    sent = stamped(BODY, seconds=1) | {"X-Build-Timestamp": "yesterday"}
    for _ in range(2):
        assert await post(http, builder, sent) == (200, "")


def test_a_builder_that_checks_no_signature_cannot_look_for_replays(tmp_path):
    environment = {"disable_hmac": "true", "replay_window": "5m", "buildkit_url": "unix:///absent"}
    said = subprocess.run(
        [sys.executable, "-m", "function_builder", "serve"],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.returncode == 1
    assert "replay_window needs signatures" in said.stderr


async def test_a_request_that_waited_for_a_slot_in_vain_may_come_again_as_it_is(
    buildkitd, tmp_path, http, steps
):
    settings = {
        "replay_window": f"{WINDOW}s",
        "max_inflight": "1",
        "max_queue": "1",
        "queue_timeout": "0.5s",
    }
    async with running_builder(tmp_path / "b", buildkitd, **settings) as builder:
        busy = steps.body("busy")
        building = asyncio.create_task(post(http, builder, stamped(busy), busy))
        await steps.reached("busy")
        sent = stamped(BODY)
        answer = await http.post(f"{builder.url}/build", content=BODY, headers=sent)
        assert answer.status_code == 429
        await steps.let("busy")
        assert await building == (200, "")
        assert await post(http, builder, sent) == (200, "")
