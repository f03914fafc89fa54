"""Receive callbacks of builds: python callback.py [HOST:PORT]."""

import hashlib
import hmac
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

MAX_BODY_BYTES = 20_000


def verify(body, headers, webhook_secret, payload_secret):
    """The event in a callback's body; raises ValueError, which says in one line what is wrong.

    Give it the body's bytes as they were received: parsed and written again, they may differ.
    """
    try:
        event = Webhook(webhook_secret).verify(body, headers)
    except WebhookVerificationError as error:
        raise ValueError(f"{error}: {HINTS.get(str(error), 'is this a callback?')}") from None
    except ValueError as error:  # a signature that is not base64, a body that is not JSON
        raise ValueError(f"malformed: {error}") from None
    # The same body under the payload secret, as a request to build is signed.
    mac = hmac.new(payload_secret.strip(), body, hashlib.sha256).hexdigest()
    sent = {name.lower(): value for name, value in headers.items()}.get("x-build-signature", "")
    if not hmac.compare_digest(sent.encode(), f"sha256={mac}".encode()):
        raise ValueError("X-Build-Signature does not match: compare the payload secrets")
    return event


HINTS = {
    "Missing required headers": "this is not a callback, or a proxy removed webhook-* headers",
    "Message timestamp too old": "compare the clocks; an old callback may have been sent again",
    "Message timestamp too new": "compare the clocks",
    "No matching signature found": "compare the webhook secrets; verify the bytes as received",
}


SEEN = set()  # keep it in a database: a callback may come twice, with one id


class Receiver(BaseHTTPRequestHandler):
    webhook_secret = payload_secret = b""

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if length > MAX_BODY_BYTES:
            return self.answer(413, "too large for a callback")
        try:
            event = verify(
                self.rfile.read(length),
                dict(self.headers),
                self.webhook_secret.decode(),
                self.payload_secret,
            )
        except ValueError as error:
            print(f"refused: {error}", file=sys.stderr, flush=True)
            return self.answer(401, str(error))
        if self.headers["webhook-id"] not in SEEN:
            SEEN.add(self.headers["webhook-id"])
            build = event["data"]
            print(event["type"], build["buildId"], build["status"], flush=True)
        return self.answer(204)

    def answer(self, status, text=""):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def secret(variable, otherwise):
    file = Path(os.environ.get(variable, otherwise))
    try:
        return file.read_bytes().strip()
    except OSError as error:
        sys.exit(f"set {variable} to the file with the secret: {error}")


if __name__ == "__main__":
    host, _, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9000").rpartition(":")
    Receiver.webhook_secret = secret("WEBHOOK_SECRET_FILE", ".run/webhook-secret")
    Receiver.payload_secret = secret("OPENFAAS_PAYLOAD_SECRET", ".run/payload-secret")
    with ThreadingHTTPServer((host, int(port)), Receiver) as server:
        print(f"receiving on http://{host}:{server.server_port}/", flush=True)
        server.serve_forever()
