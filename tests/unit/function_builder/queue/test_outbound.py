"""A callback reaches what the operator lists and nothing else, however its URL and DNS try."""

import asyncio
import socket
import ssl
import threading
import time
from email.utils import formatdate
from ipaddress import ip_address
from unittest.mock import patch

import httpcore2
import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st

from function_builder.contract.callback_url import CallbackHosts, CallbackURL, check_url
from function_builder.contract.errors import Refusal
from function_builder.contract.public_addresses import kind_of_private
from function_builder.queue import outbound
from function_builder.queue.outbound import Answer, DeliveryError, Forbidden, Outbound
from tests.support.receivers import (
    ACCEPTED,
    answering,
    endless,
    never,
    receiver,
)

HOST = "hooks.example.com"
NO_TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Without authorities, which take a tenth of a second to load."""


def resolving(*answers):
    """A resolver that gives one answer after the other, and the last one for ever."""
    left = list(answers)

    async def resolve(_host: str, _port: int):
        found = left.pop(0) if len(left) > 1 else left[0]
        return [ip_address(address) for address in found]

    return resolve


def sender(hosts: str = "*:*,127.0.0.0/8:*", *, resolve=None, trust=None) -> Outbound:
    return Outbound(
        CallbackHosts.parse(hosts),
        resolve=resolve or resolving(["127.0.0.1"]),
        trust=trust or NO_TRUST,
    )


def url(port: int, *, scheme: str = "http", host: str = HOST, target: str = "/a?b=c"):
    return CallbackURL.parse(f"{scheme}://{host}:{port}{target}")


async def post(to: Outbound, where: CallbackURL) -> Answer:
    return await to.post(where, {"webhook-id": "msg_1"}, b'{"a":1}')


async def test_a_request_has_its_url_headers_and_body():
    async with receiver() as listening:
        assert await post(sender(), url(listening.port)) == Answer(204, None)
    (request,) = listening.requests
    assert request.line == "POST /a?b=c HTTP/1.1"
    assert request.headers["host"] == f"{HOST}:{listening.port}"
    assert request.headers["webhook-id"] == "msg_1"
    assert request.headers["connection"] == "close"
    assert request.body == b'{"a":1}'


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["2002:7f00:1::"],
        ["0.0.0.0"],
        ["169.254.169.254"],
        ["fd00:ec2::254"],
        ["10.0.0.1"],
        ["127.0.0.1", "10.0.0.1", "fe80::1"],
    ],
    ids=",".join,
)
async def test_a_name_of_forbidden_addresses_is_not_connected_to(addresses):
    async with receiver() as listening:
        guarded = sender("*:*", resolve=resolving(addresses))
        with pytest.raises(Forbidden, match="callback_hosts"):
            await post(guarded, url(listening.port))
    assert listening.connections == 0


async def test_an_allowed_address_beside_a_forbidden_one_is_used():
    async with receiver() as listening:
        mixed = sender("*:*,127.0.0.1:*", resolve=resolving(["10.0.0.1", "127.0.0.1"]))
        assert (await post(mixed, url(listening.port))).status == 204


async def test_dns_that_changes_after_the_check_has_no_effect():
    """The name is looked up once for each connect, and the connection goes to that answer."""
    changing = resolving(["10.9.9.9"], ["127.0.0.1"])
    async with receiver() as listening:
        guarded = sender("*:*", resolve=changing)
        with pytest.raises(Forbidden):
            await post(guarded, url(listening.port))
        with pytest.raises(Forbidden):
            await post(guarded, url(listening.port))
    assert listening.connections == 0


async def test_the_network_is_asked_for_the_checked_address_and_not_for_the_name():
    asked: list[str] = []
    connect = httpcore2.AnyIOBackend.connect_tcp

    async def noting(self, host, *arguments, **named):
        asked.append(host)
        return await connect(self, host, *arguments, **named)

    async with receiver() as listening:
        with patch.object(httpcore2.AnyIOBackend, "connect_tcp", noting):
            await post(sender(resolve=resolving(["127.0.0.1"], ["10.0.0.1"])), url(listening.port))
    assert asked == ["127.0.0.1"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status):
    async with receiver() as inside:
        location = f"http://127.0.0.1:{inside.port}/"
        answer = f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        async with receiver(answering(answer.encode())) as listening:
            assert (await post(sender(), url(listening.port))).status == status
    assert inside.connections == 0


async def test_proxies_of_the_environment_are_not_used(monkeypatch):
    async with receiver() as proxy, receiver() as listening:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        await post(sender(), url(listening.port))
    assert proxy.connections == 0
    assert len(listening.requests) == 1


@pytest.fixture
def short_answer(monkeypatch):
    """A bound that a test can wait for: nothing comes before it, however slow the machine is."""
    monkeypatch.setattr(outbound, "ANSWER_SECONDS", 0.3)


@pytest.fixture
def short_body(monkeypatch):
    monkeypatch.setattr(outbound, "BODY_SECONDS", 0.1)


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.usefixtures("short_answer")
@pytest.mark.parametrize(
    "behavior",
    [never, answering(b""), answering(b"HTTP/1.1 200 OK\r\nX-Slow: "), answering(b"SSH-2.0-x\r\n")],
    ids=["silent", "closes", "half a head", "another protocol"],
)
async def test_a_receiver_without_an_answer(behavior):
    async with receiver(behavior) as listening:
        with pytest.raises(DeliveryError):
            await post(sender(), url(listening.port))


@pytest.mark.parametrize(
    "behavior",
    [
        endless(HEAD + b"X-Long: ", b"x" * 65536),
        endless(HEAD, b"X-Many: 1\r\n" * 1000),
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    ],
    ids=["long header", "many headers", "informational answers"],
)
async def test_an_endless_head_is_cut(behavior):
    async with receiver(behavior) as listening:
        with pytest.raises(DeliveryError):
            await post(sender(), url(listening.port))


@pytest.mark.usefixtures("short_body")
@pytest.mark.parametrize(
    "behavior",
    [
        endless(HEAD + b"\r\n", b"x" * 65536),
        endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10_000),
        answering(HEAD + b"Content-Length: 10\r\n\r\nx"),
        answering(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
    ],
    ids=["endless", "endless chunks", "cut", "wrong chunks"],
)
async def test_a_body_has_no_meaning(behavior):
    async with receiver(behavior) as listening:
        assert (await post(sender(), url(listening.port))).status == 200


@pytest.mark.usefixtures("short_body")
async def test_a_body_that_never_ends_is_left():
    async def stall(_, writer):
        writer.write(HEAD + b"Content-Length: 10\r\n\r\nx")
        await asyncio.Event().wait()

    async with receiver(stall) as listening:
        assert (await post(sender(), url(listening.port))).status == 200


@pytest.mark.usefixtures("short_answer")
async def test_a_name_that_does_not_resolve_in_time():
    async def resolve(_host, _port):
        await asyncio.Event().wait()

    with pytest.raises(DeliveryError, match="no answer within"):
        await post(sender(resolve=resolve), url(80))


async def test_a_refused_connection_tries_the_next_address(free_port):
    async with receiver() as listening:
        both = sender(resolve=resolving(["127.0.0.2", "127.0.0.1"]))
        assert (await post(both, url(listening.port))).status == 204
    with pytest.raises(DeliveryError, match="refused"):
        await post(sender(), url(free_port))


@pytest.fixture
def free_port() -> int:
    from tests.support import free_address

    return int(free_address().rpartition(":")[2])


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120.0), (" 7 ", 7.0), ("-1", None), ("soon", None), ("1e9", None), ("9" * 400, 1e9)],
)
async def test_retry_after_in_seconds(value, seconds):
    answer = f"HTTP/1.1 503 Busy\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n"
    async with receiver(answering(answer.encode())) as listening:
        found = await post(sender(), url(listening.port))
    assert found.status == 503
    assert found.retry_after == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(("shift", "least"), [(100, 90), (-100, 0)])
async def test_retry_after_as_a_date(shift, least):
    date = formatdate(time.time() + shift, usegmt=True)
    answer = f"HTTP/1.1 503 Busy\r\nRetry-After: {date}\r\nContent-Length: 0\r\n\r\n"
    async with receiver(answering(answer.encode())) as listening:
        found = await post(sender(), url(listening.port))
    assert found.retry_after is not None
    assert least <= found.retry_after <= max(shift, 0)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def served_as(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)

    def note(_socket, server_name, _context):
        context.server_name = server_name  # type: ignore[attr-defined]

    context.sni_callback = note
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


async def test_tls_is_for_the_name_and_not_for_the_address(authority):
    async with receiver(trust=served_as(authority, HOST)) as listening:
        secure = sender(trust=trusting(authority))
        assert (await post(secure, url(listening.port, scheme="https"))).status == 204
    assert listening.requests[0].server_name == HOST


@pytest.mark.parametrize("name", ["other.example.com", "127.0.0.1"])
async def test_tls_of_another_name_is_refused(authority, name):
    async with receiver(trust=served_as(authority, name)) as listening:
        with pytest.raises(DeliveryError, match="certificate"):
            await post(sender(trust=trusting(authority)), url(listening.port, scheme="https"))
    assert not listening.requests


async def test_tls_of_an_unknown_authority_is_refused(authority):
    async with receiver(trust=served_as(authority, HOST)) as listening:
        with pytest.raises(DeliveryError, match="certificate"):
            await post(sender(), url(listening.port, scheme="https"))


async def test_an_endless_answer_over_tls_is_cut(authority):
    behavior = endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
    async with receiver(behavior, trust=served_as(authority, HOST)) as listening:
        with pytest.raises(DeliveryError):
            await post(sender(trust=trusting(authority)), url(listening.port, scheme="https"))


async def test_the_systems_resolver_knows_this_host():
    async with receiver(answering(ACCEPTED)) as listening:
        system = Outbound(CallbackHosts.parse("localhost:*"))
        assert (await post(system, url(listening.port, host="localhost"))).status == 204


async def test_a_lookup_that_hangs_delays_no_other(monkeypatch):
    hang = threading.Event()
    real = socket.getaddrinfo

    def look_up(host, *arguments, **named):
        if host.startswith("dead"):
            hang.wait(30)
        return real("127.0.0.1", *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(outbound, "MAX_LOOKUPS", 3)
    resolver = outbound.SystemResolver()
    dead = [asyncio.create_task(resolver(f"dead{number}", 80)) for number in range(2)]
    try:
        assert await resolver("alive", 80) == [ip_address("127.0.0.1")]
        dead[0].cancel()
    finally:
        hang.set()
    assert await dead[1] == [ip_address("127.0.0.1")]
    # The places are free again, that of the canceled lookup too.
    async with asyncio.timeout(60):
        await asyncio.gather(*(resolver(f"again{number}", 80) for number in range(6)))


async def test_a_name_that_is_not_there(monkeypatch):
    with pytest.raises(DeliveryError, match="cannot be resolved"):
        await post(Outbound(CallbackHosts.parse("*")), url(80, host="absent.invalid"))


class _Noted(httpcore2.AsyncNetworkBackend):
    """A network that only notes where a connection would go."""

    def __init__(self) -> None:
        self.to: list[tuple[str, int]] = []

    async def connect_tcp(self, host, port, *_arguments, **_named):
        self.to.append((host, port))
        raise httpcore2.ConnectError


FORBIDDEN = (
    *("127.0.0.0", "10.0.0.0", "169.254.169.254", "0.0.0.0", "100.100.100.200", "::1"),
    *("::ffff:127.0.0.1", "64:ff9b::a00:0", "fd00::", "fe80::", "2002:7f00:1::", "2001::"),
)
ADDRESSES = st.one_of(
    st.ip_addresses(),
    # Those that matter are rare among all.
    st.builds(
        lambda first, offset: ip_address(first) + offset,
        st.sampled_from(FORBIDDEN),
        st.integers(0, 3),
    ),
)
NAMES = st.sampled_from(
    f"{HOST} localhost 127.1 2130706433 0x7f.1 0177.0.0.1 10.0.0.1 [::1] [::ffff:10.0.0.1] "
    f"a.example.org 169.254.169.254 metadata.google.internal user@10.0.0.1 {HOST}@127.0.0.1 "
    f"{HOST}#@127.0.0.1 \uff11\uff12\uff17.0.0.1".split()
)
LISTS = st.sampled_from(["*", "*:*", "*,10.0.0.0/8:8080", "localhost:9000,*:*", "*.example.org:*"])
PORTS = st.sampled_from([22, 80, 443, 6379, 8080, 9000])


@given(host=NAMES, found=st.lists(ADDRESSES, max_size=4), port=PORTS, listed=LISTS)
@example(host=HOST, found=[ip_address("::ffff:7f00:1")], port=80, listed="*:*")
async def test_no_allowed_url_connects_to_an_address_that_is_not_listed(host, found, port, listed):
    hosts = CallbackHosts.parse(listed)
    try:
        checked = check_url(f"http://{host}:{port}/", hosts)
    except Refusal:
        return

    async def resolve(_host, _port):
        return found

    guarded = Outbound(hosts, resolve=resolve, trust=NO_TRUST)
    guarded._backend._network = network = _Noted()  # type: ignore[assignment]
    with pytest.raises(DeliveryError):
        await post(guarded, checked)
    for address, connected in network.to:
        assert connected == port
        if kind := kind_of_private(ip_address(address)):
            named = {
                "*,10.0.0.0/8:8080": kind == "a private address" and port == 8080,
                "localhost:9000,*:*": kind == "a loopback address" and port == 9000,
            }
            assert named.get(listed), (address, kind)
