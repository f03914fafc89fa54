"""`function-builder serve` with nothing but a payload secret: it brings its own BuildKit."""

import asyncio
import json
import os
import signal
import sys

import httpx2
import pytest

from function_builder.engine import find_tool
from tests.support import free_address, running, until
from tests.support.builders import running_builder

pytestmark = pytest.mark.integration


@pytest.fixture
async def serve(engine_root, tmp_path):
    state = engine_root / "serve"
    listen = free_address()
    started = []

    async def start(*flags, secret=b"s3cret-s3cret\n", within=(), **settings):
        if secret is not None:
            (tmp_path / "payload-secret").write_bytes(secret)
        process = await asyncio.create_subprocess_exec(
            *within,
            *(sys.executable, "-m", "function_builder", "serve", "--listen", listen, *flags),
            env={
                "metrics_listen": free_address(),
                "secret_mount_path": str(tmp_path),
                "state_dir": str(state),
                "drain_delay": "0",
            }
            | settings,
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
    async with asyncio.timeout(60), httpx2.AsyncClient(trust_env=False, verify=False) as http:
        while process.returncode is None:
            try:
                if (await http.get(f"{url}/ready")).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.05)
    raise AssertionError((await process.stdout.read()).decode())


async def built(root, url: str, dockerfile: str) -> str:
    """What `function-builder build` says of a build that ends well."""
    function = root / "function"
    function.mkdir()
    (function / "Dockerfile").write_text(dockerfile)
    build = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "function_builder", "build", function, "--skip-push"),
        *("--url", url, "--payload-secret", root / "payload-secret"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await build.communicate()
    assert build.returncode == 0, said.decode()
    return said.decode()


async def test_it_builds_with_a_buildkit_of_its_own_and_ends_it_on_sigterm(
    serve, tmp_path, registry
):
    extra = tmp_path / "extra.toml"
    extra.write_text("[worker.oci]\nmax-parallelism = 3\nlabels = { of = 'the file' }\n")
    process, url = await serve(
        "-license-file=/nowhere",
        # As OpenFaaS' templates name theirs; the registry of the tests has what stands in for it.
        registry_mirrors=f"ghcr.io={registry}",
        plain_http_registries=registry,
        buildkit_config=str(extra),
        buildkit_log_level="debug",
        MAX_INFLIGHT="3",
    )
    await until_ready(process, url)
    await built(tmp_path, url, "FROM ghcr.io/library/busybox\nRUN true\n")
    process.send_signal(signal.SIGTERM)
    output, _ = await process.communicate()
    assert process.returncode == 0
    lines = [json.loads(line) for line in output.splitlines()]
    assert any("this host's network" in line["event"] for line in lines)
    assert {"name": "MAX_INFLIGHT", "did_you_mean": "max_inflight"}.items() <= lines[0].items()
    buildkits = [line for line in lines if line.get("program") == "buildkitd"]
    assert {"debug", "info"} <= {line["level"] for line in buildkits}


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        (None, "cannot be read: {}: No such file"),
        (b" \n", "is empty: {}"),
        (b"5byte\n", "has 5 bytes, at least 6 are needed, 32 are better: {}"),
    ],
)
async def test_without_a_payload_secret_it_does_not_start(serve, tmp_path, secret, why):
    process, _ = await serve(secret=secret)
    output, _ = await process.communicate()
    last = output.decode().splitlines()[-1]
    assert process.returncode == 1
    assert last.startswith("error: the payload secret ")
    assert "starting a BuildKit" not in output.decode()
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


async def test_a_file_of_buildkits_that_cannot_be_used_stops_the_start(serve, tmp_path):
    extra = tmp_path / "extra.toml"
    extra.write_text("root = '/elsewhere'\n")
    process, _ = await serve(buildkit_config=str(extra))
    output, _ = await process.communicate()
    assert process.returncode == 1
    said = f"error: {extra} sets root, which the builder decides: remove it there"
    assert output.decode().splitlines()[-1] == said


async def test_buildkit_says_what_it_cannot_read_of_a_file(serve, tmp_path):
    extra = tmp_path / "extra.toml"
    extra.write_text("[worker.oci]\nmax-parallelism = 'many'\n")
    process, _ = await serve(buildkit_config=str(extra))
    output, _ = await process.communicate()
    last = output.decode().splitlines()[-1]
    assert process.returncode == 1
    assert last.startswith("error: buildkitd ended with exit code 1: ")
    assert "MaxParallelism" in last


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may lay a file over the resolv.conf")
async def test_steps_ask_the_hosts_dns_server_on_its_loopback_interface(serve, tmp_path, registry):
    """BuildKit by itself would give them Google's."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.1\nsearch corp.internal\n")
    laid_over = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    within = (find_tool("unshare"), "--mount", "/bin/sh", "-c", laid_over, resolv)
    process, url = await serve(within=within, registry_mirrors=f"docker.io={registry}")
    await until_ready(process, url)
    said = await built(tmp_path, url, "FROM busybox\nRUN cat /etc/resolv.conf\n")
    assert "nameserver 127.0.0.1" in said
    assert "search corp.internal" in said
    assert said.count("nameserver 1") == said.count("nameserver ")


async def test_settings_that_have_no_effect_are_named(tmp_path):
    """`buildkit_url` names a BuildKit that is run elsewhere."""
    ignored = {
        "run_dns": "10.0.0.2",
        "plain_http_registries": "registry.internal:5000",
        "run_network": "bridge",
        "buildkit_network": "isolated",
    }
    absent = "unix:///absent"
    async with running_builder(
        tmp_path / "b", absent, wait_for="/healthz", MAX_QUEUE="1", **ignored
    ) as builder:
        lines = builder.lines()
    named = {line["name"]: line["event"] for line in lines if "name" in line}
    assert named.keys() == {"MAX_QUEUE", *ignored}
    assert {event for name, event in named.items() if name in ignored} == {
        "a setting has no effect, because buildkit_url is set"
    }
