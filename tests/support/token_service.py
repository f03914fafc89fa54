"""A registry's token service: users' passwords, or an identity token, for signed access tokens.

Source: distribution, `docs/content/spec/auth/` (token, jwt, scope, oauth).
"""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from tests.support.registries import USERS

IDENTITY_TOKEN = "only-for-tests-identity"


@dataclass
class TokenService:
    """A service that gives those who are known what they ask for, and others nothing.

    Attributes:
        url: its realm.
        grants: who was given what.
        failures: status codes with which the next requests are answered.
        refused: by method, the status of every request with a password; BuildKit by itself begins
            with GET.
        deaf_to: whose requests are cut, by a part of their User-Agent.
    """

    url: str = ""
    grants: list[tuple[str, str]] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    deaf_to: str = ""
    _key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def registry_auth(self, root: Path) -> dict[str, Any]:
        """The configuration `auth` of a registry that trusts this service."""
        numbers = self._key.public_key().public_numbers()
        jwk = {
            "kty": "EC",
            "crv": "P-256",
            "kid": "tests",
            "use": "sig",
            "alg": "ES256",
            "x": _b64(numbers.x.to_bytes(32, "big")),
            "y": _b64(numbers.y.to_bytes(32, "big")),
        }
        path = root / "jwks.json"
        path.write_text(json.dumps({"keys": [jwk]}))
        return {
            "token": {
                "realm": self.url,
                "service": "tests",
                "issuer": "tests",
                "jwks": str(path),
            }
        }

    def token(self, scopes: list[str]) -> str:
        """A token for scopes such as `repository:a/b:pull,push`."""
        access = [
            {"type": kind, "name": name, "actions": actions.split(",")}
            for kind, name, actions in (scope.split(":") for scope in scopes)
        ]
        now = int(time.time())
        claims = {
            "iss": "tests",
            "aud": "tests",
            "sub": "",
            "nbf": now - 10,
            "iat": now,
            "exp": now + 300,
            "jti": "1",
            "access": access,
        }
        head = {"typ": "JWT", "alg": "ES256", "kid": "tests"}
        signed = ".".join(_b64(json.dumps(part).encode()) for part in (head, claims))
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(SHA256())))
        return f"{signed}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def answer(self, method: str, user: str, scopes: list[str]) -> tuple[int, dict[str, Any]]:
        """What a request is told; an empty user is unknown."""
        if self.failures:
            return self.failures.pop(0), {}
        if method in self.refused and user != "identity":
            return self.refused[method], {}
        if not user:
            return 401, {"errors": [{"code": "UNAUTHORIZED"}]}
        self.grants += [(user, scope) for scope in scopes]
        token = self.token(scopes)
        return 200, {"token": token, "access_token": token, "expires_in": 300}


@contextmanager
def running_token_service() -> Iterator[TokenService]:
    """A token service on a port of its own."""
    service = TokenService()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            user, password = _basic(self.headers.get("Authorization", ""))
            known = USERS.get(user, ("",))[0] == password != ""
            query = parse_qs(urlsplit(self.path).query)
            self._reply(user if known else "", _scopes(query))

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            user = form.get("username", [""])[0]
            if form.get("refresh_token") == [IDENTITY_TOKEN]:
                user = "identity"
            elif form.get("password") != [USERS.get(user, ("",))[0]]:
                user = ""
            self._reply(user, _scopes(form))

        def _reply(self, user: str, scopes: list[str]) -> None:
            if service.deaf_to and service.deaf_to in self.headers.get("User-Agent", ""):
                self.close_connection = True
                return
            status, document = service.answer(self.command, user, scopes)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service.url = f"http://127.0.0.1:{server.server_port}/token"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()


def _scopes(query: dict[str, list[str]]) -> list[str]:
    return [scope for value in query.get("scope", []) for scope in value.split()]


def _basic(header: str) -> tuple[str, str]:
    kind, _, encoded = header.partition(" ")
    if kind != "Basic":
        return "", ""
    user, _, password = base64.b64decode(encoded).decode().partition(":")
    return user, password


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
