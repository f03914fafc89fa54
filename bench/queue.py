"""`python -m bench.queue`: what the queue costs, beside builds that have none.

Builds are tiny and cached, so that what is around them is what is measured.
"""

import argparse
import asyncio
import http.client
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from nats.js.api import StreamConfig

from bench.command import Row, run, show_rows
from bench.contenders import SECRET, BuildFailed, Server, builder, signed
from bench.contexts import Context, tiny
from bench.measure import METRICS, OURS, REGISTRY, buildkit_and_registry
from bench.report import machine
from function_builder.contract.reads import sign_read
from function_builder.engine import NatsServer
from function_builder.queue.access import Access
from function_builder.queue.jetstream import JetStream
from function_builder.queue.records import STREAM as RECORDS
from function_builder.queue.streams import JOBS, LOGS

_ROUNDS = 60
_BUILDS = 1000
_WARM_UP = 3
_BUILDERS = 3
_SLOTS = 4
_LONGEST_SECONDS = 300.0
_POLL_SECONDS = 0.05
_FORGOTTEN_SECONDS = 5.0
_MONITORING_PORT = 7300
_MESSAGES = 5
_MESSAGE_BYTES = 1000
_IN_FLIGHT = 100

Timed = Callable[[int], Awaitable[float]]
"""Does something once, and returns the seconds that it took."""


async def sync(root: Path, buildkit: str, options: argparse.Namespace) -> list[Row]:
    """A synchronous build on a builder without a queue, and on one with it, in turn."""
    context = Context(root / "context", tiny())
    async with (
        _queue(root) as settings,
        builder(root / "without", buildkit, OURS, METRICS) as without,
        builder(root / "with", buildkit, *_addresses(1), **settings) as having,
    ):
        servers = (without, having)
        cpu = [server.cpu() for server in servers]
        rows = await _compared(
            {
                "nats_url empty": _building(without, context),
                "nats_url set": _building(having, context),
            },
            options.rounds,
        )
        builds = options.rounds + _WARM_UP
        return [
            {
                **row,
                # Of other work on the machine this depends less. It has what is done beside.
                "CPU ms a build": f"{(server.cpu() - before) / builds * 1e3:.1f}",
                "idle MB": f"{server.idle():.0f}",
                "peak MB": f"{server.peak():.0f}",
            }
            for row, server, before in zip(rows, servers, cpu, strict=True)
        ]


async def submit(root: Path, buildkit: str, options: argparse.Namespace) -> list[Row]:
    """A request until its first byte, and until its build has ended: direct, and queued."""
    context = Context(root / "context", tiny())
    async with (
        _queue(root) as settings,
        builder(root / "ours", buildkit, OURS, METRICS, **settings) as server,
    ):
        ends: dict[str, list[float]] = {"direct": [], "queued": []}
        rows = await _compared(
            {
                "direct: first byte": partial(_direct, server, context, ends["direct"]),
                "queued: 202": partial(_queued, server, context, ends["queued"]),
            },
            options.rounds,
        )
        direct, queued = (each[_WARM_UP:] for each in ends.values())
        rows.append(_row("direct: last byte", direct))
        rows.append(_row("queued: end of the log", queued, direct))
        return rows


async def throughput(root: Path, buildkit: str, options: argparse.Namespace) -> list[Row]:
    """Many builds by three builders: by as many clients as slots, and all of them queued first."""
    context = Context(root / "context", tiny())
    async with AsyncExitStack() as stack:
        settings = await stack.enter_async_context(_queue(root))
        servers = [
            await stack.enter_async_context(
                builder(
                    root / f"builder{number}",
                    buildkit,
                    *_addresses(number),
                    max_inflight=str(_SLOTS),
                    max_queued="0",
                    **settings,
                )
            )
            for number in range(_BUILDERS)
        ]
        for server in servers:
            await asyncio.to_thread(_build, server, context, "warm")
        return [
            await asyncio.to_thread(_all_direct, servers, context, options.builds),
            await asyncio.to_thread(_all_queued, servers, context, options.builds),
        ]


async def messages(root: Path, buildkit: str, options: argparse.Namespace) -> list[Row]:
    """What a queued build sends through NATS, and what is stored of it in the end."""
    context = Context(root / "context", tiny())
    address = f"127.0.0.1:{_MONITORING_PORT}"
    async with (
        _queue(root, monitoring=address) as settings,
        builder(root / "ours", buildkit, OURS, METRICS, keep_bodies="0", **settings) as server,
    ):
        await _queued(server, context, [], 0)
        messages = await _last_numbers(settings["nats_url"])
        before = await asyncio.to_thread(_varz, address), _stored(root)
        for number in range(options.rounds):
            await _queued(server, context, [], number)
        # The log leaves its stream a second after the end.
        await asyncio.sleep(_FORGOTTEN_SECONDS)
        after = await asyncio.to_thread(_varz, address), _stored(root)
        messages = await _last_numbers(settings["nats_url"]) - messages
    row: dict[str, object] = {"": "one build"}
    for name in ("in_msgs", "in_bytes", "out_msgs", "out_bytes"):
        row[name] = round((after[0][name] - before[0][name]) / options.rounds)
    row["stored messages"] = round(messages / options.rounds, 1)
    for name, now in after[1].items():
        row[f"stored in {name}: bytes"] = round((now - before[1][name]) / options.rounds)
    return [row]


