"""The examples of receivers, each with signed callbacks as the builder sends them."""

import asyncio
import contextlib
import dataclasses
import json
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from function_builder.contract.callback_url import CallbackHosts, CallbackURL
from function_builder.engine import find_tool
from function_builder.queue.outbound import Answer, Outbound
from function_builder.queue.webhooks import (
    CallbackKeys,
    EventType,
    Webhook,
    format_secret,
    make_body,
)
from tests.integration.clients.programs import EXAMPLES, JAVA
from tests.support import free_address, until

pytestmark = pytest.mark.integration

KEYS = CallbackKeys([bytes(range(32))], b"payload secret")
OLD = CallbackKeys([bytes(24)], b"payload secret")
RECEIVERS = {
    "python": (sys.executable, str(EXAMPLES / "python" / "callback.py"), "ADDRESS"),
    "node": ("node", str(EXAMPLES / "node" / "callback.mjs"), "ADDRESS"),
    "go": ("go-callback", "ADDRESS"),
    "php": ("php", "-S", "ADDRESS", str(EXAMPLES / "php" / "callback.php")),
    "java": (*JAVA, "Callback", "ADDRESS"),
}


@dataclasses.dataclass
class Receiver:
    """A program that receives callbacks.

    Attributes:
        url: where.
        output: what it has written so far.
    """

    url: CallbackURL
    output: bytearray

    @property
    def events(self) -> list[str]:
        lines = self.output.decode().splitlines()
        # PHP's server writes the time before each line.
        return ["build." + line.partition("build.")[2] for line in lines if "build." in line]

    async def send(
        self, webhook: Webhook, keys: CallbackKeys = KEYS, signature: str | None = None
    ) -> Answer:
        headers = webhook.headers(keys, time.time())
        if signature is not None:
            headers["webhook-signature"] = signature
        return await self.post(webhook.body, headers)

    async def post(self, body: bytes, headers: dict[str, str]) -> Answer:
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        outbound = Outbound(CallbackHosts.parse("127.0.0.1:*"), trust=trust)
        return await outbound.post(self.url, headers, body)

    async def refused(self, words: str) -> None:
        await until(lambda: words in self.output.decode())


@pytest.fixture(params=RECEIVERS)
async def receiver(request, tmp_path: Path) -> AsyncIterator[Receiver]:
    (tmp_path / "webhook-secret").write_text(format_secret(KEYS.webhook[0]) + "\n")
    (tmp_path / "payload-secret").write_bytes(b"payload secret\n")
    address = free_address()
    program, *arguments = RECEIVERS[request.param]
    process = await asyncio.create_subprocess_exec(
        str(find_tool(program)),
        *[address if argument == "ADDRESS" else argument for argument in arguments],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "WEBHOOK_SECRET_FILE": str(tmp_path / "webhook-secret"),
            "OPENFAAS_PAYLOAD_SECRET": str(tmp_path / "payload-secret"),
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    running = Receiver(CallbackURL.parse(f"http://{address}/hook"), bytearray())
    reading = asyncio.create_task(_read(process.stdout, running.output))
    try:
        await until(
            lambda: (
                process.returncode is not None
                or b"receiving on" in running.output
                or b"started" in running.output
            )
        )
        assert process.returncode is None, running.output.decode()
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def _read(stream: asyncio.StreamReader, output: bytearray) -> None:
    while piece := await stream.read(4096):
        output += piece


def webhook(name: str = "msg_1_finished", **changes) -> Webhook:
    document = {"buildId": "1", "status": "success", "image": "ghcr.io/acme/grüße:1"}
    made = Webhook(
        id=name,
        url="",
        tenant="default",
        build_id="1",
        body=make_body(EventType.FINISHED, time.time(), document),
        status=200,
        seconds=1.0,
    )
    return dataclasses.replace(made, **changes)


async def test_a_receiver(receiver: Receiver):
    """One start for all of it: each start costs as much as the rest."""
    assert (await receiver.send(webhook())).status == 204
    # While the secret rotates, both sign, in any order.
    for number, keys in enumerate(([*KEYS.webhook, *OLD.webhook], [*OLD.webhook, *KEYS.webhook])):
        both = CallbackKeys(keys, KEYS.payload)
        assert (await receiver.send(webhook(f"msg_1{number}"), both)).status == 204
    await until(lambda: receiver.events == ["build.finished 1 success"] * 3)

    assert (await receiver.send(webhook("msg_2"), OLD)).status == 401
    await receiver.refused("compare the webhook secrets")

    wrong_payload = CallbackKeys(KEYS.webhook, b"guessed")
    assert (await receiver.send(webhook("msg_3"), wrong_payload)).status == 401
    await receiver.refused("X-Build-Signature does not match: compare the payload secrets")

    none = CallbackKeys(KEYS.webhook, None)
    assert (await receiver.send(webhook("msg_4"), none)).status == 401

    old = webhook("msg_5")
    assert (await receiver.post(old.body, old.headers(KEYS, time.time() - 1000))).status == 401
    await receiver.refused("compare the clocks")

    assert (await receiver.post(b"{}", {"Content-Type": "application/json"})).status == 401
    await receiver.refused("this is not a callback")

    other = webhook("msg_6")
    headers = other.headers(KEYS, time.time())
    changed = json.dumps(json.loads(other.body)).encode()
    assert (await receiver.post(changed, headers)).status == 401

    for signature in ("", "v1", "v1,", "v2,x", "v1,####", ","):
        answer = await receiver.send(webhook("msg_7"), signature=signature)
        assert answer.status == 401, signature
    assert len(receiver.events) == 3


LASTING = pytest.mark.parametrize("receiver", sorted({*RECEIVERS} - {"php"}), indirect=True)
"""PHP's server keeps nothing from one request to the next, and bounds bodies itself."""


@LASTING
async def test_an_event_that_comes_twice_counts_once(receiver: Receiver):
    for _ in range(3):
        assert (await receiver.send(webhook())).status == 204
    assert (await receiver.send(webhook("msg_2"))).status == 204
    await until(lambda: len(receiver.events) == 2)


@LASTING
async def test_a_large_body_is_refused_without_a_crash(receiver: Receiver):
    large = webhook("msg_2", body=b"x" * 30_000)
    with contextlib.suppress(ConnectionError):
        assert (await receiver.send(large)).status in (401, 413)
    assert (await receiver.send(webhook())).status == 204
