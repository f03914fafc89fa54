"""Registries as users have them: with passwords, with tokens, behind TLS, and with bad days."""

import contextlib
import http.server
import json
import socket
import socketserver
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from function_builder.engine import find_tool
from function_builder.engine.address import tcp_answers
from function_builder.engine.process import Program, SupervisedProcess
from tests.support import free_address

USERS = {
    "ann": ("only-for-tests-a", "$2b$04$mJt/M6RD8cczhaesHw8L6OIsnHPfIdQE6xzVzLaJ8HT6IuHEETJ4W"),
    "bob": ("only-for-tests-b", "$2b$04$h2xtXpwWrHlXcgWzYAoXourv53MvF98fQ0mZthQwytAD4EYBzZ3/y"),
}
"""Names, their passwords and these under bcrypt, as htpasswd keeps them."""


def htpasswd(root: Path, *users: str) -> dict[str, Any]:
    """The registry's `auth` for these users."""
    path = root / "htpasswd"
    path.write_text("".join(f"{user}:{USERS[user][1]}\n" for user in users))
    return {"htpasswd": {"realm": "tests", "path": str(path)}}


@asynccontextmanager
async def running_registry(
    root: Path,
    *,
    listen: str | None = None,
    auth: Mapping[str, Any] | None = None,
    tls: Mapping[str, str] | None = None,
) -> AsyncIterator[str]:
    """distribution's registry; gives its `host:port`.

    Args:
        root: a directory of its own.
        listen: where; by default an address that is free.
        auth: its configuration's `auth`.
        tls: its configuration's `http.tls`.
    """
    address = listen or free_address()
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(root / "data")}},
        "http": {"addr": address} | ({"tls": dict(tls)} if tls else {}),
    }
    if auth:
        config["auth"] = dict(auth)
    (root / "config.json").write_text(json.dumps(config))
    program = Program(
        name="registry",
        # JSON is YAML.
        argv=(str(find_tool("registry")), "serve", str(root / "config.json")),
        ready=lambda: tcp_answers(address),
        prepare=lambda: None,
        environment={"OTEL_TRACES_EXPORTER": "none"},
        log=root / "registry.log",
        stop_timeout=5,
    )
    process = SupervisedProcess(program)
    await process.start()
    try:
        yield address
    finally:
        await process.stop()


Fault = Callable[[bytes, bytes], bytes | None]
"""Given a request's method and path: the answer to give in the registry's place, an empty one for
a reset, or None to let it pass."""


@dataclass
class FaultyRegistry:
    """A registry that has bad moments: a proxy before a good one.

    Attributes:
        address: its `host:port`.
        fault: what goes wrong.
        failed: how often it did.
    """

    address: str
    upstream: str
    fault: Fault = lambda _method, _path: None
    failed: int = 0

    def fail(self, method: bytes, part: bytes, answer: bytes, *, times: int) -> None:
        """Let the next `times` requests of this method, with this in their path, fail."""
        self.failed = 0
        # Requests come side by side, each in a thread of its own.
        counting = threading.Lock()

        def fault(had_method: bytes, path: bytes) -> bytes | None:
            if had_method != method or part not in path:
                return None
            with counting:
                if self.failed == times:
                    return None
                self.failed += 1
            return answer

        self.fault = fault

    def _serve(self, client: socket.socket) -> None:
        head = _head(client)
        if not head:
            return
        method, path, _ = head.split(b" ", 2)
        answer = self.fault(method, path)
        if answer is None:
            self._pass_on(head, client)
        elif answer:
            client.sendall(answer)
        else:
            # Without lingering, close() sends a reset (socket(7)).
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _pass_on(self, head: bytes, client: socket.socket) -> None:
        host, port = self.upstream.split(":")
        with socket.create_connection((host, int(port)), timeout=60) as upstream:
            # One request for each connection, so that each is seen here.
            lines = head.split(b"\r\n")[:-2]
            kept = [line for line in lines if not line.lower().startswith(b"connection:")]
            upstream.sendall(b"\r\n".join([*kept, b"Connection: close", b"", b""]))
            body = threading.Thread(target=_copy, args=(client, upstream))
            body.start()
            _copy(upstream, client)
            client.shutdown(socket.SHUT_RDWR)
            body.join()


class _Server(socketserver.ThreadingTCPServer):
    """Its end is that of every connection: BuildKit keeps some that it has opened and not used."""

    def __init__(
        self, address: tuple[str, int], handler: type[socketserver.BaseRequestHandler]
    ) -> None:
        self._open: set[Any] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        for request in tuple(self._open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)
        super().server_close()


@contextmanager
def faulty_registry(upstream: str) -> Iterator[FaultyRegistry]:
    """A faulty registry before the good one at `upstream`."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError), self.request as client:
                faulty._serve(client)

    with _Server(("127.0.0.1", 0), Handler) as server:
        faulty = FaultyRegistry(f"127.0.0.1:{server.server_address[1]}", upstream)
        # shutdown() waits for the end of an interval, which is half a second by itself.
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield faulty
        finally:
            server.shutdown()
            thread.join()


def answer(status: str, *headers: str) -> bytes:
    """An HTTP answer without a body, after which the connection ends."""
    lines = [f"HTTP/1.1 {status}", "Content-Length: 0", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


RESET = b""
"""The connection is reset instead of an answer."""


def _head(client: socket.socket) -> bytes:
    """A request's head, to the byte: what follows it stays in the socket."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        more = client.recv(1)
        if not more:
            return b""
        head += more
    return head


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)


@contextmanager
def web_page() -> Iterator[tuple[str, list[str]]]:
    """A host that answers each request with 200 and a page; its `host:port`, and what it was asked.

    A sign-on proxy does so for who has not signed on.
    """
    asked: list[str] = []

    class Page(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            page = b"<html>please sign in</html>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            """Tests read what was asked."""

    for method in ("GET", "HEAD", "POST", "PUT", "PATCH"):
        setattr(Page, f"do_{method}", Page.answer)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            serving.join()
