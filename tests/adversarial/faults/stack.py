"""A builder of a queue and all that it needs, behind proxies; each program may be killed."""

import asyncio
import os
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from function_builder.engine import BuildKitConfig, BuildKitDaemon, NatsServer
from function_builder.engine.process import SupervisedProcess
from tests.support import until
from tests.support.builders import RunningBuilder, running_builder
from tests.support.gate import Gate, gate
from tests.support.holding import NatsProxy, S3Proxy, nats_proxy, s3_proxy
from tests.support.object_stores import s3_server
from tests.support.queued import QueueClient
from tests.support.receivers import ACCEPTED, Received, Receiver, receiver
from tests.support.requests import headers

LOST_AFTER = "2s"


@dataclass
class Client:
    """A client that repeats a request under one key until it is accepted.

    Attributes:
        name: of its build.
        ids: what each 202 said.
        refusals: how often it was refused, or not answered.
        task: sends.
        half_sent: set when half of a body that waits is sent.
    """

    name: str
    ids: set[str] = field(default_factory=set)
    refusals: list[str] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    half_sent: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, stack: "Stack", data: bytes, *, waits: bool) -> None:
        """Send it until it is accepted; the first time, the second half may wait for the kill."""
        extra = {"Idempotency-Key": f'"{self.name}"', "X-Callback-Url": stack.callback(self.name)}
        sent = headers(data) | extra | {"Content-Length": str(len(data))}

        async def slowly() -> AsyncIterator[bytes]:
            yield data[: len(data) // 2]
            self.half_sent.set()
            await stack.killed.wait()
            yield data[len(data) // 2 :]

        while True:
            try:
                url = f"{stack.running.url}/build"
                content = slowly() if waits else data
                answer = await stack.http.post(url, content=content, headers=sent)
            except httpx2.TransportError:
                self.refusals.append("cut")
            else:
                if answer.status_code == 202:
                    self.ids.add(answer.json()["buildId"])
                    return
                assert answer.status_code in (429, 503), answer.text
                self.refusals.append(str(answer.status_code))
            waits = False
            await asyncio.sleep(0.2)


class Callbacks:
    """A receiver that does with each build's callback what its step wants.

    Attributes:
        ids: how often each id came, by the name in the URL.
        hold: the name whose callback is not answered.
        fail: the name whose first callback is answered with 500.
        held: set when a callback came that is not answered.
        let: set to answer it.
    """

    def __init__(self) -> None:
        self.ids: dict[str, Counter[str]] = defaultdict(Counter)
        self.hold = ""
        self.fail = ""
        self.held = asyncio.Event()
        self.let = asyncio.Event()

    async def behave(self, received: Received, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        name = received.line.split()[1].rpartition("/")[2]
        self.ids[name][received.headers["webhook-id"]] += 1
        if name == self.hold:
            self.held.set()
            await self.let.wait()
        if name == self.fail:
            self.fail = ""
            writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(ACCEPTED)
        await writer.drain()


@dataclass
class Stack:
    """A builder and all that it needs, behind proxies; each program may be killed.

    Attributes:
        killed: set when the kill is over, and what it was to meet goes on.
        clients: by the name of the build.
    """

    root: Path
    nats: NatsServer
    nats_proxy: NatsProxy
    store: SupervisedProcess
    store_proxy: S3Proxy
    buildkit: BuildKitDaemon
    registry: str
    gate: Gate
    receiver: Receiver
    callbacks: Callbacks
    http: httpx2.AsyncClient
    environment: dict[str, str]
    stack: AsyncExitStack
    builder: RunningBuilder | None = None
    builders: int = 0
    killed: asyncio.Event = field(default_factory=asyncio.Event)
    clients: dict[str, Client] = field(default_factory=dict)

    @property
    def running(self) -> RunningBuilder:
        """The builder that runs now."""
        assert self.builder is not None
        return self.builder

    @property
    def client(self) -> QueueClient:
        """Asks that builder."""
        return QueueClient(self.http, self.running.url)

    def callback(self, name: str) -> str:
        """The URL of a build's callbacks."""
        return f"http://127.0.0.1:{self.receiver.port}/{name}"

    def send(self, name: str, data: bytes, *, waits: bool = False) -> Client:
        """Have a client send a build."""
        client = self.clients[name] = Client(name)
        client.task = asyncio.create_task(client.send(self, data, waits=waits))
        return client

    async def start_builder(self) -> None:
        """Start a builder, in place of the one that was killed."""
        self.builders += 1
        root = self.root / f"builder-{self.builders}"
        self.builder = await self.stack.enter_async_context(
            running_builder(root, self.buildkit.address, **self.environment)
        )

    async def kill(self, victim: str) -> None:
        """Kill a program with SIGKILL, wait until it runs again, and let all go on."""
        if victim == "builder":
            self.running.process.kill()
            await self.running.process.wait()
            # What it had not sent is not sent.
            self.nats_proxy.clear(drop=True)
            self.store_proxy.clear(drop=True)
            await self.start_builder()
        else:
            await self._kill_program(victim)
        self.callbacks.let.set()
        self.gate.open()
        self.killed.set()

    async def _kill_program(self, victim: str) -> None:
        programs: dict[str, NatsServer | BuildKitDaemon | SupervisedProcess] = {
            "nats-server": self.nats,
            "buildkitd": self.buildkit,
            "S3 server": self.store,
        }
        program = programs[victim]
        killed = program.pid
        os.killpg(killed, signal.SIGKILL)
        await until(lambda: program.pid != killed)
        self.nats_proxy.clear()
        self.store_proxy.clear()


@asynccontextmanager
async def stack_at(root: Path, registry: str, config: BuildKitConfig) -> AsyncIterator[Stack]:
    """A stack of its own, whose builder takes 2 s of silence for a loss."""
    callbacks = Callbacks()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        server = await enter(NatsServer(root / "nats", log=root / "nats.log"))
        user, _, address = server.url.rpartition("@")
        store, environment = await enter(s3_server(root))
        store_address = environment["AWS_ENDPOINT_URL"].removeprefix("http://")
        buildkit = await enter(BuildKitDaemon(root / "bk", config=config, log=root / "bk.log"))
        before_nats = await enter(nats_proxy(address))
        before_store = await enter(s3_proxy(store_address))
        made = Stack(
            root=root,
            nats=server,
            nats_proxy=before_nats,
            store=store,
            store_proxy=before_store,
            buildkit=buildkit,
            registry=registry,
            gate=await enter(gate()),
            receiver=await enter(receiver(callbacks.behave)),
            callbacks=callbacks,
            http=await enter(httpx2.AsyncClient(trust_env=False, timeout=60, verify=False)),
            environment=environment
            | {
                "AWS_ENDPOINT_URL": f"http://{before_store.address}",
                "nats_url": f"{user}@{before_nats.address}",
                "store_url": "s3://builds/store",
                "max_inflight": "24",
                "lost_after": LOST_AFTER,
                "callback_hosts": "127.0.0.0/8:*",
                "insecure": "true",
            },
            stack=stack,
        )
        await made.start_builder()
        try:
            yield made
        finally:
            before_nats.clear()
            before_store.clear()
