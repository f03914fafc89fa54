"""With `run_proxy`, RUN steps reach HTTP alone, as far as the source policy lets them."""

import json
from pathlib import Path

import httpx2
import pytest

from function_builder.engine import find_tool
from tests.support import host_network
from tests.support.builders import running_builder
from tests.support.requests import headers, make_tar

pytestmark = pytest.mark.integration

HOST = "10.77.0.3"
METADATA = "http://169.254.169.254/"


async def test_steps_are_under_the_source_policy_and_have_no_other_network(
    buildkitd: str, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    with host_network.addresses(HOST), host_network.serving(host_network.WebServer("::")) as port:
        site = f"http://{HOST}:{port}"
        rule = {"action": "DENY", "selector": {"identifier": f"{site}/"}}
        (tmp_path / "policy.json").write_text(json.dumps({"rules": [rule]}))
        redirect = f"{site}/to/{HOST}:{port}"
        program = find_tool("fetch").read_bytes()
        async with running_builder(
            tmp_path / "b",
            buildkitd,
            run_proxy="true",
            source_policy=str(tmp_path / "policy.json"),
        ) as builder:
            metrics = f"{builder.metrics_url}/metrics"
            asked = [f"{site}/x", f"{site}/", redirect, METADATA, metrics, "-direct", f"{site}/x"]
            step = json.dumps(["/fetch", *asked])
            dockerfile = f"FROM scratch\nCOPY --chmod=755 fetch /\nRUN {step}\n"
            body = make_tar({"Dockerfile": dockerfile, "fetch": program}, {"skipPush": True})
            answer = await http.post(f"{builder.url}/build", content=body, headers=headers(body))
    reply = answer.json()
    assert reply["status"] == "success", reply
    log = "\n".join(reply["log"])
    assert f"{site}/x 200\n" in log
    for refused in (f"{site}/", redirect, METADATA):
        assert f"{refused} 403\n" in log, log
    # The step's own loopback interface: that of the host has the builder's metrics.
    assert f'Get "{metrics}": dial tcp' in log
    assert "connect: connection refused\n" in log
    assert "connect: network is unreachable\n" in log
