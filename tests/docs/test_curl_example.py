"""The example for tar, openssl and curl signs as it should, and keeps the secret out of `ps`."""

import hashlib
import hmac
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "clients" / "curl" / "build.sh"
PROGRAMS = ("openssl", "od", "tr", "wc", "cat", "tar", "sed")


@pytest.mark.parametrize("length", [32, 64, 100])
def test_the_secret_is_in_no_list_of_processes(tmp_path: Path, length: int) -> None:
    secret = ("canary-%" * length)[:length]
    (tmp_path / "secret").write_text(secret + "\n")
    (tmp_path / "hello").mkdir()
    (tmp_path / "hello" / "Dockerfile").write_text("FROM scratch\n")
    bin_, seen = tmp_path / "bin", tmp_path / "seen"
    bin_.mkdir()
    for name in PROGRAMS:
        real = shutil.which(name)
        _write(bin_ / name, f'echo {name} "$@" >>{seen}\nexec {real} "$@"')
    _write(
        bin_ / "curl",
        f'echo curl "$@" >>{seen}\n'
        f'for each; do case $each in */req.tar) cp "$each" {tmp_path}/body ;; esac; done\n'
        """echo '{"status":"success"}'""",
    )
    subprocess.run(
        ["sh", EXAMPLE, tmp_path / "hello", "r:5000/hello:1"],
        env=os.environ
        | {
            "PATH": f"{bin_}:{os.environ['PATH']}",
            "OPENFAAS_PAYLOAD_SECRET": str(tmp_path / "secret"),
        },
        check=True,
        timeout=60,
        capture_output=True,
    )
    body = (tmp_path / "body").read_bytes()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    commands = seen.read_text()
    assert f"X-Build-Signature: sha256={signature} " in commands
    assert "openssl dgst" in commands
    assert "canary" not in commands


def _write(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
