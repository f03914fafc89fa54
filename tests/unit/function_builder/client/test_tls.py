import datetime as dt
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme

from function_builder.client import AsyncClient, BuildConfig, Unreachable, tls_context
from function_builder.client.blocking import Blocking, run
from function_builder.client.on_asyncio import OnAsyncio
from function_builder.client.runtime import Runtime

CONFIG = BuildConfig(image="127.0.0.1:5000/hello:1")
AUTHORITY = trustme.CA()
NOW = dt.datetime.now(dt.UTC)
GOOD = AUTHORITY.issue_cert("127.0.0.1")
OF_ANOTHER = AUTHORITY.issue_cert("builder.example")
EXPIRED = AUTHORITY.issue_cert(
    "127.0.0.1",
    not_before=NOW - dt.timedelta(days=2),
    not_after=NOW - dt.timedelta(days=1),
)
ANSWER = b'{"status":"success","image":"i"}'


class Builder(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Blocking sockets: asyncio's server closes a connection without TLS's alert."""

    context: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        with suppress(OSError):
            if self.context is None:
                super().finish_request(request, client_address)
                return
            with self.context.wrap_socket(request, server_side=True) as secure:
                super().finish_request(secure, client_address)


@contextmanager
def server(
    certificate: trustme.LeafCert | None, *, asks_for: trustme.CA | None = None
) -> Iterator[str]:
    """The host and port of what answers a build, over TLS if it has a certificate."""
    with Server(("127.0.0.1", 0), Builder) as serving:
        if certificate is not None:
            serving.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(serving.context)
            if asks_for is not None:
                serving.context.verify_mode = ssl.CERT_REQUIRED
                asks_for.configure_trust(serving.context)
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


@pytest.fixture
def cacert(tmp_path: Path) -> Path:
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


async def reason(
    url: str, hello: Path, context: ssl.SSLContext | None = None, runtime: Runtime | None = None
) -> str:
    async with AsyncClient(url, ssl_context=context, runtime=runtime) as client:
        with pytest.raises(Unreachable) as caught:
            await client.build(hello, CONFIG)
    return str(caught.value)


@pytest.mark.parametrize("size", [1, 8 << 20])
@pytest.mark.parametrize("runtime", [OnAsyncio(), Blocking()], ids=["asyncio", "blocking"])
async def test_what_is_wrong_with_tls_is_said(
    hello: Path, cacert: Path, runtime: Runtime, size: int
) -> None:
    """Whether the body ends before the server closes the connection, or is cut short."""

    async def why(url: str, context: ssl.SSLContext | None = None) -> str:
        return await reason(url, hello, context, runtime)

    (hello / "large").write_bytes(bytes(size))
    trusting = tls_context(cacert=cacert)
    with server(GOOD) as address:
        assert "an authority that this machine does not trust" in await why(f"https://{address}")
        assert "speaks TLS: use https://" in await why(f"http://{address}")
    with server(EXPIRED) as address:
        assert "certificate has expired" in await why(f"https://{address}", trusting)
    with server(OF_ANOTHER) as address:
        said = await why(f"https://{address}", trusting)
        assert "certificate is not accepted" in said
        assert "not valid for '127.0.0.1'" in said
    with server(GOOD, asks_for=AUTHORITY) as address:
        assert "client certificate (--cert" in await why(f"https://{address}", trusting)
    with server(None) as address:
        assert "is it plain HTTP" in await why(f"https://{address}", trusting)


async def test_a_client_certificate_is_shown(hello: Path, cacert: Path, tmp_path: Path) -> None:
    mine = AUTHORITY.issue_cert("me@example.com")
    cert, key, both = (tmp_path / name for name in ("cert.pem", "key.pem", "both.pem"))
    mine.cert_chain_pems[0].write_to_path(str(cert))
    mine.private_key_pem.write_to_path(str(key))
    mine.private_key_and_cert_chain_pem.write_to_path(str(both))
    contexts = [
        tls_context(cacert=cacert, cert=cert, key=key),
        tls_context(cacert=str(cacert), cert=str(both)),
    ]
    with server(GOOD, asks_for=AUTHORITY) as address:
        for context in contexts:
            async with AsyncClient(f"https://{address}", ssl_context=context) as client:
                assert (await client.build(hello, CONFIG)).image == "i"
            blocking = AsyncClient(f"https://{address}", ssl_context=context, runtime=Blocking())
            assert run(blocking.build(hello, CONFIG)).image == "i"


async def test_openssls_variables_name_the_authorities(
    hello: Path, cacert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(cacert))
    with server(GOOD) as address:
        async with AsyncClient(f"https://{address}") as client:
            assert (await client.build(hello, CONFIG)).image == "i"
    monkeypatch.setenv("SSL_CERT_FILE", "/absent.pem")
    with pytest.raises(ValueError, match=r"cannot read /absent.pem: No such file"):
        AsyncClient("https://127.0.0.1")
    AsyncClient("http://127.0.0.1")


async def test_an_alert_that_comes_after_the_handshake_is_said(
    hello: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the library meets the alert or the closed connection first is a race."""
    alert = ssl.SSLError(1, "tlsv13 alert certificate required")
    alert.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"

    async def meet_the_alert(*_: object) -> None:
        raise alert

    monkeypatch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", meet_the_alert)
    assert "client certificate (--cert" in await reason("https://127.0.0.1:1", hello)
