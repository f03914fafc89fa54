"""Hostile archives through a builder's front door: `tars.py` and `contents.py` have the table.

Whatever comes, the answer is quick, in the words of the table, and costs no memory that only a
header claimed; nothing is left in the spool or appears outside of it; and the builder builds on:
every fifth case is a build, in random order, and one comes after all.
"""

import asyncio
import hashlib
import hmac
import json
import re
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from bench import usage
from function_builder.contract.archive import open_archive
from function_builder.contract.context import read_context
from function_builder.contract.errors import Refusal
from tests.adversarial.hostile import cases, contents, manifests, tars
from tests.support.archives import BLOCK, Bytes
from tests.support.builders import RunningBuilder, running_builder
from tests.support.forks import BOUNDS
from tests.support.images import File, pull
from tests.support.requests import SECRET, headers, make_tar

# A bound of a case must be reached before that of the test.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

GOOD = make_tar({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}, {"skipPush": True})

TABLE: Mapping[str, Mapping[str, cases.Case]] = {
    "Names": tars.NAMES,
    "Equal names and look-alikes": tars.SAME_NAMES,
    "Links": tars.LINKS,
    "Types": tars.TYPES,
    "Headers": tars.HEADERS,
    "Extended headers": tars.EXTENSIONS,
    "Ends": tars.ENDS,
    "Amounts": tars.AMOUNTS,
    "Compression": tars.COMPRESSIONS,
    "Patterns": contents.PATTERNS,
    "Configuration": contents.CONFIGS,
    "Image references": contents.IMAGES,
    "Sealed secrets": contents.SEALED,
    "Manifests": manifests.MANIFESTS,
}

CASES = [
    pytest.param(case, f"{kind} {name}", id=f"{kind}: {name}")
    for kind, those in TABLE.items()
    for name, case in those.items()
]


