"""`function-builder serve` with nothing but a payload secret: it brings its own BuildKit."""

import asyncio
import signal
import sys

import httpx2
import pytest

from tests.support import free_address, running, until

pytestmark = pytest.mark.integration


@pytest.fixture
async def serve(engine_root, tmp_path):
    state = engine_root / "serve"
    listen = free_address()
    started = []

    async def start(*flags, secret=b"s3cret\n"):
        if secret is not None:
            (tmp_path / "payload-secret").write_bytes(secret)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "function_builder", "serve", "--listen", listen, *flags),
            env={
                "metrics_listen": free_address(),
                "secret_mount_path": str(tmp_path),
                "state_dir": str(state),
                "drain_delay": "0",
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        started.append(process)
        return process, f"http://{listen}"

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()
    await until(lambda: running(str(state)) == [])


async def until_ready(process, url):
    async with asyncio.timeout(60), httpx2.AsyncClient(trust_env=False) as http:
        while process.returncode is None:
            try:
                if (await http.get(f"{url}/ready")).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.05)
    raise AssertionError((await process.stdout.read()).decode())


async def test_it_builds_with_a_buildkit_of_its_own_and_ends_it_on_sigterm(serve, tmp_path):
    process, url = await serve("-license-file=/nowhere")
    await until_ready(process, url)
    function = tmp_path / "function"
    function.mkdir()
    (function / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    build = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "function_builder", "build", function, "--skip-push"),
        *("--url", url, "--payload-secret", tmp_path / "payload-secret"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await build.communicate()
    assert build.returncode == 0, said.decode()
    process.send_signal(signal.SIGTERM)
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert b"this host's network" in output


@pytest.mark.parametrize(
    ("secret", "why"), [(None, "cannot be read: {}: No such file"), (b" \n", "is empty: {}")]
)
async def test_without_a_payload_secret_it_does_not_start(serve, tmp_path, secret, why):
    process, _ = await serve(secret=secret)
    output, _ = await process.communicate()
    last = output.decode().splitlines()[-1]
    assert process.returncode == 1
    assert last.startswith("error: the payload secret ")
    assert why.format(tmp_path / "payload-secret") in last


async def test_a_wrong_setting_is_named(serve):
    process, _ = await serve("--metrics-listen", "nowhere")
    output, _ = await process.communicate()
    assert process.returncode == 1
    assert output.startswith(b"error: metrics_listen='nowhere': must be HOST:PORT, such as ")


async def test_its_help_names_every_variable():
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "function_builder", "serve", "--help"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    for variable in ("buildkit_url", "max_inflight", "DOCKER_CONFIG", "state_dir"):
        assert variable.encode() in output
