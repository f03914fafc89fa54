import os
import socket
from pathlib import Path

import pytest

from function_builder.engine.address import (
    ensure_free,
    ensure_silent,
    socket_directory,
    split,
)
from function_builder.engine.errors import AddressTaken, EngineError
from tests.support import free_address


@pytest.mark.parametrize(
    ("address", "parts"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:5000", ("::1", 5000)), (":1", ("", 1))],
)
def test_an_address_is_taken_apart(address, parts):
    assert split(address) == parts


@pytest.mark.parametrize("address", ["", "5000", "host:", "host:http", "host:-1"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match="not host:port"):
        split(address)


def test_a_listener_takes_its_address_and_gives_it_back():
    address = free_address()
    taken = pytest.raises(AddressTaken, match=f"^{address} is taken by another program$")
    with socket.create_server(split(address)), taken:
        ensure_free(address)
    ensure_free(address)


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
