"""What a request's config and files mean to a real BuildKit, and the words for what is wrong."""

from collections.abc import Mapping
from typing import Any

import httpx2
import pytest

from tests.builders import RunningBuilder
from tests.requests import headers, make_tar

pytestmark = pytest.mark.integration


def reply_to(
    builder: RunningBuilder, files: Mapping[str, bytes | str], **config: Any
) -> dict[str, Any]:
    """Build without a push; the whole reply."""
    body = make_tar(files, {"skipPush": True} | config)
    answer = httpx2.post(f"{builder.url}/build", content=body, headers=headers(body), timeout=110)
    return {"code": answer.status_code, **answer.json()}


def test_a_null_argument_leaves_the_dockerfiles_default(builder):
    dockerfile = "FROM busybox\nARG MODE=production\nARG EMPTY=full\nRUN echo [$MODE$EMPTY]\n"
    arguments = {"MODE": None, "EMPTY": ""}
    reply = reply_to(builder, {"Dockerfile": dockerfile}, buildArgs=arguments)
    assert any(line.endswith(" [production]") for line in reply["log"]), reply


def test_unknown_keys_are_named_at_the_logs_beginning(builder):
    files = {"Dockerfile": "FROM scratch\nCOPY f /\n", "f": ""}
    reply = reply_to(builder, files, build_args={"A": "1"})
    assert reply["status"] == "success"
    assert '"build_args"' in reply["log"][0]
    assert reply["log"][0].endswith("Did you mean buildArgs?")
