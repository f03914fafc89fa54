"""What a request's config and files mean to a real BuildKit, and the words for what is wrong."""

import asyncio
import bz2
import gzip
import json
import lzma
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from function_builder.engine.tools import search_path
from tests.support.archives import one_file, padded
from tests.support.builders import RunningBuilder, running_builder
from tests.support.images import pull
from tests.support.requests import headers, make_tar
from tests.support.sparse import entry

pytestmark = pytest.mark.integration

Files = Mapping[str, bytes | str | tarfile.TarInfo]


def reply_to(builder: RunningBuilder, files: Files, **config: Any) -> dict[str, Any]:
    """Build without a push; the whole reply."""
    body = make_tar(files, {"skipPush": True} | config)
    answer = httpx2.post(
        f"{builder.url}/build", content=body, headers=headers(body), timeout=110, verify=False
    )
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


def test_the_ignore_file_that_buildkit_does_not_read_may_hold_anything(builder):
    files = {
        "Dockerfile": "FROM scratch\nCOPY . /c/\n",
        "Dockerfile.dockerignore": "junk\n",
        ".dockerignore": "node_modules\t# installed\n[a-\n",
        "junk/x": "1",
    }
    assert reply_to(builder, files)["status"] == "success"


def test_an_ignored_device_fails_no_build(builder):
    device = tarfile.TarInfo("context/data/null")
    device.type = tarfile.CHRTYPE
    dockerfile = "FROM scratch\nCOPY . /c/\n"
    files: Files = {"Dockerfile": dockerfile, ".dockerignore": "data", "null": device}
    assert reply_to(builder, files)["status"] == "success"
    assert reply_to(builder, {**files, ".dockerignore": "other"})["code"] == 400


def test_a_wrong_pattern_is_refused_before_the_build(builder):
    files = {"Dockerfile": "FROM scratch\nCOPY . /c/\n", ".dockerignore": "*.md\n[a-\n"}
    reply = reply_to(builder, files)
    assert reply["code"] == 400
    for word in ("context/.dockerignore", "line 2", "[a-"):
        assert word in reply["error"]


@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore"])
def test_utf_16_is_called_that(builder, name):
    files: Files = {"Dockerfile": "FROM scratch\n", name: "FROM scratch\r\n".encode("utf-16")}
    reply = reply_to(builder, files)
    assert reply["code"] == 400
    assert "UTF-16" in reply["error"]


def test_a_sparse_files_holes_are_zeros_in_the_image(builder, registry):
    files = {"Dockerfile": "FROM scratch\nCOPY disk /disk\n"}
    body = make_tar(files, {"image": f"{registry}/inputs/sparse:1"}).rstrip(b"\0")
    body = padded(body) + entry("old", [(700_000, 3)], 1 << 20, b"abc", b"context/disk")
    answer = httpx2.post(
        f"{builder.url}/build", content=body, headers=headers(body), timeout=110, verify=False
    )
    assert answer.json()["status"] == "success", answer.text
    content = pull(registry, "inputs/sparse", "1").files["disk"].content
    assert content == bytes(700_000) + b"abc" + bytes((1 << 20) - 700_003)


def zstd(content: bytes) -> bytes:
    """A frame with one block that is not compressed (RFC 8878, section 3.1.1)."""
    frame = b"\x28\xb5\x2f\xfd\xa0" + len(content).to_bytes(4, "little")
    return frame + (len(content) << 3 | 1).to_bytes(3, "little") + content


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
}


def archive(name: str, compression: str) -> bytes:
    """An archive with one file, whose content is its name."""
    return COMPRESSIONS[compression](one_file(name.encode(), name.encode()))


def test_add_unpacks_an_archive_of_any_compression(builder):
    files = {f"{each}.tar": archive(each, each) for each in COMPRESSIONS}
    read = "cd /d && for name in *; do grep -q $name $name && echo read $name; done"
    dockerfile = f"FROM busybox\nADD {' '.join(files)} /d/\nRUN {read}\n"
    reply = reply_to(builder, {"Dockerfile": dockerfile, **files})
    assert reply["code"] == 200, reply
    said = [line.partition(" read ")[2] for line in reply["log"]]
    assert {*COMPRESSIONS} <= {*said}


