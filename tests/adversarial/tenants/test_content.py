"""Never the wrong content: many functions built at once, each image compared with its tar.

Names, sizes and times are equal throughout, so that bytes alone tell one build from another; files
come back in earlier versions, and are shared by functions, so that every cache on the way is hit.

`make tenants` runs it with 2,000 builds; BUILDS says otherwise.
"""

import os
import random
import time
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.adversarial.soak.clients import Clients
from tests.adversarial.soak.mix import Ask
from tests.support.builders import RunningBuilder, running_builder
from tests.support.requests import headers, make_tar

BUILDS = int(os.environ.get("BUILDS", "60"))
FUNCTIONS = min(50, BUILDS // 3)
"""So few that each comes back while its earlier versions are in caches."""
CLIENTS = 8
VERSIONS = 3
"""Of each file of a function: enough to come back, and to be another next time."""

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300 + 5 * BUILDS)]

DOCKERFILES = {
    "copied": "FROM scratch\nCOPY . /f\n",
    "copied one by one": "FROM scratch\nCOPY Dockerfile who /f/\nCOPY lib /f/lib\n",
    "copied in stages": "FROM scratch AS all\nCOPY . /f\nFROM scratch\nCOPY --from=all /f /f\n",
    "read by a step": "FROM busybox\nCOPY . /f\nRUN cat /f/who > /said\n",
}


def asks(registry: str, seed: int) -> Iterator[Ask]:
    """Requests for `BUILDS` builds; what each image must hold is known from its tar."""
    chance = random.Random(seed)
    for number in range(BUILDS):
        function = chance.randrange(FUNCTIONS)
        kind = chance.choice(list(DOCKERFILES))
        files = {"Dockerfile": DOCKERFILES[kind].encode(), **_files(chance, function)}
        name = f"tenants/f{function}", f"n{number}"
        body = make_tar(files, {"image": f"{registry}/{':'.join(name)}"}, mtime=0)
        found = {f"f/{path}": content for path, content in files.items()}
        if "/said" in DOCKERFILES[kind]:
            found["said"] = files["who"]
        sent = headers(body, stream=bool(number % 2))
        yield Ask(kind=kind, body=body, headers=sent, image=name, files=found)


def _files(chance: random.Random, function: int) -> Mapping[str, bytes]:
    def version(path: str, owner: object) -> bytes:
        return sha256(f"{path} {owner} {chance.randrange(VERSIONS)}".encode()).digest() * 4

    own = {path: version(path, function) for path in ("who", "lib/a", "lib/b", "lib/c")}
    return own | {"lib/shared": version("shared", "everybody")}


async def test_each_image_holds_what_was_sent_for_it(buildkitd: str, registry: str, tmp_path: Path):
    seed = random.randrange(1 << 30)
    begun = time.monotonic()
    async with running_builder(tmp_path / "b", buildkitd) as builder:
        clients = Clients(builder.url, registry, lambda _: [])
        await clients.run(CLIENTS, asks(registry, seed))
        seconds = time.monotonic() - begun
        announced, asked_for = _transfers(builder)
    assert not clients.wrong, (seed, clients.wrong)
    assert {end for _, end in clients.tally} == {"built"}
    assert clients.tally.total() == BUILDS
    # The caches were in it: most files were at BuildKit already.
    assert 0 < asked_for < announced
    print(  # noqa: T201 (the figures of docs/reliability.md)
        f"\n{BUILDS} builds of {FUNCTIONS} functions from {CLIENTS} clients in {seconds:.0f} s, "
        f"seed {seed}: {BUILDS} images compared, none wrong; "
        f"{announced:,.0f} entries announced to BuildKit, {asked_for:,.0f} files sent."
    )


def _transfers(builder: RunningBuilder) -> tuple[float, float]:
    """How much was announced to BuildKit, and how much of it BuildKit asked for."""
    text = builder.metrics()
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    prefix = "function_builder_context"
    return samples[f"{prefix}_announced_entries_total"], samples[f"{prefix}_requested_files_total"]
