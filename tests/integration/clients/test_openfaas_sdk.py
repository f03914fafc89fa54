"""OpenFaaS' own Python SDK, where it is installed: PyPI does not have it yet.

Install it from https://github.com/openfaas/python-sdk. What it sends is also recorded in
tests/vectors, and tests/integration/test_build.py builds that everywhere.
"""

import asyncio
from pathlib import Path

import pytest
import requests

from tests.support.builders import RunningBuilder
from tests.support.images import pull
from tests.support.requests import SECRET

sdk = pytest.importorskip("openfaas_sdk.builder")

pytestmark = pytest.mark.integration


def archive(directory: Path, image: str) -> str:
    path = str(directory.with_suffix(".tar"))
    sdk.make_tar(path, str(directory), sdk.BuildConfig(image=image, build_args={"A": ""}))
    return path


async def test_a_function_is_built_and_pushed(builder: RunningBuilder, registry, function, image):
    client = sdk.FunctionBuilder(builder.url, hmac_secret=SECRET)
    result = await asyncio.to_thread(client.build, archive(function, image))
    assert (result.status, result.image) == ("success", image)
    assert pull(registry, image.removeprefix(f"{registry}/")[:-2], "1").text("said") == "hello\n"


async def test_a_failed_build_keeps_its_log_in_a_stream_alone(builder, failing, image):
    client = sdk.FunctionBuilder(builder.url, hmac_secret=SECRET)
    tar = archive(failing, image)
    results = await asyncio.to_thread(lambda: list(client.build_stream(tar)))
    assert any("the last words" in line for result in results for line in result.log)
    assert results[-1].status == "failed"
    assert "exit code: 7" in results[-1].error
    with pytest.raises(requests.HTTPError, match="500"):
        await asyncio.to_thread(client.build, tar)
