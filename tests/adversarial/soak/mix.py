"""What a soak's clients ask for: good and bad builds, each request with the answer it must get."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.support.requests import headers, make_tar

FUNCTIONS = 12
"""So few that each is often built twice at a time, with other content under the same names."""

LARGE_BYTES = 8 << 20


class Leaves(StrEnum):
    """When a client hangs up."""

    UPLOADING = "uploading"
    BUILDING = "building"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request.

    Attributes:
        kind: what the tables call it.
        body: with its `headers`, to be sent as they are.
        status: the code of its answer, had it asked for one in a piece.
        error: what the answer's error must hold; empty for a build that must succeed.
        image: repository and tag to be pushed.
        files: what the image must hold, by path.
        leaves: its client does not wait for the answer.
    """

    kind: str
    body: bytes
    headers: Mapping[str, str]
    status: int = 200
    error: str = ""
    image: tuple[str, str] | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    leaves: Leaves | None = None

    @property
    def streamed(self) -> bool:
        """Whether it asks for a stream."""
        return "Accept" in self.headers


class Mix:
    """Requests without end, by weight and by chance.

    Args:
        registry: `host:port` to push to.
        seed: of the chance.
    """

    def __init__(self, registry: str, seed: int) -> None:
        self._registry = registry
        self._random = random.Random(seed)
        self._number = 0
        self._kinds: Mapping[Callable[[], Ask], int] = {
            self._tiny: 30,
            self._step: 15,
            self._large: 3,
            self._failing: 8,
            self._broken: 4,
            self._refused: 12,
            self._leaves_uploading: 4,
            self._leaves_building: 6,
        }

    def asks(self, while_: Callable[[], bool]) -> Iterator[Ask]:
        """Make requests for as long as that holds; no two have the same content."""
        kinds = list(self._kinds)
        while while_():
            self._number += 1
            (kind,) = self._random.choices(kinds, list(self._kinds.values()))
            yield kind()

    def _tiny(self) -> Ask:
        return self._good("tiny", "FROM scratch\nCOPY . /f\n", {})

    def _step(self) -> Ask:
        return self._good("with a step", "FROM busybox\nCOPY . /f\nRUN cat /f/who > /said\n", {})

    def _large(self) -> Ask:
        large = {"model": self._random.randbytes(LARGE_BYTES)}
        return self._good("large", "FROM busybox\nCOPY . /f\n", large)

    def _good(self, kind: str, dockerfile: str, files: Mapping[str, bytes]) -> Ask:
        who = self._random.randbytes(16).hex().encode()
        repository = f"soak/f{self._random.randrange(FUNCTIONS)}"
        tag = f"n{self._number}"
        context = {"Dockerfile": dockerfile.encode(), "who": who, **files}
        body = self._body(context, {"image": f"{self._registry}/{repository}:{tag}"})
        found = {f"f/{path}": content for path, content in context.items()}
        if "/said" in dockerfile:
            found["said"] = who
        return Ask(
            kind=kind,
            body=body,
            headers=self._headers(body),
            image=(repository, tag),
            files=found,
        )

    def _failing(self) -> Ask:
        code = self._random.randrange(1, 200)
        run = f"RUN : {self._number}; seq 100; exit {code}\n"
        body = self._body({"Dockerfile": f"FROM busybox\n{run}".encode()}, {"skipPush": True})
        return self._bad("failing step", body, 500, f"exit code: {code}")

    def _broken(self) -> Ask:
        dockerfile, error = self._random.choice(
            [
                ("FRO busybox\n", "unknown instruction: FRO"),
                ("FROM busybox\nCOPY absent /\n", "/absent"),
                ("FROM nowhere/nothing:x\n", "nowhere/nothing:x"),
            ]
        )
        body = self._body({"Dockerfile": dockerfile.encode()}, {"skipPush": True})
        return self._bad("broken Dockerfile", body, 500, error)

    def _refused(self) -> Ask:
        good = self._body({"Dockerfile": b"FROM scratch\n"}, {"skipPush": True})
        syntax = self._body({"Dockerfile": b"# syntax=evil/x\nFROM y\n"}, {"skipPush": True})
        unsigned = {"X-Build-Signature": "sha256=" + "0" * 64}
        body, change, status, error = self._random.choice(
            [
                (good, unsigned, 401, "X-Build-Signature"),
                (good, {"Content-Encoding": "gzip"}, 415, "compressed"),
                (good[:700], {}, 400, "archive"),
                (b"not a tar" * 100, {}, 400, "archive"),
                (self._body({"a": b"1"}, {"skipPush": True}), {}, 400, "Dockerfile"),
                (self._body({"Dockerfile": b"FROM y\n"}, {"image": "a b"}), {}, 400, "reference"),
                (syntax, {}, 400, "evil/x"),
                (bytes(LARGE_BYTES * 3), {}, 413, "larger than"),
            ]
        )
        return self._bad("refused", body, status, error, change)

    def _leaves_uploading(self) -> Ask:
        body = self._body({"Dockerfile": b"FROM scratch\n", "a": bytes(100_000)}, {})
        return Ask(
            kind="client leaves uploading",
            body=body,
            headers=self._headers(body) | {"Content-Length": str(len(body))},
            leaves=Leaves.UPLOADING,
        )

    def _leaves_building(self) -> Ask:
        dockerfile = f"FROM busybox\nRUN echo begun {self._number}; sleep 60\n"
        body = self._body({"Dockerfile": dockerfile.encode()}, {"skipPush": True})
        return Ask(
            kind="client leaves building",
            body=body,
            headers=headers(body, stream=True),
            leaves=Leaves.BUILDING,
        )

    def _bad(
        self,
        kind: str,
        body: bytes,
        status: int,
        error: str,
        change: Mapping[str, str] | None = None,
    ) -> Ask:
        sent = self._headers(body) | dict(change or {})
        return Ask(kind=kind, body=body, headers=sent, status=status, error=error)

    def _headers(self, body: bytes) -> dict[str, str]:
        return headers(body, stream=self._random.random() < 0.5)

    def _body(self, files: Mapping[str, bytes], config: Mapping[str, Any]) -> bytes:
        # Equal names, sizes and times everywhere: only bytes tell one build from another.
        return make_tar(files, config, mtime=0)