async def publish(root: Path, _buildkit: str, options: argparse.Namespace) -> list[Row]:
    """Messages of a build's size that one nats-server stores a second, each synced to the disk."""
    number = options.builds * _MESSAGES
    async with _queue(root) as settings:
        jetstream = JetStream(Access(url=settings["nats_url"]))
        await jetstream.connect()
        await jetstream.ensure_stream(StreamConfig(name="bench", subjects=["bench"]))
        begin = time.perf_counter()
        for _ in range(0, number, _IN_FLIGHT):
            sent = (jetstream.publish("bench", bytes(_MESSAGE_BYTES)) for _ in range(_IN_FLIGHT))
            await asyncio.gather(*sent)
        seconds = time.perf_counter() - begin
        await jetstream.close()
    return [{"messages": number, "in flight": _IN_FLIGHT, "a second": round(number / seconds)}]


MEASURES = {
    "publish": publish,
    "messages": messages,
    "sync": sync,
    "submit": submit,
    "throughput": throughput,
}


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(prog="bench.queue", description=__doc__)
    parser.add_argument("--measure", action="append", choices=MEASURES, help="default: every one")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help=f"default: {_ROUNDS}")
    parser.add_argument("--builds", type=int, default=_BUILDS, help=f"default: {_BUILDS}")
    options = parser.parse_args()
    run(partial(_measure, options))


async def _measure(options: argparse.Namespace, root: Path) -> None:
    print(json.dumps(machine(), indent=1), end="\n\n")
    async with buildkit_and_registry(root) as daemon:
        for name in options.measure or MEASURES:
            print(f"{name}\n")
            show_rows(await MEASURES[name](root / name, daemon.address, options))


@asynccontextmanager
async def _queue(root: Path, monitoring: str = "") -> AsyncIterator[dict[str, str]]:
    """A nats-server and a store, as settings of the builders that share them."""
    log = root.parent / f"nats-{root.name}.log"
    async with _MonitoredNats(root / "nats", log=log, monitoring=monitoring) as nats:
        yield {"nats_url": nats.url, "store_url": (root / "store").as_uri()}


class _MonitoredNats(NatsServer):
    """A nats-server that says what it has received and sent."""

    def __init__(self, root: Path, *, log: Path, monitoring: str) -> None:
        super().__init__(root, log=log)
        self._monitoring = monitoring

    def _config(self) -> dict[str, object]:
        return super()._config() | ({"http": self._monitoring} if self._monitoring else {})


async def _last_numbers(url: str) -> int:
    """How many messages the streams of the queue have ever had."""
    jetstream = JetStream(Access(url=url))
    await jetstream.connect()
    numbers = [(await jetstream.bounds(stream))[1] for stream in (JOBS, LOGS, RECORDS)]
    await jetstream.close()
    return sum(numbers)


def _varz(address: str) -> dict[str, int]:
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("GET", "/varz")
    found: dict[str, int] = json.loads(connection.getresponse().read())
    connection.close()
    return found


def _stored(root: Path) -> dict[str, int]:
    """The bytes of the files of the queue, and of the store."""
    return {
        name: sum(path.stat().st_size for path in (root / name).rglob("*") if path.is_file())
        for name in ("nats", "store")
    }


def _addresses(number: int) -> tuple[str, str]:
    """Where a builder listens, and where its metrics are."""
    return f"127.0.0.1:{7100 + number}", f"127.0.0.1:{7200 + number}"


async def _compared(things: dict[str, Timed], rounds: int) -> list[Row]:
    """Do each thing in each round, every other round in the other order."""
    seconds: dict[str, list[float]] = {name: [] for name in things}
    for number in range(-_WARM_UP, rounds):
        for name, timed in list(things.items())[:: 1 if number % 2 else -1]:
            took = await timed(number + _WARM_UP)
            if number >= 0:
                seconds[name].append(took)
    first, *others = seconds
    rows = [_row(first, seconds[first])]
    return rows + [_row(name, seconds[name], seconds[first]) for name in others]


def _row(name: str, seconds: Sequence[float], beside: Sequence[float] = ()) -> Row:
    """What was measured, and its difference in each round from what is beside it."""
    added = quartiles = ""
    if beside:
        differences = [one - other for one, other in zip(seconds, beside, strict=True)]
        low, middle, high = statistics.quantiles(differences, n=4, method="inclusive")
        added = f"{middle * 1e3:+.1f}"
        quartiles = f"{low * 1e3:+.1f} to {high * 1e3:+.1f}"
    return {
        "": name,
        "min ms": f"{min(seconds) * 1e3:.1f}",
        "median ms": f"{statistics.median(seconds) * 1e3:.1f}",
        "added ms": added,
        "quartiles": quartiles,
    }


