"""The oracle: BuildKit's own client builds a directory, then we build the same, and all is CACHED.

A COPY is found in BuildKit's cache by a digest of all that it copies: names, modes, links and
contents. So a COPY of ours that comes back CACHED got what BuildKit's own client sent, provided
that nothing else had put it there. That is seen to twice: every COPY goes to a place that no other
build uses, and BuildKit's own client must not have found it in the cache.
"""

import asyncio
import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aiobuildkit import Client, FileSync, FileTree, SolveError, StatusEvent
from function_builder.context.tree import BuildContext
from function_builder.contract.archive import open_archive
from function_builder.contract.context import read_context
from function_builder.engine import find_tool


@dataclass
class Outcome:
    """How a build ended.

    Attributes:
        steps: for each COPY, ADD or RUN whether it was found in the cache.
        error: BuildKit's words, where it failed.
    """

    steps: dict[str, bool] = field(default_factory=dict)
    error: str = ""

    def saw(self, name: str, *, cached: bool) -> None:
        """Take note of a vertex; a later word of it may say that it was found."""
        if re.match(r"\[\d+/\d+\] (COPY|ADD|RUN)", name):
            self.steps[name] = self.steps.get(name, False) or cached


def dockerfile(instructions: Sequence[str]) -> str:
    """A Dockerfile of these instructions, whose `{to}` is a directory that no build has written."""
    unique = uuid.uuid4().hex
    lines = [
        instruction.replace("{to}", f"/{unique}/{number}")
        for number, instruction in enumerate(instructions)
    ]
    return "\n".join(["FROM scratch", *lines, ""])


async def build_with_buildctl(address: str, directory: Path) -> Outcome:
    """Build a directory with BuildKit's own client.

    It has no shared key, so its builds share what BuildKit holds of a context, and with it some
    bugs: files of one size and time are taken for one, hard links leave temporary names behind, a
    context that has become empty has another digest than an empty one. So that goes first.
    """
    async with Client(address) as client:
        await client.prune(filters=["type==source.local"])
    status, output = await _run(
        *(find_tool("buildctl"), f"--addr={address}", "build"),
        *("--progress=rawjson", "--frontend=dockerfile.v0"),
        *(f"--local=context={directory}", f"--local=dockerfile={directory}"),
    )
    outcome = Outcome()
    for line in output.decode().splitlines():
        if line.startswith("{"):
            for vertex in json.loads(line).get("vertexes", []):
                outcome.saw(vertex["name"], cached=vertex.get("cached", False))
        elif line.startswith("error: failed to solve: "):
            outcome.error = line.removeprefix("error: failed to solve: ")
    assert (status != 0) is bool(outcome.error), output
    return outcome


async def _run(*command: str | Path) -> tuple[int | None, bytes]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, output = await process.communicate()
    return process.returncode, output


async def build(address: str, tree: FileTree) -> Outcome:
    """Build a tree with our client, under a shared key of its own: nothing is left to mtimes."""
    outcome = Outcome()
    files = FileSync({"dockerfile": tree, "context": tree})
    async with (
        Client(address) as client,
        client.solve(attachables=[files], shared_key=uuid.uuid4().hex) as solve,
    ):
        try:
            async for event in solve:
                _note(outcome, event)
            await solve.result()
        except SolveError as error:
            outcome.error = str(error)
    if not outcome.error:
        assert all(transfer.finished for transfer in files.transfers)
    return outcome


def _note(outcome: Outcome, event: StatusEvent) -> None:
    for vertex in event.vertexes:
        outcome.saw(vertex.name, cached=vertex.cached)


class FileReader:
    """An archive on disk."""

    def __init__(self, path: Path) -> None:
        self._content = path.read_bytes()
        self.size = len(self._content)

    def read(self, offset: int, size: int) -> bytes:
        return self._content[offset : offset + size]


def tree_of(archive: Path) -> FileTree:
    """The context in an archive, as a request's is served."""
    reader = FileReader(archive)
    entries = read_context(open_archive(reader, max_entries=10_000)).entries
    return BuildContext(reader, entries, [entry.mtime for entry in entries])


def differences(truth: Outcome, ours: Outcome) -> list[str]:
    """In what our build differs from that of BuildKit's own client; empty if in nothing."""
    if truth.error or ours.error:
        words = [_comparable(outcome.error) for outcome in (truth, ours)]
        return [] if words[0] == words[1] else [f"{words[0]!r} became {words[1]!r}"]
    found = [f"{step}: was in the cache before" for step, cached in truth.steps.items() if cached]
    missed = [f"{step}: not CACHED" for step, cached in ours.steps.items() if not cached]
    if truth.steps.keys() != ours.steps.keys():
        missed.append(f"other steps: {sorted(truth.steps.keys() ^ ours.steps.keys())}")
    return found + missed


def _comparable(error: str) -> str:
    """An error without what differs from one build to the next."""
    for words in ("syntax error in pattern", "illegal exclusion pattern"):
        if words in error:
            return words
    return re.sub(r"ref \S+", "ref", error)
