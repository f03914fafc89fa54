"""The text of `up` about building another image."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from function_builder.cli.stack import Stack


def next_steps(stack: Stack) -> str:
    """Commands for another build: with ours, with tar, Python and curl, and with a secret."""
    command = _command()
    example, secret = shlex.quote(str(stack.example)), shlex.quote(str(stack.secret_file))
    key, state = shlex.quote(str(stack.secrets_key_file)), shlex.quote(str(stack.state))
    return f"""
Build your own, from another terminal:

  {command} build {example} --image {stack.registry}/own:latest \\
    --url {stack.url} --payload-secret {secret}

The same without our command:

  mkdir -p request/context && cp -r {example}/. request/context
  echo '{{"image":"{stack.registry}/mine:latest"}}' > request/com.openfaas.docker.config
  tar -C request -cf request.tar com.openfaas.docker.config context
  hmac=$(python3 -c 'import hmac, sys; key, body = [open(f, "rb").read() for f in sys.argv[1:]]; \
print(hmac.new(key.strip(), body, "sha256").hexdigest())' {secret} request.tar)
  curl -N {stack.url}/build -H "X-Build-Signature: sha256=$hmac" \\
    -H "Accept: application/x-ndjson" --data-binary @request.tar

The same with a build secret, sealed so that only this builder can open it:

  echo 'RUN --mount=type=secret,id=token,mode=0444 wc -c /run/secrets/token' \\
    >> request/context/Dockerfile
  {command} secret seal {key}.pub --from-literal token=s3cr3t -o request/sealed
  {command} build request/context --image {stack.registry_listen}/mine:sealed \\
    --secrets request/sealed --url {stack.url} --payload-secret {secret}

New builds are shown here. Ctrl-C stops everything; {state} keeps caches, images and logs.
"""


def _command() -> str:
    """The program as another terminal finds it: there PATH has no virtual environment of ours."""
    program = Path(sys.executable).parent / "function-builder"
    return shlex.quote(str(program)) if program.exists() else "function-builder"
