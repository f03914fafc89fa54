"""Three builders of one queue, many builds, and kill -9 of each program at random moments.

The victims are the builders, nats-server, buildkitd and the S3 server of bodies and logs. Each
build must end once, and its callback must arrive under one id.
"""

import asyncio
import base64
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2

from function_builder.engine import BuildKitConfig, BuildKitDaemon, NatsServer, find_tool
from function_builder.engine.process import SupervisedProcess
from tests.support import free_address
from tests.support.object_stores import s3_server
from tests.support.queued import ENDS, QueueClient, tiny
from tests.support.requests import SECRET
from tests.support.servers import serving

BUILDERS = 3
KILL_SECONDS = (3.0, 9.0)
SUBMITTERS = 12
TELL_SECONDS = 60.0
QUIET_SECONDS = 300.0
"""For so long, and half a second for each build, callbacks are waited for."""

LOST = "the builder was lost 3 times"
"""The end of a build that kills met in each attempt: it is not begun forever."""


class Replica:
    """A builder that is killed and started again."""

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self.listen = free_address()
        root.mkdir()
        self._log = root / "log"
        self._environment = {
            **environment,
            "listen": self.listen,
            "metrics_listen": free_address(),
            "spool_dir": str(root),
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                # A soak that is killed leaves no builder behind.
                *(str(find_tool("setpriv")), "--pdeathsig", "KILL", "--"),
                *(sys.executable, "-m", "function_builder", "serve"),
                env=self._environment,
                stdout=output,
                stderr=output,
            )

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class Callbacks:
    """A receiver that answers 200, and what it received."""

    def __init__(self) -> None:
        self.ids: dict[str, Counter[str]] = defaultdict(Counter)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        fields = dict(line.split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
        body = json.loads(await reader.readexactly(int(fields["content-length"])))
        self.ids[body["data"]["buildId"]][fields["webhook-id"]] += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()


async def soak_queue(root: Path, *, builds: int, seed: int) -> list[str]:
    """Run it; returns what was wrong, after it has printed what happened."""
    chance = random.Random(seed)
    secrets = root / "secrets"
    secrets.mkdir()
    (secrets / "payload-secret").write_text(SECRET)
    (secrets / "webhook-secret").write_text("whsec_" + base64.b64encode(bytes(32)).decode())
    callbacks = Callbacks()
    async with AsyncExitStack() as stack:
        daemon = BuildKitDaemon(root / "bk", config=BuildKitConfig(), log=root / "buildkitd.log")
        await stack.enter_async_context(daemon)
        nats = NatsServer(root / "nats", log=root / "nats.log")
        await stack.enter_async_context(nats)
        store, store_environment = await stack.enter_async_context(s3_server(root))
        receiver = await stack.enter_async_context(serving(callbacks.handle))
        environment = store_environment | {
            "PATH": os.environ["PATH"],
            "DOCKER_CONFIG": str(root / "docker"),
            "buildkit_url": daemon.address,
            "secret_mount_path": str(secrets),
            "nats_url": nats.url,
            "store_url": "s3://builds/soak",
            "max_inflight": "3",
            "callback_hosts": "127.0.0.0/8:*",
        }
        replicas = [Replica(root / f"builder-{n}", environment) for n in range(BUILDERS)]
        for replica in replicas:
            await replica.start()
            stack.push_async_callback(replica.kill)
        http = await stack.enter_async_context(
            httpx2.AsyncClient(trust_env=False, timeout=60, verify=False)
        )
        clients = [QueueClient(http, f"http://{replica.listen}") for replica in replicas]
        kills: Counter[str] = Counter()
        killing = asyncio.create_task(
            _kill(chance, _victims(replicas, chance, nats, daemon, store), kills)
        )
        ids: list[str] = []
        begun = time.monotonic()
        telling = asyncio.create_task(_tell(ids, callbacks, kills))
        await _submit_all(clients, builds, f"http://{receiver}/done", ids)
        submitted = time.monotonic() - begun
        # A callback tells of each end, and does not read the list of thousands while they run.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(QUIET_SECONDS + builds / 2):
                while len(callbacks.ids) < builds:
                    await asyncio.sleep(0.5)
        took = time.monotonic() - begun
        for task in (killing, telling):
            task.cancel()
        await asyncio.wait([killing, telling])
        final = await _until_ended(clients, ids)
    return _report(ids, final, callbacks, kills, (submitted, took))


_Kill = Callable[[], Awaitable[None]]
_Victims = Mapping[str, _Kill]


def _victims(
    replicas: list[Replica],
    chance: random.Random,
    nats: NatsServer,
    daemon: BuildKitDaemon,
    store: SupervisedProcess,
) -> _Victims:
    async def kill_builder() -> None:
        replica = chance.choice(replicas)
        await replica.kill()
        await asyncio.shield(replica.start())

    def killer(program: NatsServer | BuildKitDaemon | SupervisedProcess) -> _Kill:
        async def kill() -> None:
            # It may be down already, between two starts.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)

        return kill

    return {
        "builder": kill_builder,
        "nats-server": killer(nats),
        "buildkitd": killer(daemon),
        "versitygw": killer(store),
    }


async def _kill(chance: random.Random, victims: _Victims, kills: Counter[str]) -> None:
    while True:
        await asyncio.sleep(chance.uniform(*KILL_SECONDS))
        # Builders are three of six programs.
        (name,) = chance.choices(list(victims), weights=[3, 1, 1, 1])
        kills[name] += 1
        await victims[name]()


async def _tell(ids: list[str], callbacks: Callbacks, kills: Counter[str]) -> None:
    while True:
        await asyncio.sleep(TELL_SECONDS)
        print(  # noqa: T201 (a command's output)
            f"{len(ids)} accepted, {len(callbacks.ids)} ended, kills: {dict(kills)}", flush=True
        )


async def _submit_all(
    clients: list[QueueClient], builds: int, callback: str, ids: list[str]
) -> None:
    numbers = iter(range(builds))

    async def submit() -> None:
        for number in numbers:
            body = tiny(f"f{number % 20}")
            extra = {"Idempotency_Key": f'"soak-{number}"', "X_Callback_Url": callback}
            while True:
                client = random.choice(clients)
                try:
                    answer = await client.submit(body, **extra)
                except httpx2.TransportError:
                    answer = None
                if answer is not None and answer.status_code == 202:
                    ids.append(answer.json()["buildId"])
                    break
                await asyncio.sleep(0.1)

    await asyncio.gather(*(submit() for _ in range(SUBMITTERS)))


async def _until_ended(clients: list[QueueClient], ids: list[str]) -> list[dict[str, object]]:
    """The list when all have ended, or as it is after a minute."""
    end = time.monotonic() + TELL_SECONDS
    while True:
        try:
            listed = await random.choice(clients).all()
        except (httpx2.TransportError, AssertionError):
            listed = []
        ended = {each["buildId"] for each in listed if each["status"] in ENDS}
        if ended >= set(ids) or time.monotonic() > end:
            return listed
        await asyncio.sleep(1)


def _report(
    ids: list[str],
    listed: list[dict[str, object]],
    callbacks: Callbacks,
    kills: Counter[str],
    seconds: tuple[float, float],
) -> list[str]:
    names = Counter(str(each["buildId"]) for each in listed)
    states = Counter(str(each["status"]) for each in listed)
    attempts = Counter(each["attempt"] for each in listed)
    lost = sum(LOST in str(each.get("error")) for each in listed)
    repeated = sum(sum(count.values()) > 1 for count in callbacks.ids.values())
    print(  # noqa: T201 (a command's output)
        f"{len(ids)} builds accepted in {seconds[0]:.0f} s, all ended after {seconds[1]:.0f} s\n"
        f"kills: {dict(kills)}\nstates: {dict(states)}, {lost} lost 3 times\n"
        f"attempts: {dict(sorted(attempts.items()))}\n"
        f"callbacks: {len(callbacks.ids)} builds, {repeated} more than once"
    )
    wrong = []
    if len(set(ids)) != len(ids):
        wrong.append("two requests were given one build")
    if set(names) != set(ids):
        wrong.append(f"{len(set(ids) ^ set(names))} builds are lost, or were never accepted")
    if any(count > 1 for count in names.values()):
        wrong.append("a build is in the list twice")
    if states != Counter({"success": len(ids) - lost, "failed": lost}):
        wrong.append("not all other builds succeeded")
    if set(callbacks.ids) != set(ids):
        wrong.append(f"{len(set(ids) ^ set(callbacks.ids))} builds have no callback, or no request")
    if any(len(count) != 1 for count in callbacks.ids.values()):
        wrong.append("a build's end was told under two ids")
    return wrong