@asynccontextmanager
async def building_on(root: Path, buildkitd: str, **settings: str) -> AsyncIterator[RunningBuilder]:
    """A builder whose spool holds nothing else, and which builds before and after all cases."""
    spool, key = root / "spool", root / "key"
    spool.mkdir()
    key.write_bytes(cases.KEY.to_text())
    settings |= {"spool_dir": str(spool), "build_secrets_private_key_path": str(key)}
    async with running_builder(root / "b", buildkitd, **settings) as running:
        # What a first build takes for good is none of the cases'.
        await builds_on(running)
        yield running
        await builds_on(running)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def builder(engine_root, buildkitd: str, tmp_path_factory) -> AsyncIterator[RunningBuilder]:
    """A builder as it is; at its end no name has left an archive."""
    async with building_on(tmp_path_factory.mktemp("hostile"), buildkitd) as running:
        yield running
    with tempfile.NamedTemporaryFile(prefix=cases.MARK) as found:
        assert escaped(engine_root) == {found.name.encode()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def builders(
    builder: RunningBuilder, buildkitd: str, tmp_path_factory
) -> AsyncIterator[Mapping[bool, RunningBuilder]]:
    """By whether it is impatient: what is computed to its bound need not be computed for 10 s."""
    bounds = {BOUNDS: json.dumps({"aiobuildkit.fsutil.filter.BUDGET": cases.BUDGET})}
    async with building_on(tmp_path_factory.mktemp("impatient"), buildkitd, **bounds) as impatient:
        yield {False: builder, True: impatient}


def escaped(engine_root: Path) -> set[bytes]:
    """The paths with the mark; BuildKit's own state holds the names that it was given."""
    # A folder for temporary files may be a mount of its own, and else is found twice.
    everywhere = ["find", "/", tempfile.gettempdir(), "-xdev", "-path", str(engine_root), "-prune"]
    marked = ["-o", "-name", f"*{cases.MARK}*", "-print"]
    found = subprocess.run([*everywhere, *marked], capture_output=True, check=False)
    return set(found.stdout.split())


async def post(builder: RunningBuilder, body: cases.Body, image: str) -> httpx2.Response:
    """Send a body, which is made twice: it may be larger than memory should hold."""
    signature, size = hmac.new(SECRET.encode(), digestmod=hashlib.sha256), 0
    for piece in body(image):
        signature.update(piece)
        size += len(piece)

    async def pieces() -> AsyncIterator[bytes]:
        for piece in body(image):
            yield piece

    sent = {"X-Build-Signature": f"sha256={signature.hexdigest()}", "Content-Length": str(size)}
    async with httpx2.AsyncClient(trust_env=False, timeout=250, verify=False) as http:
        return await http.post(f"{builder.url}/build", content=pieces(), headers=sent)


async def builds_on(builder: RunningBuilder) -> None:
    async with httpx2.AsyncClient(trust_env=False, timeout=100, verify=False) as http:
        answer = await http.post(f"{builder.url}/build", content=GOOD, headers=headers(GOOD))
    assert answer.json()["status"] == "success"


@pytest.mark.parametrize(("case", "name"), CASES)
async def test_a_hostile_archive_has_its_answer(builders, registry, record_property, case, name):
    builder = builders[case.impatient]
    repository = "hostile/" + re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    pid = builder.process.pid
    usage.forget_peak(pid)
    before = usage.peak(pid)
    began = time.monotonic()
    answer = await post(builder, case.body, f"{registry}/{repository}:1")
    seconds = time.monotonic() - began
    grown = usage.peak(pid) - before

    reply = answer.json()
    record_property("seconds", f"{seconds:.2f}")
    record_property("megabytes", f"{grown:.0f}")
    assert answer.status_code == case.status, reply
    if case.words or case.status != 200:
        check_refusal(reply, case.words, Path(builder.log).parent)
    if case.image is not None:
        found = held(pull(registry, repository, "1").files)
        assert found == {"Dockerfile": found["Dockerfile"], **case.image}
    assert seconds < case.seconds
    assert grown < case.megabytes
    assert list((builder.log.parent.parent / "spool").iterdir()) == []


def check_refusal(reply: Mapping[str, Any], words: str, root: Path) -> None:
    # A 409 is a problem (RFC 9457).
    error = reply["error"] if "error" in reply else reply["detail"]
    assert words in error
    assert reply["status"] in ("failed", 409)
    assert len(error) < 600
    assert error.isprintable()
    assert str(root) not in error


def held(files: Mapping[str, File]) -> dict[str, cases.Held]:
    """What lies in an image's /f."""
    return {
        path.removeprefix("f/"): _held(file)
        for path, file in files.items()
        if path.startswith("f/")
    }


def _held(file: File) -> cases.Held:
    match file.kind:
        case "dir":
            return cases.DIRECTORY
        case "symlink":
            return f"-> {file.content.decode()}"
        case _:
            return file.content


async def test_many_manifests_at_once_that_lack_contents_cost_little_memory(builder):
    """Few are read at a time, and a build beside them succeeds."""
    entries = manifests.claims(10_000), manifests.content(cases.COPIES_ALL)
    body = b"".join(cases.archive(*entries, dockerfile=None)("registry.example/f:1"))
    pid = builder.process.pid
    usage.forget_peak(pid)
    before = usage.peak(pid)
    storm = (post(builder, _only(body), "") for _ in range(8))
    answers, _ = await asyncio.gather(asyncio.gather(*storm), builds_on(builder))
    assert {answer.status_code for answer in answers} == {409}
    assert all(len(answer.content) < 1000 for answer in answers)
    assert usage.peak(pid) - before < 64


SMALL = b"".join(
    cases.archive(
        cases.file("context/" + "n" * 150, b"data"),
        cases.folder("context/d"),
        cases.symlink("context/l", "d"),
        cases.hardlink("context/h", "context/Dockerfile"),
        end=bytes(BLOCK),
    )("a")
)


def test_an_archive_cut_at_any_byte_is_refused():
    assert len(read_context(open_archive(Bytes(SMALL), max_entries=10)).entries) == 5
    whole = 0
    for length in range(len(SMALL)):
        try:
            open_archive(Bytes(SMALL[:length]), max_entries=10)
        except Refusal as refusal:
            assert refusal.status == 400
        else:
            # It ends after an entry, with or without the last one's padding.
            whole += 1
    assert 0 < whole < 2 * BLOCK


async def test_an_archive_cut_on_its_way_is_refused(builder):
    for edge in range(0, len(SMALL), BLOCK):
        answer = await post(builder, _only(SMALL[: edge + 1]), "")
        assert answer.status_code == 400
    await builds_on(builder)


def _only(data: bytes) -> cases.Body:
    return lambda _: [data]


def test_the_page_tells_of_every_class():
    page = (Path(__file__).parents[3] / "docs/reliability.md").read_text()
    told = dict(re.findall(r"^\| ([A-Z][a-z -]+) \| (\d+) \|", page, re.MULTILINE))
    assert told == {kind: str(len(those)) for kind, those in TABLE.items()}
