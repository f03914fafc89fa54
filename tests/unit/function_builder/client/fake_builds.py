"""A builder's routes of builds that outlive their connection, over a real socket, with faults."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from function_builder.contract.answer_signature import AnswerSignature, build_answer
from function_builder.contract.builds import new_id
from function_builder.contract.reads import build_token, opens, read_signer
from function_builder.contract.signature import Signature
from tests.support.servers import serving_app

SECRET = b"a payload secret"


class Cut(Exception):
    """Breaks the connection off."""


USAGE: Final = {
    "from": "2026-11-01",
    "to": "2026-11-29",
    "since": "2026-11-29T00:00:00Z",
    "usage": [
        {
            "day": "2026-11-29",
            "tenant": "acme",
            "builds": {"failed": 1, "success": 2},
            "buildSeconds": 12.5,
            "receivedBytes": 1500,
        }
    ],
}


@dataclass
class Build:
    """One build. Its log grows by `say`, from any thread, and ends by `end`."""

    id: str
    image: str = ""
    lines: list[str] = field(default_factory=list)
    status: str = "running"
    error: str = ""

    def document(self) -> dict[str, Any]:
        ended = self.status not in ("queued", "running")
        result = {"duration": 1.5, "digest": "sha256:1"} if self.status == "success" else {}
        return {
            "buildId": self.id,
            "image": self.image,
            "created": "2026-11-28T18:40:00.000Z",
            **({"ended": "2026-11-28T18:40:01.500Z", "error": self.error} if ended else {}),
            **result,
            "status": self.status,
        }

    def end(self, status: str, error: str = "") -> None:
        self.error = error
        self.status = status


@dataclass
class FakeBuilds:
    """Keeps builds, and does what the fields say.

    Attributes:
        lost_answers: how many answers to a submission are lost after the build was queued.
        log_cuts: after how many lines each connection to a log breaks off; used up in order.
        refusals: statuses of the next requests for a log; used up in order.
        submitted_log: the whole log of each submitted build, which ends well at once.
        signs: whether answers are signed.
        requests: method and target of each request.
        keys: the `Idempotency-Key` of each submission.
    """

    url: str = ""
    builds: dict[str, Build] = field(default_factory=dict)
    by_key: dict[str, Build] = field(default_factory=dict)
    lost_answers: int = 0
    log_cuts: list[int] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)
    signs: bool = True
    requests: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    submitted_log: list[str] | None = None
    submission_refusal: tuple[int, str] | None = None

    def add(self, status: str = "running", *lines: str, image: str = "r/a:1") -> Build:
        build = Build(new_id(), image, list(lines), status)
        self.builds[build.id] = build
        return build

    async def submit(self, request: Request) -> Response:
        body = await request.body()
        self.bodies.append(body)
        self._note(request)
        signature = Signature([SECRET])
        signature.update(body)
        if not signature.matches(request.headers.get("x-build-signature")):
            return problem(401, "the signature is wrong")
        if self.submission_refusal:
            return problem(*self.submission_refusal)
        assert request.headers["prefer"] == "respond-async"
        key = request.headers["idempotency-key"]
        self.keys.append(key)
        build = self.by_key.get(key) or self.by_key.setdefault(key, self.add("queued"))
        if self.submitted_log is not None:
            build.lines[:] = self.submitted_log
            build.end("success")
        if self.lost_answers:
            self.lost_answers -= 1
            return Response(b"{", 202, {"Content-Length": "1000"})  # closes the connection
        token = build_token(SECRET, "default", build.id)
        return self._signed(request, build.document() | {"token": token}, 202)

    async def answer(self, request: Request) -> Response:
        self._note(request)
        build_id = request.path_params.get("id", "")
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not read_signer(
            [SECRET], request.method, target, request.headers.get("x-build-signature")
        ) and not (build_id and opens(token, [SECRET], "default", build_id)):
            return problem(401, "the request is not signed")
        if request.url.path == "/usage":
            return self._signed(request, USAGE)
        if not build_id:
            return self._signed(request, self._page(request))
        if build := self.builds.get(build_id):
            return self._about(request, build)
        return problem(404, "there is no such build, or it was deleted")

    def _about(self, request: Request, build: Build) -> Response:
        if request.url.path.endswith("/retry"):
            return self._signed(request, self.add("queued", image=build.image).document(), 202)
        if request.url.path.endswith("/log"):
            return self._log(request, build)
        if request.method == "DELETE":
            if build.status in ("success", "failed"):
                return problem(409, f"the build had already ended: its status is {build.status}")
            build.end("cancelled", "the build was cancelled")
        return self._signed(request, build.document())

    def _page(self, request: Request) -> dict[str, object]:
        query = request.query_params
        found = [build.document() for build in reversed(self.builds.values())]
        if states := query.get("status"):
            found = [each for each in found if each["status"] in states.split(",")]
        start, limit = int(query.get("cursor", 0)), int(query.get("limit", 50))
        page: dict[str, object] = {"builds": found[start : start + limit]}
        return page | ({"cursor": str(start + limit)} if start + limit < len(found) else {})

    def _log(self, request: Request, build: Build) -> Response:
        if self.refusals:
            return problem(self.refusals.pop(0), "later")
        cut = self.log_cuts.pop(0) if self.log_cuts else None
        signature = self._signature(request)

        async def content() -> AsyncIterator[bytes]:
            read, sent = int(request.query_params.get("after", 0)), 0
            while True:
                for line in build.lines[read:]:
                    if sent == cut:
                        raise Cut
                    read, sent = read + 1, sent + 1
                    event = {"log": [line], "status": "in_progress", "duration": 1, "after": read}
                    yield signed(json.dumps(event, separators=(",", ":")).encode() + b"\n")
                if sent == cut:
                    raise Cut
                if build.status not in ("queued", "running") and read >= len(build.lines):
                    break
                yield signed(b'{"status":"in_progress","duration":1,"after":%d}\n' % read)
                await asyncio.sleep(0.01)
            status = "success" if build.status == "success" else "failed"
            last = json.dumps(build.document() | {"status": status, "duration": 1.5}).encode()
            yield signature.end(last + b"\n") if signature else last + b"\n"

        def signed(line: bytes) -> bytes:
            if signature:
                signature.update(line)
            return line

        return StreamingResponse(content(), media_type="application/x-ndjson")

    def _note(self, request: Request) -> None:
        self.requests.append(f"{request.method} {request.url.path}")
        self.headers.append(dict(request.headers))

    def _signature(self, request: Request) -> AnswerSignature | None:
        sent = request.headers
        if not self.signs or "x-build-signature" not in sent:
            return None
        return build_answer(SECRET, sent["x-build-signature"], sent["x-build-timestamp"])

    def _signed(self, request: Request, document: object, status: int = 200) -> Response:
        body = json.dumps(document).encode()
        signature = self._signature(request)
        return Response(signature.end(body) if signature else body, status, {}, "application/json")


def problem(status: int, detail: str) -> Response:
    return JSONResponse(
        {"title": "a title", "status": status, "detail": detail},
        status,
        media_type="application/problem+json",
    )


@contextmanager
def serving_builds() -> Iterator[FakeBuilds]:
    """Serve from a thread until the block ends."""
    fake = FakeBuilds()
    app = Starlette(
        routes=[
            Route("/build", fake.submit, methods=["POST"]),
            Route("/builds", fake.answer),
            Route("/builds/{id}", fake.answer, methods=["GET", "DELETE"]),
            Route("/builds/{id}/log", fake.answer),
            Route("/builds/{id}/retry", fake.answer, methods=["POST"]),
            Route("/usage", fake.answer),
        ]
    )

    with serving_app(app) as fake.url:
        yield fake
