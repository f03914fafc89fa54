"""With `run_proxy`, programs of a build reach HTTP alone, as far as the source policy lets them."""

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from function_builder.engine import find_tool
from tests.support import host_network
from tests.support.builders import running_builder
from tests.support.images import push_base
from tests.support.requests import headers, make_tar

pytestmark = pytest.mark.integration

HOST = "10.77.0.3"
OF_IMAGES = "10.77.0.4"
METADATA = "http://169.254.169.254/"


async def test_steps_are_under_the_source_policy_and_have_no_other_network(
    buildkitd: str, registry: str, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    program = find_tool("fetch").read_bytes()
    with (
        host_network.addresses(HOST, OF_IMAGES),
        host_network.WebServer("::") as web,
        host_network.serving(web) as port,
    ):
        site = f"http://{HOST}:{port}"
        rule = {"action": "DENY", "selector": {"identifier": f"{site}/"}}
        (tmp_path / "policy.json").write_text(json.dumps({"rules": [rule]}))
        name, other = f"{registry}/fetching:1", f"http://{OF_IMAGES}:{port}/"
        with tarfile.open(tmp_path / "layer.tar", "w") as layer:
            layer.add(find_tool("fetch").resolve(), "fetch")
        entrypoint = ["/fetch", "-direct", other]
        push_base(registry, "fetching", "1", tmp_path / "layer.tar", entrypoint=entrypoint)
        async with running_builder(
            tmp_path / "b",
            buildkitd,
            run_proxy="true",
            insecure="true",
            source_policy=str(tmp_path / "policy.json"),
            allowed_frontends=f"{registry}/fetching",
            sbom_generator=name,
        ) as builder:

            async def build(instruction: str, config: Mapping[str, Any]) -> dict[str, Any]:
                dockerfile = f"FROM scratch\nCOPY --chmod=755 fetch /\n{instruction}\n"
                body = make_tar({"Dockerfile": dockerfile, "fetch": program}, config)
                sent = headers(body)
                answer = await http.post(f"{builder.url}/build", content=body, headers=sent)
                reply: dict[str, Any] = answer.json()
                return reply

            redirect, metrics = f"{site}/to/{HOST}:{port}", f"{builder.metrics_url}/metrics"
            asked = [f"{site}/x", f"{site}/", redirect, METADATA, metrics, "-direct", f"{site}/x"]
            stepped = await build(f"RUN {json.dumps(['/fetch', *asked])}", {"skipPush": True})
            # The images of a frontend and of a generator of SBOMs are programs too.
            read = await build("", {"skipPush": True, "buildArgs": {"BUILDKIT_SYNTAX": name}})
            listed = {"image": f"{registry}/fetched:1", "attest": {"sbom": True}}
            scanned = await build("", listed)
    assert stepped["status"] == "success", stepped
    log = "\n".join(stepped["log"])
    assert f"{site}/x 200\n" in log
    for refused in (f"{site}/", redirect, METADATA):
        assert f"{refused} 403\n" in log, log
    # The step's own loopback interface: that of the host has the builder's metrics.
    assert f'Get "{metrics}": dial tcp' in log
    assert "connect: connection refused\n" in log
    assert "connect: network is unreachable\n" in log
    # It ran, and does not speak BuildKit's protocol.
    assert "failed with build-arg:BUILDKIT_SYNTAX" in read["error"], read
    assert f'Get "{other}": dial tcp' in "\n".join(scanned["log"]), scanned
    assert web.asked == {HOST}
