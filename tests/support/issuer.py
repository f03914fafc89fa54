"""An OpenID Connect issuer on this machine, which answers over HTTP as it is told to."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

AUDIENCE: Final = "https://builder.example.com"

KEY_SET_TYPE: Final = "application/jwk-set+json"

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


class Issuer:
    """Signs tokens, and serves its keys.

    Attributes:
        url: its name.
        asked: the paths of the requests to it.
        answers: what it answers, by path; a test may replace an answer.
        keys: the private keys, by kid.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[str] = []
        self.keys: dict[str, Any] = {}
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], Answer]] = {
            "/.well-known/openid-configuration": lambda _: as_json(self.metadata()),
            "/jwks": self._key_set,
        }
        self.add_key("one")
        self.forms: list[dict[str, str]] = []

    def _key_set(self, request: BaseHTTPRequestHandler) -> Answer:
        """The public keys, to a client that accepts their type, as Kubernetes' API server does."""
        if KEY_SET_TYPE not in request.headers.get("Accept", ""):
            return 406, {}, b"406: Not Acceptable"
        _, _, body = as_json({"keys": [self.jwk(kid) for kid in self.keys]})
        return 200, {"Content-Type": KEY_SET_TYPE}, body

    def allow_sign_in(self, client: str, **claims: Any) -> None:
        """Sign each browser in that asks for it, as a user with these claims; codes are nonces."""

        def authorize(request: BaseHTTPRequestHandler) -> Answer:
            query = fields(request.path.partition("?")[2])
            self.forms.append(query)
            answer = urlencode({"code": query["nonce"], "state": query["state"], "iss": self.url})
            return 302, {"Location": f"{query['redirect_uri']}?{answer}"}, b""

        def token(request: BaseHTTPRequestHandler) -> Answer:
            form = fields(request.rfile.read(int(request.headers["Content-Length"])).decode())
            self.forms.append(form | {"authorization": request.headers.get("Authorization", "")})
            digest = hashlib.sha256(form["code_verifier"].encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            begun = [each for each in self.forms if each.get("nonce") == form["code"]]
            if not begun or begun[0]["code_challenge"] != challenge:
                return 400, {}, b"{}"
            said = {"aud": client, "nonce": form["code"]} | claims
            return as_json({"id_token": self.token(**said)})

        self.answers |= {"/authorize": authorize, "/token": token}

    def add_key(self, kid: str) -> None:
        self.keys[kid] = ec.generate_private_key(ec.SECP256R1())

    def metadata(self) -> dict[str, str]:
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/jwks",
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
        }

    def jwk(self, kid: str) -> dict[str, Any]:
        key = self.keys[kid].public_key()
        algorithm = jwt.get_algorithm_by_name(self.algorithm(kid))
        jwk: dict[str, Any] = algorithm.to_jwk(key, as_dict=True)
        return jwk | {"kid": kid, "use": "sig"}

    def algorithm(self, kid: str) -> str:
        return "ES256" if isinstance(self.keys[kid], ec.EllipticCurvePrivateKey) else "RS256"

    def token(self, kid: str = "one", *, header: Mapping[str, Any] = {}, **claims: Any) -> str:
        """A token that is right for `{repository_owner: acme}`, but for the claims given."""
        now = int(time.time())
        said: dict[str, Any] = {
            "iss": self.url,
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + 300,
            "repository_owner": "acme",
        } | claims
        said = {name: value for name, value in said.items() if value is not None}
        headers = {"kid": kid, **header}
        return jwt.encode(said, self.keys[kid], self.algorithm(kid), headers=headers)


def fields(text: str) -> dict[str, str]:
    """Those of a query or a form."""
    return dict(parse_qsl(text))


def as_json(document: Any) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()


@contextmanager
def running_issuer(host: str = "127.0.0.1") -> Iterator[Issuer]:
    """An issuer at a port of 127.0.0.1, with this name for it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            issuer.asked.append(path)
            answer = issuer.answers.get(path)
            status, headers, body = answer(self) if answer else (404, {}, b"")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 (the library's name)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer = Issuer(f"http://{host}:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()
