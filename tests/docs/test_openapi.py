"""The OpenAPI document: it is what the routes are, and a running builder keeps to it."""

import gzip
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs
import pytest
import pytest_asyncio
import schemathesis
import yaml
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from starlette.routing import Route

from function_builder import __version__, server
from function_builder.contract.reads import sign_read
from function_builder.server.app import create_app
from function_builder.server.metrics import REASONS
from tests.support import VECTORS
from tests.support.builders import RunningBuilder, running_builder
from tests.support.memory_builds import EndedBuilds
from tests.support.requests import SECRET, headers, make_tar, signature
from tests.support.servers import serving_app
from tests.support.services import idle_service

BOUNDED = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))

FEW = settings(BOUNDED, max_examples=10)

# These take a failed build, which is a 500, for a crash, and any body for a good one.
NOT_OURS = [not_a_server_error, positive_data_acceptance, negative_data_rejection]

_texts = st.text(max_size=8)
_configs = st.fixed_dictionaries(
    {"skipPush": st.sampled_from([True, True, True, None, "true"])},
    optional={
        "image": st.sampled_from(["fn:1", "Example.com/Fn", "a,b", "", "x@sha256:0", None, 7]),
        "buildArgs": st.dictionaries(_texts, _texts, max_size=2) | st.none() | _texts,
        "platforms": st.lists(st.sampled_from(["linux/amd64", "", "plan9/mips", "/"]), max_size=2),
        "frontend": _texts,
        "target": st.sampled_from(["", "0", "a b", None, 7]),
        "dockerfile": st.sampled_from(["Dockerfile", "a/b", "../a", "", None]) | _texts,
        "labels": st.dictionaries(_texts, _texts, max_size=2) | st.none() | _texts,
        "noCache": st.booleans() | st.lists(_texts, max_size=2),
        "contexts": st.dictionaries(_texts, st.sampled_from(["lib", "git@x:y"]), max_size=1),
        "attest": st.dictionaries(st.sampled_from(["provenance", "sbom", "x"]), st.booleans()),
    },
)
_dockerfiles = st.sampled_from(
    ["FROM scratch\nCOPY . /\n", "FROM scratch\n", "FROM scratch\nCOPY absent /\n", "RUN", "", "\0"]
) | st.text(max_size=20)


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    config = draw(_configs.map(json.dumps) | _texts).encode(errors="replace")
    files = {draw(st.sampled_from(["Dockerfile", "Dockerfile", "other"])): draw(_dockerfiles)}
    whole = make_tar({k: v.encode(errors="replace") for k, v in files.items()}, config)
    spoil = draw(st.sampled_from([None] * 6 + ["cut", "gzip", "noise"]))
    match spoil:
        case "cut":
            return whole[: draw(st.integers(0, len(whole)))]
        case "gzip":
            return gzip.compress(whole)
        case "noise":
            return draw(st.binary(max_size=600))
        case _:
            return whole


