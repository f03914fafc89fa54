"""A builder's HTTP face that answers what a test scripts, over a real socket."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from function_builder.contract.signature import Signature

SECRET = b"a payload secret"
Answer = Callable[[Request], Awaitable[Response]]


@dataclass
class ScriptedBuilder:
    """Answers requests with `answers`, in order, the last one for ever; keeps what it was sent."""

    answers: list[Answer]
    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    abandoned: threading.Event = field(default_factory=threading.Event)

    async def build(self, request: Request) -> Response:
        body = await request.body()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        signature = Signature([SECRET])
        signature.update(body)
        if not signature.matches(request.headers.get("x-build-signature")):
            return refusal(401, "the signature is absent or wrong")
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)


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
    listening = socket.create_server(("127.0.0.1", 0))
    builder.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    app = Starlette(routes=[Route("/build", builder.build, methods=["POST"])])
    config = uvicorn.Config(
        app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1, ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    thread.start()
    try:
        yield builder
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