@pytest.fixture
def without(request, tmp_path, monkeypatch) -> None:
    """Hide one program of this machine from BuildKit."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for directory in search_path().split(os.pathsep):
        for program in Path(directory).glob("*"):
            if program.name != request.param and not (programs / program.name).exists():
                (programs / program.name).symlink_to(program)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr("function_builder.engine.tools._SYSTEM_DIRECTORIES", ())


@pytest.mark.parametrize(
    ("without", "source", "remedy"),
    [
        ("git", "http://git.invalid/a.git", "install git, and to restart BuildKit"),
        ("xz", "a.tar.xz", "install xz-utils"),
    ],
    indirect=["without"],
)
@pytest.mark.usefixtures("without")
async def test_what_buildkits_machine_lacks_is_told_in_words(
    source, remedy, fresh_buildkitd, tmp_path
):
    daemon = await fresh_buildkitd()
    dockerfile = f"FROM scratch\nADD {source} /\n"
    files: Files = {"Dockerfile": dockerfile, "a.tar.xz": archive("a", "xz")}
    async with running_builder(tmp_path / "builder", daemon.address) as builder:
        reply = await asyncio.to_thread(reply_to, builder, files)
    assert reply["code"] == 500
    assert reply["error"].endswith(f"ask the builder's operator to {remedy}")


def test_no_character_of_the_output_ends_a_line_of_the_stream(builder):
    printed = "a\\342\\200\\250b\\342\\200\\251c\\302\\205d\\n"
    body = make_tar({"Dockerfile": f"FROM busybox\nRUN printf '{printed}'\n"}, {"skipPush": True})
    sent = headers(body, stream=True)
    answer = httpx2.post(
        f"{builder.url}/build", content=body, headers=sent, timeout=110, verify=False
    )
    objects = [json.loads(line) for line in answer.text.splitlines()]
    assert any("a\u2028b\u2029c\x85d" in line for item in objects for line in item.get("log", ()))


def test_a_source_with_a_line_break_is_told_in_words(builder):
    files = {"Dockerfile": "FROM scratch\nARG FILES\nCOPY $FILES /\n", "a": ""}
    reply = reply_to(builder, files, buildArgs={"FILES": "a\nb"})
    assert reply["code"] == 500
    assert "a source with a line break" in reply["error"]


def test_too_many_sources_are_told_in_words(builder):
    sources = [" ".join(f"$B/{number}" for number in range(n, n + 1000)) for n in (0, 1000, 2000)]
    long = "ARG A=" + "x" * 200 + "\nARG B=$A/$A/$A/$A\n"
    copies = [f"COPY {each} /d/\n" for each in sources]
    reply = reply_to(builder, {"Dockerfile": "FROM scratch\n" + long + "".join(copies)})
    assert reply["code"] == 500
    assert "too many sources" in reply["error"]
    assert reply["retryable"] is False


def test_two_thousand_sources_are_copied(builder):
    files = {f"{number}": "" for number in range(2000)}
    reply = reply_to(
        builder, {"Dockerfile": f"FROM scratch\nCOPY {' '.join(files)} /d/\n", **files}
    )
    assert reply["code"] == 200


def test_an_error_that_is_too_large_for_its_headers_is_the_steps_own(builder):
    # In the headers each of these characters takes six bytes, and the Dockerfile 1.8 times its own.
    comments = ("# " + "x" * 1000 + "\n") * 600
    text = "\\\n".join(["é" * 30_000] * 4)
    reply = reply_to(builder, {"Dockerfile": f"{comments}FROM busybox\nRUN false {text}\n"})
    assert reply["code"] == 500
    assert reply["error"].startswith('failed to solve: process "/bin/sh -c false éé')
    assert reply["error"].endswith('é" did not complete successfully: exit code: 1')
    assert reply["reason"] == "step"
    assert reply["step"].startswith("[2/2] RUN false éé")
