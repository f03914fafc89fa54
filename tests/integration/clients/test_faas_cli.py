"""faas-cli in both of its ways with a builder: before 0.17.5, and since.

The old one posts to the URL as given and waits for the whole answer; the new one keeps scheme and
host alone, and streams.
"""

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from function_builder.engine import find_tool
from tests.integration.clients.programs import EXAMPLES, Outcome, occupied, run, run_while_busy
from tests.support.builders import RunningBuilder
from tests.support.images import pull

pytestmark = pytest.mark.integration

OLD, NEW = "faas-cli-0.17", "faas-cli"


@pytest.fixture(params=[OLD, NEW])
def faas_cli(request):
    return request.param


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a language's template."""
    root = tmp_path / "project"
    template = root / "template" / "shell"
    (template / "function").mkdir(parents=True)
    (template / "template.yml").write_text("language: shell\nfprocess: sh index.sh\n")
    (template / "index.sh").write_text(". /home/app/function/handler.sh\n")
    (template / "Dockerfile").write_text(
        "FROM busybox\n"
        "ARG ADDITIONAL_PACKAGE\n"
        "ARG GREETING=hello\n"
        "WORKDIR /home/app\n"
        "COPY . .\n"
        "RUN echo $GREETING $(sh index.sh) >/said\n"
    )
    return root


def add_function(project: Path, image: str, said: str, **keys: object) -> str:
    """Add a function to the project's stack; returns its name."""
    file = project / "stack.yaml"
    stack = yaml.safe_load(file.read_text()) if file.exists() else {"functions": {}}
    name = "fn" + str(len(stack["functions"]))
    (project / name).mkdir()
    (project / name / "handler.sh").write_text(f"echo {said}\n")
    stack |= {"version": 1.0, "provider": {"name": "openfaas"}}
    stack["functions"][name] = {"lang": "shell", "handler": f"./{name}", "image": image} | keys
    file.write_text(yaml.safe_dump(stack))
    return name


def remote(builder: RunningBuilder) -> tuple[str, ...]:
    return (
        *("-f", "stack.yaml"),
        *("--remote-builder", builder.url + "/build"),
        *("--payload-secret", str(builder.secrets / "payload-secret")),
    )


def said(image: str) -> str:
    registry, _, name = image.partition("/")
    repository, _, tag = name.rpartition(":")
    return pull(registry, repository, tag).text("said")


async def test_a_function_is_built_and_pushed(faas_cli, builder, project, image):
    add_function(project, image, "one", build_args={"GREETING": "bonjour"})
    outcome = await run((faas_cli, "publish", *remote(builder)), directory=project)
    assert outcome.code == 0, outcome.output
    assert "success building and pushing image: " + image in outcome.output
    assert said(image) == "bonjour one\n"


@pytest.mark.parametrize("how", [(), ("--publish", "--platforms", "linux/amd64")])
async def test_up_needs_no_docker(faas_cli, how, builder, project, image):
    add_function(project, image, "one")
    command = (faas_cli, "up", "--skip-deploy", *how, *remote(builder))
    outcome = await run(command, directory=project)
    assert outcome.code == 0, outcome.output
    assert said(image) == "hello one\n"


async def test_up_ends_where_it_would_deploy(faas_cli, builder, project, image):
    add_function(project, image, "one")
    nobody = ("--gateway", "http://127.0.0.1:1")
    outcome = await run((faas_cli, "up", *remote(builder), *nobody), directory=project)
    assert outcome.code != 0
    assert "127.0.0.1:1" in outcome.output
    assert said(image) == "hello one\n"


@pytest.mark.parametrize("command", ["build", "publish"])
async def test_the_new_one_reads_the_environment(command, builder, project, image):
    add_function(project, image, "one")
    outcome = await run((NEW, command, "-f", "stack.yaml"), builder, directory=project)
    assert outcome.code == 0, outcome.output
    assert said(image) == "hello one\n"


