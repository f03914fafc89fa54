"""The examples of clients, each run as a newcomer runs it."""

import sys
from pathlib import Path

import pytest

from tests.integration.clients.programs import EXAMPLES, JAVA, run, run_while_busy
from tests.support.builders import RunningBuilder
from tests.support.images import pull

pytestmark = pytest.mark.integration

CLIENTS = {
    "curl": (str(EXAMPLES / "curl" / "build.sh"),),
    "python": (sys.executable, str(EXAMPLES / "python" / "build.py")),
    "node": ("node", str(EXAMPLES / "node" / "build.mjs")),
    "php": ("php", str(EXAMPLES / "php" / "build.php")),
    "go, streamed": ("go-sdk-client",),
    "go, plain": ("go-sdk-client", "-plain"),
    "java": (*JAVA, "FunctionBuilder", "build"),
}


@pytest.fixture(params=CLIENTS)
def client(request) -> tuple[str, ...]:
    return CLIENTS[request.param]


def url_of_old_faas_cli(builder: RunningBuilder, ending: str) -> dict[str, str]:
    """Versions of faas-cli before 0.17.5 post to the URL as it is given."""
    return {"OPENFAAS_REMOTE_BUILDER": builder.url + ending}


async def test_a_function_is_built_and_pushed(client, builder, registry, function, image):
    given = url_of_old_faas_cli(builder, "/build/")
    outcome = await run((*client, str(function), image), builder, environment=given)
    assert outcome.code == 0, outcome.output
    assert "RUN echo built" in outcome.output
    pushed = pull(registry, image.removeprefix(f"{registry}/")[:-2], "1")
    assert pushed.text("said") == "hello\n"
    assert pushed.files["home/app/run"].mode == 0o755


async def test_a_failed_build_is_a_failed_program(client, builder, failing, image):
    given = url_of_old_faas_cli(builder, "/build")
    outcome = await run((*client, str(failing), image), builder, environment=given)
    assert outcome.code != 0
    if "-plain" in client:  # the SDK's Build says no more
        assert "status code 500" in outcome.output
    else:
        assert "the last words" in outcome.output
        assert "exit code: 7" in outcome.output


async def test_a_busy_builder_is_asked_again(client, builder, function: Path, image):
    # More than sockets hold: the client is still sending when it is refused.
    (function / "unused").write_bytes(bytes(12 << 20))
    given = url_of_old_faas_cli(builder, "/")
    outcome = await run_while_busy((*client, str(function), image), builder, environment=given)
    assert outcome.code == 0, outcome.output


async def test_a_wrong_secret_is_told(client, builder: RunningBuilder, function, image, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("guessed\n")
    outcome = await run(
        (*client, str(function), image),
        builder,
        environment={"OPENFAAS_PAYLOAD_SECRET": str(wrong)},
    )
    assert outcome.code != 0
    assert "401" in outcome.output


async def test_without_arguments_one_line_says_how_it_is_called(client):
    outcome = await run(client)
    assert outcome.code != 0
    (line,) = outcome.output.splitlines()
    assert line.startswith("usage: ")
    assert "DIR IMAGE" in line


@pytest.fixture
def work(tmp_path: Path, function: Path) -> Path:
    """A folder whose content is to be sent."""
    folder = tmp_path / "work"
    folder.mkdir()
    function.rename(folder / "context")
    return folder


async def test_curl_as_the_closed_builders_readme_shows_it(builder, registry, work: Path, image):
    """Everything in the folder goes into the tar, and the whole answer comes at the end."""
    (work / "com.openfaas.docker.config").write_text(f'{{"image": "{image}"}}')
    (work / "req.sh").write_text(
        """
        cd "$(dirname "$0")"
        tar cf req.tar --exclude=req.tar .
        HMAC=$(cat req.tar | openssl dgst -sha256 -hmac "$(cat $OPENFAAS_PAYLOAD_SECRET)" |
            sed -e 's/^.* //')
        curl -s -X POST --data-binary @req.tar -H "X-Build-Signature: sha256=$HMAC" \
            -H "Content-Type: application/octet-stream" $OPENFAAS_REMOTE_BUILDER/build
        """
    )
    outcome = await run(("sh", str(work / "req.sh")), builder)
    assert '"status":"success"' in outcome.output
    assert pull(registry, image.removeprefix(f"{registry}/")[:-2], "1").text("said") == "hello\n"