schemathesis.openapi.media_type("application/octet-stream", _requests())
api = schemathesis.openapi.from_path(Path(server.__file__).with_name("openapi.yaml"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def documented(
    buildkitd: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningBuilder]:
    key = str(VECTORS / "build-secrets.key")
    async with running_builder(
        tmp_path_factory.mktemp("documented"), buildkitd, build_secrets_private_key_path=key
    ) as builder:
        yield builder


@pytest.fixture
def document(documented: RunningBuilder) -> dict[str, Any]:
    answer = documented.get("/openapi.yaml")
    assert answer.headers["content-type"] == "application/yaml"
    loaded = yaml.safe_load(answer.text)
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(scope="session")
def with_queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A builder with a queue, in memory, whose builds end at once, and the address of it."""
    service = idle_service(tmp_path_factory.mktemp("queue"))
    service.builds = EndedBuilds()
    with serving_app(create_app(service)) as url:
        yield url


@pytest.mark.integration
@api.parametrize()
@BOUNDED
def test_answers_keep_to_the_document(case, documented):
    case.call_and_validate(base_url=documented.url, excluded_checks=NOT_OURS, timeout=60)


@api.include(path_regex="^/build").parametrize()
@FEW
def test_answers_of_a_builder_with_a_queue_keep_to_the_document(case, with_queue):
    case.call_and_validate(base_url=with_queue, excluded_checks=NOT_OURS, timeout=60)


@pytest.fixture(scope="session")
def with_tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A builder with tenants, and the address of it."""
    root = tmp_path_factory.mktemp("tenants")
    (root / "payload-secret").write_text(SECRET)
    (root / "tenants.yaml").write_text("tenants:\n  default: {weight: 2}\n")
    service = idle_service(
        root,
        disable_hmac=False,
        secret_mount_path=root,
        tenants_file=str(root / "tenants.yaml"),
    )
    with serving_app(create_app(service)) as url:
        yield url


@api.include(path="/usage").parametrize()
@FEW
def test_answers_of_a_builder_with_tenants_keep_to_the_document(case, with_tenants):
    target = httpx2.Request("GET", with_tenants, params=case.query).url.raw_path.decode()
    target = "/usage" + target.removeprefix("/")
    case.headers = {
        **(case.headers or {}),
        **sign_read(SECRET.encode(), "GET", target, time.time()),
    }
    case.call_and_validate(base_url=with_tenants, excluded_checks=NOT_OURS, timeout=60)


@api.include(path_regex="^/builds").parametrize()
@FEW
def test_answers_about_a_build_keep_to_the_document(case, with_queue):
    body = make_tar({"Dockerfile": "FROM scratch\n"}, {"image": "r/f:1"})
    sent = {"Prefer": "respond-async"}
    queued = httpx2.post(
        f"{with_queue}/build", content=body, headers=sent, timeout=60, verify=False
    )
    if "id" in (case.path_parameters or {}):
        case.path_parameters["id"] = queued.json()["buildId"]
    case.call_and_validate(base_url=with_queue, excluded_checks=NOT_OURS, timeout=60)


@pytest.mark.integration
@api.include(path="/build").parametrize()
@BOUNDED
def test_signed_requests_keep_to_the_document(case, documented):
    if isinstance(case.body, bytes):
        case.headers = {**(case.headers or {}), "X-Build-Signature": signature(case.body)}
    answer = case.call(base_url=documented.url, timeout=60)
    case.validate_response(answer, excluded_checks=NOT_OURS)
    if answer.status_code == 500:
        # A build that was begun has a name, and says what BuildKit said.
        assert answer.json()["error"].startswith("failed to solve: ")
        assert [answer.json()["buildId"]] == answer.headers["x-build-id"]


@pytest.mark.integration
@pytest.mark.parametrize("step", ["true", "false"])
def test_each_line_of_a_stream_is_an_event_of_the_document(step, documented, document, registry):
    body = make_tar({"Dockerfile": f"FROM busybox\nRUN {step}\n"}, {"skipPush": True})
    answer = httpx2.post(
        f"{documented.url}/build",
        content=body,
        headers=headers(body, stream=True),
        timeout=60,
        verify=False,
    )
    schema = {"$ref": "#/components/schemas/BuildEvent", "components": document["components"]}
    events = [json.loads(line) for line in answer.text.splitlines()]
    validator = jsonschema_rs.validator_for(schema)
    for event in events:
        validator.validate(event)
    assert events[-1]["status"] == ("success" if step == "true" else "failed")
    assert not validator.is_valid({**events[-1], "log": ["more"]})
    assert not validator.is_valid({**events[0], "image": "x"})


@pytest.mark.integration
def test_the_document_has_the_routes_and_no_others(document, tmp_path):
    routes = {
        (route.path.rstrip("/"), method.lower())
        for route in create_app(idle_service(tmp_path)).routes
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    documented = {
        (path, method)
        for path, operations in document["paths"].items()
        for method in operations
        if method != "parameters"
    }
    # Whatever can be got answers HEAD too; the document says so where somebody asks that way.
    heads = {(path, "head") for path, method in routes if method == "get"}
    assert documented <= routes
    assert routes - documented <= heads


@pytest.mark.integration
def test_the_document_is_of_this_version(document):
    assert document["info"]["version"] == __version__


@pytest.mark.integration
def test_the_document_has_every_code_of_a_refusal(document):
    codes = {int(code) for code in document["paths"]["/build"]["post"]["responses"]}
    assert codes == {200, 202, 500} | {code for code in REASONS if code != 499}