async def test_several_functions_one_after_another(faas_cli, builder, project, image):
    """Each finds the only slot free, at once."""
    images = [f"{image}-{number}" for number in range(6)]
    for name in images:
        add_function(project, name, name)
    outcome = await run((faas_cli, "publish", *remote(builder)), directory=project)
    assert outcome.code == 0, outcome.output
    assert [said(name) for name in images] == [f"hello {name}\n" for name in images]


async def test_several_functions_in_parallel(faas_cli, wide_builder, project, image):
    images = [f"{image}-{number}" for number in range(4)]
    for name in images:
        add_function(project, name, name)
    outcome = await run(
        (faas_cli, "publish", "--parallel", "4", *remote(wide_builder)), directory=project
    )
    assert outcome.code == 0, outcome.output
    assert [said(name) for name in images] == [f"hello {name}\n" for name in images]


async def test_one_failure_among_several_fails_the_whole(faas_cli, wide_builder, project, image):
    add_function(project, f"{image}-0", "; exit 7")
    add_function(project, f"{image}-1", "well")
    (project / "template" / "shell" / "Dockerfile").write_text(
        "FROM busybox\nCOPY . .\nRUN sh function/handler.sh >/said\n"
    )
    (project / "fn0" / "handler.sh").write_text("echo the last words >&2; exit 7\n")
    outcome = await run(
        (faas_cli, "publish", "--parallel", "2", *remote(wide_builder)), directory=project
    )
    assert outcome.code != 0
    assert "the last words" in outcome.output
    assert said(f"{image}-1") == "well\n"
    if faas_cli == NEW:
        assert "exit code: 7" in outcome.output


async def test_the_tag_may_be_the_handlers_digest(faas_cli, builder, project, image):
    add_function(project, image, "digest")
    outcome = await run((faas_cli, "publish", "--tag=digest", *remote(builder)), directory=project)
    assert outcome.code == 0, outcome.output
    built = re.search(r"success building and pushing image: (\S+)", outcome.output)
    assert built is not None, outcome.output
    assert re.fullmatch(r"[0-9a-f]+", built[1].rpartition(":")[2])
    assert said(built[1]) == "hello digest\n"


async def test_what_did_not_change_is_not_sent_to_buildkit_again(faas_cli, builder, project, image):
    """It copies all files anew for each build."""
    name = add_function(project, image, "0")
    for number in range(100):
        (project / name / f"{number}.txt").write_text(f"{number}")
    asked_for = []
    for number in range(5):
        (project / name / "handler.sh").write_text(f"echo {number}\n")
        before = builder.metric("context_requested_files_total")
        outcome = await run((faas_cli, "publish", *remote(builder)), directory=project)
        assert outcome.code == 0, outcome.output
        assert said(image) == f"hello {number}\n"
        asked_for.append(builder.metric("context_requested_files_total") - before)
    assert asked_for[0] > 100
    # The Dockerfile and its ignore file are always asked for. A copy may be made across the border
    # of a second, and counts as none then.
    assert min(asked_for) == 3


async def test_platforms_make_an_index(faas_cli, builder, project, image):
    # Both run on this machine, and busybox is there for one alone.
    add_function(project, image, "two")
    (project / "template" / "shell" / "Dockerfile").write_text("FROM scratch\nCOPY . .\n")
    outcome = await run(
        (faas_cli, "publish", "--platforms", "linux/amd64,linux/386", *remote(builder)),
        directory=project,
    )
    assert outcome.code == 0, outcome.output
    index = index_of(image)
    assert {item["platform"]["architecture"] for item in index["manifests"]} == {"amd64", "386"}


def index_of(image: str) -> dict[str, Any]:
    registry, _, name = image.partition("/")
    repository, _, tag = name.rpartition(":")
    answer = httpx2.get(
        f"http://{registry}/v2/{repository}/manifests/{tag}",
        headers={"Accept": "application/vnd.oci.image.index.v1+json"},
        timeout=60,
        verify=False,
    )
    assert answer.headers["content-type"] == "application/vnd.oci.image.index.v1+json"
    found: dict[str, Any] = answer.json()
    return found


