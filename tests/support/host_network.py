"""What a host has on its network: addresses, an HTTP server, a DNS server, git repositories.

They need a network namespace of the test's own (`scripts/test` as root).
"""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingUDPServer
from threading import Thread
from typing import Any, ClassVar

import pytest

from function_builder.engine import find_tool
from tests.support import free_address

OWN = {"lo", "buildkit0"}
"""The interfaces of a network of our own. BuildKit with `run_network=bridge` leaves its bridge."""


@contextmanager
def addresses(*added: str) -> Iterator[None]:
    """Addresses of this host that are not its loopback network's."""
    if os.geteuid() or not {name for _, name in socket.if_nameindex()} <= OWN:
        pytest.skip("no network of our own (scripts/test): it would be the machine's that changes")
    change = [str(find_tool("busybox")), "ip", "address"]
    for one in added:
        subprocess.run([*change, "add", f"{one}/{_bits(one)}", "dev", "lo"], check=True)
    try:
        yield
    finally:
        for one in added:
            subprocess.run([*change, "del", f"{one}/{_bits(one)}", "dev", "lo"], check=True)


def _bits(address: str) -> int:
    return ip_address(address).max_prefixlen


class _Web(BaseHTTPRequestHandler):
    """Answers every GET, and redirects that of `/to/host:port`."""

    server: "WebServer"

    def do_GET(self) -> None:
        self.server.asked.add(self.connection.getsockname()[0].removeprefix("::ffff:"))
        _, found, target = self.path.partition("/to/")
        self.send_response(302 if found else 200)
        if found:
            self.send_header("Location", f"http://{target}/")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


class WebServer(ThreadingHTTPServer):
    """An HTTP server on an address; on all of IPv4 and IPv6 with `::`.

    Attributes:
        asked: the addresses at which it was asked.
    """

    def __init__(self, host: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.asked: set[str] = set()
        super().__init__((host, 0), _Web)


class _Names(BaseRequestHandler):
    """Answers with the address that a name consists of, as in `a-127-0-0-1.test`."""

    QUERIES: ClassVar = {1: 4, 28: 6}

    def handle(self) -> None:
        query, answering = self.request
        length = query[12]
        name = query[13 : 13 + length].decode()
        end = query.index(b"\0", 12) + 5
        version = self.QUERIES.get(int.from_bytes(query[end - 4 : end - 2]))
        separator = {"a": ".", "b": ":"}.get(name[:1], "?")
        answer = b""
        try:
            address = ip_address(name[2:].replace("-", separator))
        except ValueError:
            pass
        else:
            if address.version == version:
                head = b"\xc0\x0c" + query[end - 4 : end] + bytes(4)
                answer = head + len(address.packed).to_bytes(2) + address.packed
        counts = b"\0\1" + (b"\0\1" if answer else b"\0\0") + bytes(4)
        answering.sendto(
            query[:2] + b"\x81\x80" + counts + query[12:end] + answer, self.client_address
        )


def name_of(address: str) -> str:
    """The name that the DNS server resolves to an address."""
    return f"{'b' if ':' in address else 'a'}-{address.replace('.', '-').replace(':', '-')}.test"


@contextmanager
def serving(server: ThreadingHTTPServer | ThreadingUDPServer) -> Iterator[int]:
    """Run a server; its port."""
    with server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def names_on_loopback() -> ThreadingUDPServer:
    """A DNS server on 127.0.0.1."""
    return ThreadingUDPServer(("127.0.0.1", 53), _Names)


@contextmanager
def git_repositories(base: Path, host: str) -> Iterator[str]:
    """Serve `plain` and `outer` at git://host:port; a submodule of `outer` is at 127.0.0.1.

    Yields:
        The `host:port`.
    """
    port = free_address().partition(":")[2]

    def git(repository: str, *words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
        subprocess.run(["git", "-C", base / repository, *who, *words], check=True)

    for name in ("plain", "outer"):
        (base / name).mkdir(parents=True)
        git(name, "init", "--quiet")
        (base / name / "file").write_text("here\n")
    git("plain", "add", "file")
    git("plain", "commit", "--quiet", "-m", "1")
    module = f'[submodule "s"]\n\tpath = s\n\turl = git://127.0.0.1:{port}/plain\n'
    (base / "outer" / ".gitmodules").write_text(module)
    git("outer", "add", "file", ".gitmodules")
    head = subprocess.check_output(["git", "-C", base / "plain", "rev-parse", "HEAD"], text=True)
    git("outer", "update-index", "--add", "--cacheinfo", f"160000,{head.strip()},s")
    git("outer", "commit", "--quiet", "-m", "1")
    serve = ["git", "daemon", "--export-all", f"--base-path={base}", f"--port={port}"]
    listen = [f"--listen={one}" for one in (host, "127.0.0.1")]
    with subprocess.Popen([*serve, *listen, str(base)], stderr=subprocess.DEVNULL) as daemon:
        try:
            yield f"{host}:{port}"
        finally:
            daemon.terminate()
