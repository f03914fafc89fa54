"""A frontend of its own: the image that a `# syntax=` line names reads the Dockerfile."""

import uuid

import pytest

from function_builder.engine import find_tool
from tests.support.builders import running_builder
from tests.support.images import pull
from tests.support.requests import headers, make_tar

pytestmark = pytest.mark.integration

FRONTEND = """\
FROM scratch
COPY --chmod=755 dockerfile-frontend /bin/
ENTRYPOINT ["/bin/dockerfile-frontend"]
"""

FUNCTION = """\
# syntax=docker/dockerfile:1.2
FROM busybox
RUN --mount=type=cache,target=/cache echo built > /step
COPY . /app/
"""


async def test_an_image_that_is_named_by_digest_has_to_know_cache_namespaces(
    buildkitd, registry, http, tmp_path
):
    """Its labels say so: those before 1.1.6 have none, as this one has none."""
    async with running_builder(tmp_path / "b", buildkitd, insecure="true") as builder:

        async def build(files, image):
            body = make_tar(files, {"image": image} if image else {"skipPush": True})
            answer = await http.post(f"{builder.url}/build", content=body, headers=headers(body))
            return answer.json()

        program = find_tool("dockerfile-frontend-1.2").read_bytes()
        caps = 'LABEL moby.buildkit.frontend.caps="moby.buildkit.frontend.inputs"\n'
        replies = []
        for number, label in enumerate(("", caps)):
            frontend = {"Dockerfile": FRONTEND + label, "dockerfile-frontend": program}
            made = await build(frontend, f"{registry}/docker/dockerfile:{number}")
            syntax = f"# syntax=docker/dockerfile:1@{made['digest']}\n"
            replies.append(await build({"Dockerfile": f"{syntax}FROM busybox\nRUN :\n"}, ""))
        assert "too old for this builder" in replies[0]["error"]
        assert replies[0]["reason"] == "dockerfile"
        assert replies[1]["status"] == "success", replies[1]


@pytest.mark.parametrize("ignore_file", [".dockerignore", "Dockerfile.dockerignore"])
async def test_an_old_frontend_reads_the_ignore_file_of_this_build(
    buildkitd, registry, http, tmp_path, ignore_file
):
    """Versions before 1.3 ask for it by time stamp and size, which do not change here."""
    async with running_builder(tmp_path / "b", buildkitd, insecure="true") as builder:

        async def build(files, repository, tag):
            image = f"{registry}/{repository}:{tag}"
            body = make_tar(files, {"image": image}, mtime=1_700_000_000)
            answer = await http.post(f"{builder.url}/build", content=body, headers=headers(body))
            assert answer.json()["status"] == "success", answer.text
            assert not [line for line in answer.json()["log"] if "WARNING" in line]
            return pull(registry, repository, tag).files

        program = find_tool("dockerfile-frontend-1.2").read_bytes()
        frontend = {"Dockerfile": FRONTEND, "dockerfile-frontend": program}
        await build(frontend, "docker/dockerfile", "1.2")
        files = {"Dockerfile": FUNCTION, "secret1": "one", "secret2": "two"}
        repository = f"frontends/{uuid.uuid4().hex}"
        for ignored, kept in (("secret1", "secret2"), ("secret2", "secret1")):
            found = await build(files | {ignore_file: f"{ignored}\n"}, repository, ignored)
            assert found["step"].content == b"built\n"
            assert f"app/{kept}" in found
            assert f"app/{ignored}" not in found
