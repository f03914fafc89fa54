"""The path of a queued build, cut into steps, and programs that are killed at each of them.

`STEPS` has the path. Each step brings one build to exactly that place, and holds it there: by a
proxy that keeps a request, a RUN step that waits, or a receiver that does not answer.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import nats

from tests.adversarial.faults.stack import Stack
from tests.support import until
from tests.support.holding import Asked, Trap
from tests.support.queued import ENDS
from tests.support.requests import make_tar

VICTIMS = ("builder", "nats-server", "buildkitd", "S3 server")

_SECONDS = 120
"""For a wait for an event, on a machine that other work shares."""


def _body(name: str, image: str = "") -> bytes:
    """A request whose build takes a moment."""
    config = {"image": image} if image else {"skipPush": True}
    return make_tar({"Dockerfile": f"FROM scratch\nCOPY Dockerfile /{name}\n"}, config)


Fits = Callable[[Asked], bool]
Arrange = Callable[[Stack, str], Awaitable[None]]


class Step(NamedTuple):
    """One place of the path.

    Attributes:
        name: what was done last, or is under way.
        arrange: brings the build of a name there.
    """

    name: str
    arrange: Arrange


def _asks(words: str, having: str = "") -> Fits:
    return lambda asked: words in asked.what and having.encode() in asked.data


def _records(state: str) -> Fits:
    return _asks("$KV.builds.", f'"status":"{state}"')


def _acknowledges(stream: str) -> Fits:
    # Other words are that it is alive, or given back.
    return lambda asked: asked.what.startswith(f"$JS.ACK.{stream}.") and not asked.data.strip()


def _kept(trap: Callable[[Stack], Trap]) -> Arrange:
    async def arrange(stack: Stack, name: str) -> None:
        caught = trap(stack)
        stack.send(name, _body(name))
        await caught.caught()

    return arrange


async def _half_a_body(stack: Stack, name: str) -> None:
    client = stack.send(name, _body(name), waits=True)
    await client.half_sent.wait()
    await stack.running.until_metric("uploads_in_progress", 1)


async def _pushed(stack: Stack, name: str) -> None:
    trap = stack.store_proxy.before(_asks("PUT ", "/logs/"))
    stack.send(name, _body(name, image=f"{stack.registry}/steps/{name}:1"))
    await trap.caught()


async def _runs(stack: Stack, name: str) -> None:
    stack.send(name, stack.gate.body(name))
    await stack.gate.reached(name)


async def _line_published(stack: Stack, name: str) -> None:
    trap = stack.nats_proxy.after(_asks("builds.log."))
    stack.send(name, stack.gate.body(name))
    await trap.caught()
    await stack.gate.reached(name)


async def _callback_under_way(stack: Stack, name: str) -> None:
    stack.callbacks.hold = name
    stack.send(name, _body(name))
    await stack.callbacks.held.wait()


async def _callback_failed(stack: Stack, name: str) -> None:
    trap = stack.nats_proxy.after(_asks("builds.callbacks.", '"attempt":1'))
    stack.callbacks.fail = name
    stack.send(name, _body(name))
    await trap.caught()


async def _accepted(stack: Stack, name: str) -> None:
    client = stack.send(name, _body(name))
    assert client.task is not None
    await client.task


STEPS: Sequence[Step] = (
    Step("half of the body is received", _half_a_body),
    Step(
        "the store is asked for the body",
        _kept(lambda s: s.store_proxy.before(_asks("PUT ", "/bodies/"))),
    ),
    Step("the body is stored", _kept(lambda s: s.store_proxy.after(_asks("PUT ", "/bodies/")))),
    Step(
        "the idempotency key is stored",
        _kept(lambda s: s.nats_proxy.after(_asks("$KV.build_keys."))),
    ),
    Step("the job is delivered", _kept(lambda s: s.nats_proxy.before(_records("running")))),
    Step("the record says running", _kept(lambda s: s.nats_proxy.after(_records("running")))),
    Step("the body is read", _kept(lambda s: s.store_proxy.before(_asks("GET ", "/bodies/")))),
    Step("a RUN step runs", _runs),
    Step("a line of the log is published", _line_published),
    Step("the image is pushed", _pushed),
    Step("the log is stored", _kept(lambda s: s.store_proxy.after(_asks("PUT ", "/logs/")))),
    Step("the record has the end", _kept(lambda s: s.nats_proxy.after(_records("success")))),
    Step("the callback is stored", _kept(lambda s: s.nats_proxy.after(_asks("builds.callbacks.")))),
    Step(
        "the job is acknowledged",
        _kept(lambda s: s.nats_proxy.after(_acknowledges("BUILD_JOBS"))),
    ),
    Step(
        "the log's batches are removed",
        _kept(lambda s: s.nats_proxy.before(_asks(".PURGE.BUILD_LOGS"))),
    ),
    Step("the callback is under way", _callback_under_way),
    Step("the callback has failed once", _callback_failed),
    Step(
        "the callback is delivered",
        _kept(lambda s: s.nats_proxy.before(_acknowledges("builds_callbacks"))),
    ),
)
"""While workers take jobs."""

WAITING_STEPS: Sequence[Step] = (
    Step("the job is stored", _kept(lambda s: s.nats_proxy.after(_asks("builds.queue.")))),
    Step("the record is stored", _kept(lambda s: s.nats_proxy.after(_records("queued")))),
    Step("202 is sent", _accepted),
)
"""While no job is handed out."""


class Seen(NamedTuple):
    """How the build of a step went on.

    Attributes:
        step: its name.
        refusals: what its client was answered before 202.
        attempts: how often it was begun.
        callbacks: how often its end was told.
        log: its log.
    """

    step: str
    refusals: Sequence[str]
    attempts: int
    callbacks: int
    log: str


async def kill_at(stack: Stack, steps: Sequence[Step], victim: str) -> Sequence[Seen]:
    """Bring one build to each step, kill a program, and see that every build ends once."""
    for event in (stack.killed, stack.callbacks.let, stack.callbacks.held):
        event.clear()
    # The kill of before opened it.
    stack.gate.close()
    stack.clients.clear()
    stack.callbacks.ids.clear()
    before = {each["buildId"] for each in await stack.client.all()}
    async with asyncio.timeout(_SECONDS):
        for step in steps:
            if step not in WAITING_STEPS:
                await step.arrange(stack, _name(step, victim))
        if any(step in WAITING_STEPS for step in steps):
            stack.nats_proxy.before(_asks("$JS.API.CONSUMER.MSG.NEXT.BUILD_JOBS."))
        for step in steps:
            if step in WAITING_STEPS:
                await step.arrange(stack, _name(step, victim))
    await stack.kill(victim)
    async with asyncio.timeout(_SECONDS):
        seen = [await _ended(stack, step, victim) for step in steps]
        await _nothing_left(stack)
    # Only now: one may be told again until nothing is left.
    seen = [each._replace(callbacks=_told(stack, _named(each.step, victim))) for each in seen]
    listed = Counter(each["buildId"] for each in await stack.client.all())
    accepted = {build_id for client in stack.clients.values() for build_id in client.ids}
    assert len(accepted) == len(steps)
    assert set(listed) == before | accepted
    assert set(listed.values()) == {1}
    return seen


def _name(step: Step, victim: str) -> str:
    return _named(step.name, victim)


def _named(step: str, victim: str) -> str:
    return re.sub("[^a-z0-9]+", "-", f"{victim} {step}".lower())


def _told(stack: Stack, name: str) -> int:
    """How often the one callback of a build came."""
    (times,) = stack.callbacks.ids[name].values()
    return times


async def _ended(stack: Stack, step: Step, victim: str) -> Seen:
    """Wait for a build's end, and hold it to what was promised."""
    name = _name(step, victim)
    client = stack.clients[name]
    assert client.task is not None
    await client.task
    (build_id,) = client.ids
    build = await stack.client.until(build_id, *ENDS, seconds=_SECONDS)
    assert build["status"] == "success", (name, build)
    log = "\n".join(await stack.client.log(build_id))
    assert f"COPY Dockerfile /{name}" in log or f"through-{name}" in log, (name, log)
    await until(lambda: stack.callbacks.ids[name])
    return Seen(step.name, client.refusals, build["attempt"], _told(stack, name), log)


async def _nothing_left(stack: Stack) -> None:
    """Wait until no job and no callback is left."""
    client = await nats.connect(stack.nats.url)
    try:
        context = client.jetstream()
        for stream in ("BUILD_JOBS", "builds_callbacks"):
            while (await context.stream_info(stream)).state.messages:
                await asyncio.sleep(0.1)
    finally:
        await client.close()
