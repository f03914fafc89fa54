"""A builder's HTTP face that answers what a test scripts, over a real socket."""

import json
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from function_builder.contract.answer_signature import (
    AnswerSignature,
    build_answer,
    public_key_answer,
)
from function_builder.contract.manifest import MANIFEST_HEADER
from function_builder.contract.signature import Signature
from tests.support.servers import serving_app

SECRET = b"a payload secret"
Answer = Callable[[Request], Awaitable[Response]]


@dataclass
class ScriptedBuilder:
    """Answers requests with `answers`, in order, the last one for ever; keeps what it was sent.

    Attributes:
        signs: whether answers are signed, as a builder's are; a stream's last line must be within
            one chunk.
        manifests: whether answers say that manifests are understood.
        questions: how often /healthz was asked.
        cut: the length of a stream's chunks, if they are to be other ones than the test gave.
    """

    answers: list[Answer]
    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    abandoned: threading.Event = field(default_factory=threading.Event)
    signs: bool = True
    manifests: bool = False
    questions: int = 0
    cut: int = 0
    public_key: str = ""

    async def build(self, request: Request) -> Response:
        body = await request.body()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        signature = Signature([SECRET])
        signature.update(body)
        if not signature.matches(request.headers.get("x-build-signature")):
            return refusal(401, "the signature is absent or wrong")
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        response = await answer(request)
        self._tell(response)
        if self.signs:
            sign(response, request)
        if self.cut and isinstance(response, StreamingResponse):
            response.body_iterator = _cut(response.body_iterator, self.cut)
        return response

    async def healthz(self, _: Request) -> Response:
        self.questions += 1
        response = Response()
        self._tell(response)
        return response

    def _tell(self, response: Response) -> None:
        if self.manifests:
            response.headers[MANIFEST_HEADER] = "1"

    async def key(self, request: Request) -> Response:
        answer = json.dumps({"public_key": self.public_key}).encode()
        if self.signs:
            answer = public_key_answer(SECRET, request.query_params["nonce"]).end(answer)
        return Response(answer, media_type="application/json")


def sign(response: Response, request: Request) -> None:
    """Sign an answer as a builder does."""
    sent = request.headers
    signature = build_answer(SECRET, sent["x-build-signature"], sent["x-build-timestamp"])
    if isinstance(response, StreamingResponse):
        response.body_iterator = _signed(response.body_iterator, signature)
    elif response.media_type == "application/json":
        response.body = signature.end(bytes(response.body))
        response.headers["content-length"] = str(len(response.body))


async def _signed(chunks: AsyncIterable[Any], signature: AnswerSignature) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        for line in chunk.splitlines(keepends=True):
            if line.startswith((b'{"status": "success"', b'{"status": "failed"')):
                yield signature.end(line)
            else:
                signature.update(line)
                yield line


async def _cut(chunks: AsyncIterable[Any], size: int) -> AsyncIterator[bytes]:
    data = b"".join([chunk async for chunk in chunks])
    for start in range(0, len(data), size):
        yield data[start : start + size]


def refusal(status: int, error: str, **headers: str) -> Response:
    return JSONResponse({"status": "failed", "error": error}, status, headers)


def whole(code: int = 200, /, **reply: object) -> Answer:
    async def answer(_: Request) -> Response:
        return JSONResponse(reply, code)

    return answer


def refusing(status: int, error: str, **headers: str) -> Answer:
    async def answer(_: Request) -> Response:
        return refusal(status, error, **headers)

    return answer


def busy(retry_after: str | None = "1") -> Answer:
    async def answer(_: Request) -> Response:
        headers = {"Connection": "close"}
        if retry_after is not None:
            headers["Retry-After"] = retry_after
        text = "Concurrent request limit exceeded. Max concurrent requests: 1\n"
        return PlainTextResponse(text, 429, headers)

    return answer


def streamed(
    *chunks: bytes | Exception, then: Callable[[], Awaitable[None]] | None = None
) -> Answer:
    """A stream of these bytes; an exception breaks the connection off; `then` may hang."""

    async def content() -> AsyncIterator[bytes]:
        for chunk in chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk
        if then is not None:
            await then()

    async def answer(_: Request) -> Response:
        return StreamingResponse(content(), media_type="application/x-ndjson")

    return answer


def progress(*log: str) -> bytes:
    """One object of a stream, without the key `log` when there is none."""
    event: dict[str, object] = {"status": "in_progress", "duration": 0.1}
    return json.dumps({"log": log, **event} if log else event).encode() + b"\n"


def last(status: str, **reply: object) -> bytes:
    return json.dumps({"status": status, "duration": 1.5, **reply}).encode() + b"\n"


@contextmanager
def running(builder: ScriptedBuilder) -> Iterator[ScriptedBuilder]:
    """Serve `builder` from a thread until the block ends."""
    app = Starlette(
        routes=[
            Route("/build", builder.build, methods=["POST"]),
            Route("/healthz", builder.healthz),
            Route("/publickey", builder.key),
        ]
    )
    with serving_app(app) as builder.url:
        yield builder