def busy_said(faas_cli: str, outcome: Outcome) -> bool:
    if faas_cli == OLD:
        return "Concurrent request limit exceeded. Max concurrent requests: 1" in outcome.output
    return "status code 429" in outcome.output


async def test_a_busy_builder_is_a_failure(faas_cli, builder, project, image):
    add_function(project, image, "one")
    async with occupied(builder):
        outcome = await run((faas_cli, "publish", *remote(builder)), directory=project)
    assert outcome.code != 0
    assert busy_said(faas_cli, outcome)


def wrapped(faas_cli: str) -> tuple[str, str]:
    return str(EXAMPLES / "faas-cli" / "retry.sh"), str(find_tool(faas_cli))


async def test_the_wrapper_asks_a_busy_builder_again(faas_cli, builder, project, image):
    add_function(project, image, "one")
    outcome = await run_while_busy(
        (*wrapped(faas_cli), "publish", *remote(builder)),
        builder,
        directory=project,
        environment={"RETRY_DELAY": "1"},
    )
    assert outcome.code == 0, outcome.output
    assert busy_said(faas_cli, outcome)
    assert said(image) == "hello one\n"


async def test_the_wrapper_hands_a_failure_on(faas_cli, builder, project, image):
    add_function(project, image, "one")
    (project / "template" / "shell" / "Dockerfile").write_text("FROM busybox\nRUN exit 7\n")
    outcome = await run((*wrapped(faas_cli), "publish", *remote(builder)), directory=project)
    assert outcome.code == 1
    assert outcome.output.count("[0] > Building fn0") == 1


async def test_the_wrapper_repeats_what_was_refused_and_nothing_else(
    faas_cli, builder, project, image
):
    """One slot, four functions at once, of which one fails and one is not asked for."""
    images = [f"{image}-{number}" for number in range(5)]
    for number, name in enumerate(images):
        add_function(project, name, name if number != 1 else "bad")
    (project / "template" / "shell" / "Dockerfile").write_text(
        "FROM busybox\nCOPY . .\nRUN sh function/handler.sh | grep -v bad >/said\n"
    )
    outcome = await run(
        (*wrapped(faas_cli), "publish", "--parallel", "4", "--regex=fn[0-3]", *remote(builder)),
        directory=project,
        environment={"RETRY_DELAY": "0.1"},
    )
    assert outcome.code == 1, outcome.output
    # Old versions end the color of their output after the error, or before it.
    lines = re.sub(r"\x1b\[[0-9;]*m", "", outcome.output).split("\n")
    assert "fn1 failure while building or pushing image" in [line for line in lines if line][-1]
    assert busy_said(faas_cli, outcome)
    assert "Building fn4." not in outcome.output
    for number in (0, 2, 3):
        assert said(images[number]) == f"{images[number]}\n"
        assert len(re.findall(f"fn{number} success building", outcome.output)) == 1


async def test_the_wrapper_gives_up(faas_cli, builder, project, image):
    add_function(project, image, "one")
    async with occupied(builder):
        outcome = await run(
            (*wrapped(faas_cli), "publish", *remote(builder)),
            directory=project,
            environment={"RETRY_DELAY": "0.1", "RETRY_ROUNDS": "3"},
        )
    assert outcome.code == 1
    assert outcome.output.count("> Building fn0.") == 3


async def test_a_wrong_secret_is_told(faas_cli, builder, project, image, tmp_path):
    add_function(project, image, "one")
    wrong = tmp_path / "wrong"
    wrong.write_text("guessed\n")
    outcome = await run((faas_cli, "publish", *remote(builder)[:-1], str(wrong)), directory=project)
    assert outcome.code != 0
    if faas_cli == OLD:  # it shows the answer's status alone
        assert "failure while building or pushing image" in outcome.output
    else:
        assert "status code 401" in outcome.output
