"""What the README tells a newcomer to type, typed."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from function_builder.contract.result import BuildStatus, parse_result
from tests.support.images import pull

pytestmark = pytest.mark.integration

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def block(builder, registry, tmp_path):
    """The README's code block that holds these words, for this test's addresses and places."""

    def find(words: str) -> str:
        blocks = re.findall(r"```\w+\n(.*?)```", README.read_text(), re.DOTALL)
        found: str
        (found,) = (block for block in blocks if words in block)
        for theirs, ours in (
            ("http://127.0.0.1:8080", builder.url),
            ("127.0.0.1:5000", registry),
            (".run/payload-secret", str(builder.secrets / "payload-secret")),
            ("/tmp/mine", str(tmp_path / "mine")),
            (".venv/bin/function-builder", f"{sys.executable} -m function_builder"),
        ):
            found = found.replace(theirs, ours)
        return found

    return find


async def run(*command: str, url: str = "") -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "OPENFAAS_REMOTE_BUILDER": url} if url else None,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def test_a_minute_with_curl_then_our_client_then_python(block, builder, registry):
    answer = parse_result(await run("sh", "-euc", block("curl -sS")))
    assert answer.status is BuildStatus.SUCCESS, answer.error
    image = pull(registry, "mine", "1")
    assert image.digest == answer.digest
    assert image.text("built").startswith("built on ")
    assert image.config["config"]["Cmd"] == ["cat", "/built"]

    client = block("function-builder build /tmp/mine/context")
    secret = str(builder.secrets / "payload-secret")
    said = await run("sh", "-euc", f"{client.strip()} --payload-secret {secret}", url=builder.url)
    assert said == f"{registry}/mine:2@{pull(registry, 'mine', '2').digest}\n"

    said = await run(sys.executable, "-c", block("from function_builder import"))
    assert said == f"success {registry}/mine:3 {pull(registry, 'mine', '3').digest}\n"