def _building(server: Server, context: Context) -> Timed:
    async def timed(number: int) -> float:
        job = server.job(context, _image(f"{server.address.replace(':', '-')}-{number}"))
        begin = time.perf_counter()
        await asyncio.to_thread(job)
        return time.perf_counter() - begin

    return timed


async def _direct(server: Server, context: Context, ends: list[float], number: int) -> float:
    return await asyncio.to_thread(_follow_direct, server, context, ends, number)


async def _queued(server: Server, context: Context, ends: list[float], number: int) -> float:
    return await asyncio.to_thread(_follow_queued, server, context, ends, number)


def _follow_direct(server: Server, context: Context, ends: list[float], number: int) -> float:
    body = context.request(_image(f"direct-{number}"), {})
    connection = http.client.HTTPConnection(server.address, timeout=_LONGEST_SECONDS)
    begin = time.perf_counter()
    connection.request("POST", "/build", body, signed(body) | {"Accept": "application/x-ndjson"})
    answer = connection.getresponse()
    answer.read(1)
    first = time.perf_counter() - begin
    _check(answer.read())
    ends.append(time.perf_counter() - begin)
    connection.close()
    return first


def _follow_queued(server: Server, context: Context, ends: list[float], number: int) -> float:
    body = context.request(_image(f"queued-{number}"), {})
    begin = time.perf_counter()
    build_id = _submit(server, body)
    accepted = time.perf_counter() - begin
    _check(_ask(server, f"/builds/{build_id}/log"))
    ends.append(time.perf_counter() - begin)
    return accepted


def _all_direct(servers: Sequence[Server], context: Context, builds: int) -> Row:
    cpu, begin = _cpu(servers), time.perf_counter()
    with ExitStack() as stack:
        # Each builder has as many clients as slots, so that none is refused.
        clients = [stack.enter_context(ThreadPoolExecutor(_SLOTS)) for _ in servers]
        building = [
            clients[number % len(servers)].submit(
                _build, servers[number % len(servers)], context, f"all-{number}"
            )
            for number in range(builds)
        ]
        for each in building:
            each.result()
    seconds = time.perf_counter() - begin
    return _rate("direct", builds, seconds, _cpu(servers) - cpu, servers)


def _all_queued(servers: Sequence[Server], context: Context, builds: int) -> Row:
    bodies = [context.request(_image(f"all-{number}"), {}) for number in range(builds)]
    cpu, begin = _cpu(servers), time.perf_counter()
    with ThreadPoolExecutor(_SLOTS * len(servers)) as threads:
        submitting = [
            threads.submit(_submit, servers[number % len(servers)], body)
            for number, body in enumerate(bodies)
        ]
        for each in submitting:
            each.result()
    submitted = time.perf_counter() - begin
    while json.loads(_ask(servers[0], "/builds?limit=1&status=queued,running"))["builds"]:
        time.sleep(_POLL_SECONDS)
    seconds = time.perf_counter() - begin
    name = f"queued, all within {submitted:.1f} s"
    return _rate(name, builds, seconds, _cpu(servers) - cpu, servers)


def _cpu(servers: Sequence[Server]) -> float:
    return sum(server.cpu() for server in servers)


def _rate(name: str, builds: int, seconds: float, cpu: float, servers: Sequence[Server]) -> Row:
    return {
        "": name,
        "builds": builds,
        "s": f"{seconds:.1f}",
        "builds/s": f"{builds / seconds:.1f}",
        "CPU ms a build": f"{cpu / builds * 1e3:.1f}",
        "peak MB of one": f"{max(server.peak() for server in servers):.0f}",
    }


def _build(server: Server, context: Context, name: str) -> None:
    server.job(context, _image(name))()


def _submit(server: Server, body: bytes) -> str:
    connection = http.client.HTTPConnection(server.address, timeout=_LONGEST_SECONDS)
    try:
        connection.request("POST", "/build", body, signed(body) | {"Prefer": "respond-async"})
        answer = connection.getresponse()
        document = answer.read()
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.ACCEPTED:
        raise BuildFailed(f"not queued: {answer.status} {document.decode(errors='replace')}")
    build_id: str = json.loads(document)["buildId"]
    return build_id


def _ask(server: Server, target: str) -> bytes:
    connection = http.client.HTTPConnection(server.address, timeout=_LONGEST_SECONDS)
    try:
        signature = sign_read(SECRET.encode(), "GET", target, time.time())
        connection.request("GET", target, headers=signature)
        answer = connection.getresponse()
        document = answer.read()
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise BuildFailed(f"{target}: {answer.status} {document.decode(errors='replace')}")
    return document


def _check(log: bytes) -> None:
    if json.loads(log.splitlines()[-1])["status"] != "success":
        raise BuildFailed(log[-2000:].decode(errors="replace"))


def _image(tag: str) -> str:
    return f"{REGISTRY}/bench/queue:{tag}"


if __name__ == "__main__":
    main()
