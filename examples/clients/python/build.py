"""Build a directory with requests, and push it: python build.py DIR IMAGE."""

import hashlib
import hmac
import io
import json
import os
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import requests


class BuildError(Exception):
    """The builder refused the build, or the build failed; the text says why."""


def build(directory, image, *, url, secret, on_log=print):
    """Build a directory with a Dockerfile, and push the image.

    Returns the last object of the log, with `image` and `digest`. Raises BuildError.
    """
    with tempfile.TemporaryFile() as body:
        pack(directory, image, body)
        reply = post(body, url, secret)
    if not reply.ok:
        raise BuildError(f"refused: {reply.status_code}: {reply.text}")
    event = {}
    for line in reply.iter_lines():
        event = json.loads(line)
        for text in event.get("log", []):
            on_log(text)
    if event.get("status") != "success":
        error = event.get("error", "the builder was lost before the build's end")
        raise BuildError(f"build failed: {error}")
    return event


def pack(directory, image, file):
    """Write a request's tar: the configuration, and the directory as the build context."""
    config = json.dumps({"image": image}).encode()
    with tarfile.open(fileobj=file, mode="w") as tar:
        entry = tarfile.TarInfo("com.openfaas.docker.config")
        entry.size = len(config)
        tar.addfile(entry, io.BytesIO(config))
        tar.add(directory, "context")


def post(body, url, secret):
    """Sign a request, and send it until the builder is not busy (429)."""
    body.seek(0)
    mac = hashlib.file_digest(body, lambda: hmac.new(secret, digestmod="sha256"))
    headers = {
        "X-Build-Signature": f"sha256={mac.hexdigest()}",
        "Content-Type": "application/octet-stream",
        "Accept": "application/x-ndjson",
    }
    for _ in range(60):
        body.seek(0)
        # The builder is never silent for longer than 15 seconds.
        reply = requests.post(
            f"{url}/build", data=body, headers=headers, stream=True, timeout=(10, 60)
        )
        if reply.status_code != 429:
            break
        seconds = int(reply.headers.get("Retry-After", 5))
        print(f"the builder is busy: trying again in {seconds} s", file=sys.stderr)
        time.sleep(seconds)
    return reply


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: python build.py DIR IMAGE")
    # Old versions of faas-cli want the URL with /build.
    url = os.environ.get("OPENFAAS_REMOTE_BUILDER", "http://127.0.0.1:8080")
    url = url.removesuffix("/").removesuffix("/build")
    secret = Path(os.environ.get("OPENFAAS_PAYLOAD_SECRET", ".run/payload-secret"))
    try:
        result = build(*sys.argv[1:], url=url, secret=secret.read_bytes().strip())
    except (BuildError, OSError) as error:  # OSError: no secret, no connection
        sys.exit(str(error))
    print(f"{result['image']}@{result['digest']}")


if __name__ == "__main__":
    main()
