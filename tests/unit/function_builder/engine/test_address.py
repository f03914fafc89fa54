import errno
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from aiobuildkit.hostport import HostPort
from function_builder.engine.address import (
    ensure_free,
    ensure_silent,
    listeners,
    socket_directory,
)
from function_builder.engine.errors import AddressTaken, EngineError
from tests.support import free_address


def test_a_listener_takes_its_address_and_gives_it_back():
    address = free_address()
    taken = pytest.raises(AddressTaken, match=f"^{address} is taken by another program$")
    with socket.create_server(HostPort.parse(address)), taken:
        ensure_free(address)
    ensure_free(address)


BOTH = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def reached(port: int) -> set[str]:
    """The loopback addresses at which a port answers."""
    found = set()
    for family, host in BOTH.items():
        with socket.socket(family) as client:
            if client.connect_ex((host, port)) == 0:
                found.add(host)
    return found


def listening(stack, text):
    sockets = listeners(HostPort.parse(text))
    for each in sockets:
        stack.enter_context(each)
    (port,) = {each.getsockname()[1] for each in sockets}
    return reached(port)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        (":0", {"127.0.0.1", "::1"}),
        ("[::]:0", {"127.0.0.1", "::1"}),
        ("0.0.0.0:0", {"127.0.0.1"}),
        ("127.0.0.1:0", {"127.0.0.1"}),
        ("[::1]:0", {"::1"}),
    ],
)
def test_an_address_is_listened_on_over_ipv4_and_ipv6(text, hosts):
    with ExitStack() as stack:
        assert listening(stack, text) == hosts


@pytest.mark.parametrize("error", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
@pytest.mark.parametrize("text", [":0", "[::]:0"])
def test_a_machine_without_ipv6_listens_over_ipv4(monkeypatch, text, error):
    class WithoutIPv6(socket.socket):
        def bind(self, place):
            if self.family == socket.AF_INET6:
                raise OSError(error, os.strerror(error))
            super().bind(place)

    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    sockets = listeners(HostPort.parse(text))
    with ExitStack() as stack:
        (one,) = [stack.enter_context(each) for each in sockets]
        assert one.family == socket.AF_INET


def test_another_program_on_ipv6_alone_is_noticed():
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
        with pytest.raises(AddressTaken, match=f"^:{port} is taken by another program$"):
            listeners(HostPort("", port))
    for each in listeners(HostPort("", port)):
        each.close()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b"])
def test_a_host_without_an_address_is_refused(host):
    with pytest.raises(EngineError, match=f"^{host}:80 cannot be listened on: "):
        listeners(HostPort(host, 80))


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(EngineError, match=r"^192\.0\.2\.1:80 cannot be listened on: Cannot assign"):
        ensure_free("192.0.2.1:80")


def test_a_dead_programs_socket_is_silent(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(AddressTaken):
            ensure_silent(path)
    assert path.is_socket()
    ensure_silent(path)
    ensure_silent(tmp_path / "absent")


def test_a_short_directory_holds_its_own_sockets():
    assert socket_directory(Path("/run/x"), "buildkitd.sock") == Path("/run/x")


def test_a_long_directory_gets_a_short_one_of_its_own_for_its_sockets(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    long = tmp_path / ("x" * 108)
    short = socket_directory(long, "buildkitd.sock")
    try:
        assert short.stat().st_mode & 0o777 == 0o700
        assert len(os.fsencode(short / "buildkitd.sock")) < 108
        assert socket_directory(long, "buildkitd.sock") == short
        other = socket_directory(tmp_path / ("y" * 108), "buildkitd.sock")
        assert other != short
        other.rmdir()
    finally:
        short.rmdir()
