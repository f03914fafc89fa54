"""POST /build: a request is admitted, built, and answered while it runs or when it has ended."""

from __future__ import annotations

import time
from typing import Final

from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from function_builder.builds.phases import Measures
from function_builder.contract.builds import new_id
from function_builder.server.asking import read_asked
from function_builder.server.exchange import Exchange
from function_builder.server.peers import client_address
from function_builder.server.service import Service

BUILD_ID: Final = "function_builder.build_id"
"""The key of the build's id in the scope, for an answer that another module sends."""


class BuildEndpoint:
    """The endpoint, as an ASGI application: it answers before, while or after a body arrives."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; its answer and its log lines have the build's id."""
        request = Request(scope, receive)
        measures = Measures(time.time_ns())
        build_id = scope[BUILD_ID] = new_id()
        with self._service.tracing(request.headers, measures) as trace:
            client = client_address(request, self._service.settings.trusted_proxies)
            names = {"build": build_id, "client": client}
            names |= {"trace_id": trace.id} if trace.id else {}
            with bound_contextvars(**names):
                exchange = Exchange(
                    self._service,
                    request,
                    send,
                    trace=trace,
                    measures=measures,
                    build_id=build_id,
                    client=client,
                )
                async with exchange:
                    builds, settings = self._service.builds, self._service.settings
                    asked = read_asked(request.headers, settings, has_queue=builds is not None)
                    if builds is not None and asked.queued:
                        info = await exchange.submit(builds, asked)
                        await exchange.answer_queued(info, asked)
                    else:
                        await exchange.run(await exchange.admit())
