"""A client without an event loop: what it understands of HTTP, and when it is not used."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from function_builder.client import AsyncClient, BuildResult, Refused, Unreachable
from function_builder.client.blocking import Blocking, has_proxy, run
from function_builder.client.stream import STREAM_TYPE
from tests.support import free_address

DONE = b'{"status":"success","image":"i"}\n'
HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: {STREAM_TYPE}\r\n".encode()


@contextmanager
def answering(*parts: bytes, reads: bool = True, hold: bool = False) -> Iterator[str]:
    """A server that answers one request with these bytes, and then closes, unless it holds."""
    left = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(60)

        def answer() -> None:
            with suppress(OSError), listening.accept()[0] as connection:
                connection.settimeout(60)
                request = b""
                while reads and not request.endswith(bytes(1024)):
                    request += connection.recv(1 << 16)
                for part in parts:
                    connection.sendall(part)
                if hold:
                    left.wait(60)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            left.set()
            thread.join()


def build(url: str, hello: Path, **options: float) -> BuildResult:
    async def follow() -> BuildResult:
        async with (
            AsyncClient(url, runtime=Blocking(), manifest=False, **options) as client,  # type: ignore[arg-type]
            client.stream(hello, image="i") as stream,
        ):
            return await stream.result()

    return run(follow())


@pytest.mark.parametrize(
    "parts",
    [
        [HEAD + b"Content-Length: %d\r\n\r\n" % len(DONE), DONE],
        [HEAD + b"\r\n", DONE],
        [b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"\r\n" + DONE],
        [
            *(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\n", DONE[:5]),
            *(b"\r\n1", b"c;a=b\r\n", DONE[5:], b"\r\n0\r\nTrailer: x\r\n\r\n"),
        ],
        [bytes([each]) for each in HEAD + b"Content-Length: %d\r\n\r\n" % len(DONE) + DONE],
    ],
    ids=["length", "until the end", "informational", "chunked", "byte by byte"],
)
def test_each_framing_of_an_answer(hello: Path, parts: list[bytes]) -> None:
    with answering(*parts) as url:
        assert build(url, hello).image == "i"


@pytest.mark.parametrize(
    "parts",
    [
        [HEAD + b"Content-Length: 100\r\n\r\n", b'{"status":"in_progress"}\n'],
        [HEAD + b"Content-Length: 1e2\r\n\r\n", DONE],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"-1\r\n", DONE],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\n", DONE],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 200_000],
    ],
    ids=["cut short", "no length", "negative", "no end of a chunk", "endless size"],
)
def test_an_answer_that_breaks_off_is_a_failed_build(hello: Path, parts: list[bytes]) -> None:
    with answering(*parts) as url:
        assert "connection was lost" in build(url, hello).error


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 200,
    ],
    ids=["nothing", "ssh", "status", "header", "long", "informational for ever"],
)
def test_an_answer_that_is_not_http(hello: Path, answer: bytes) -> None:
    with answering(answer) as url, pytest.raises(Unreachable, match="closed the connection"):
        build(url, hello)


def test_a_refusal_before_the_body_was_read_is_seen(hello: Path) -> None:
    (hello / "large").write_bytes(bytes(4 << 20))
    answer = b"HTTP/1.1 413 Too large\r\nConnection: close\r\nContent-Length: 9\r\n\r\ntoo large"
    with answering(answer, reads=False) as url, pytest.raises(Refused, match="too large"):
        build(url, hello)


def test_a_silent_builder_is_not_waited_for(hello: Path) -> None:
    with answering(hold=True) as url, pytest.raises(Unreachable, match="sent no answer"):
        build(url, hello, read_timeout=0.2)
    with answering(HEAD + b"\r\n", hold=True) as url:
        assert "fell silent" in build(url, hello, read_timeout=0.2).error


def test_no_builder_listens(hello: Path) -> None:
    with pytest.raises(Unreachable, match="Connection refused"):
        build(f"http://{free_address()}", hello)


def test_a_coroutine_that_needs_a_loop_is_refused(hello: Path) -> None:
    with pytest.raises(RuntimeError):
        run(AsyncClient(f"http://{free_address()}").build(hello, image="i"))


def test_a_proxy_needs_the_other_client() -> None:
    proxy = {"HTTPS_PROXY": "http://proxy:3128"}
    assert has_proxy("https://builder", proxy)
    assert not has_proxy("http://127.0.0.1:8080", proxy)
    assert not has_proxy("https://builder", {"HTTPS_PROXY": "", "HOME": "/"})
