"""The paths, and what each does with a request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge.errors import EdgeError
from edge.serve import asking, embedding, page
from edge.serve.asking import Wanted, WantedVectors
from edge.serve.body import Bodies
from edge.serve.guard import App, HungUp, Message, Receive, Send
from edge.serve.house import House, Served
from edge.serve.metrics import Metrics
from edge.serve.refusal import Refusal, refusal_of
from edge.serve.saying import Speech
from edge.serve.turns import Answer, Place, Work

T = TypeVar("T")
W = TypeVar("W", Wanted, WantedVectors)
_ALIVE_S = 10.0  # a stream that has nothing to say says so this often


def application(house: House, metrics: Metrics, bodies: Bodies | None = None) -> App:
    """The ASGI application, without the guard around it."""
    bodies = bodies or Bodies()

    async def seated(request: Request, wanted: W, ask: Callable[[W, Place], Awaitable[T]]) -> T:
        place = house.turns.enter(f"{request.client.host if request.client else ''} {wanted.user}")
        try:
            return await ask(wanted, place)
        except BaseException:
            place.give_back()
            raise

    def answers(read: Callable[[Any], Wanted], *, chat: bool) -> Callable[[Request], Awaitable[Any]]:
        async def endpoint(request: Request) -> Any:
            async with bodies.of(request) as data:
                wanted = await house.at_desk(_understood, read, data)
            served = house.find(wanted.model)
            answer = await seated(request, wanted, house.ask)
            speech = Speech(wanted, served.name, chat)
            if wanted.stream:
                return Stream(answer, speech.stream(answer), house)
            return JSONResponse(await _heard(request, answer, speech.whole(answer), house))

        return endpoint

    async def models(request: Request) -> Response:
        described = [await house.at_desk(_described, served) for served in house.served.values()]
        return JSONResponse({"object": "list", "data": described})

    async def model(request: Request) -> Response:
        return JSONResponse(await house.at_desk(_described, house.find(request.path_params["name"])))

    async def embeddings(request: Request) -> Response:
        async with bodies.of(request) as data:
            wanted = await house.at_desk(_understood, asking.embedding, data)
        served = house.find(wanted.model)
        work = await seated(request, wanted, house.embed)
        body = await _heard(request, work, embedding.whole(work, wanted, served.name), house)
        return Response(body, media_type="application/json")

    async def health(request: Request) -> Response:
        turns = house.turns
        return JSONResponse({"status": "ok", "active": turns.n_active, "waiting": turns.n_waiting})

    async def measured(request: Request) -> Response:
        text, kind = metrics.page()
        return Response(text, media_type=kind)

    async def chat_page(request: Request) -> Response:
        return Response(page.html(), headers={"Content-Security-Policy": page.policy()}, media_type="text/html")

    async def refuse(request: Request, err: Exception) -> Response:
        if isinstance(err, HTTPException):
            err = Refusal(err.status_code, f"there is no {request.method} {request.url.path[:200]} here")
        refusal = refusal_of(err)
        return JSONResponse(refusal.body, refusal.status, headers=dict(refusal.headers))

    inner = Starlette(
        routes=[
            Route("/", chat_page),
            Route("/health", health),
            Route("/metrics", measured),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/v1/chat/completions", answers(asking.chat, chat=True), methods=["POST"]),
            Route("/v1/completions", answers(asking.completion, chat=False), methods=["POST"]),
            Route("/v1/embeddings", embeddings, methods=["POST"]),
        ],
        exception_handlers={kind: refuse for kind in (HTTPException, Refusal, EdgeError, Exception)},
    )
    known = {route.path for route in inner.routes if isinstance(route, Route)}

    async def counted(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await inner(scope, receive, send)
            return
        status = 499  # until something else is sent

        async def counting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await inner(scope, receive, counting)
        finally:
            metrics.request(scope["path"] if scope["path"] in known else "other", status)

    return counted


class Stream:
    """A response of server-sent events that ends when its client has gone, and shows that it is alive when it waits."""

    def __init__(self, answer: Answer, events: AsyncIterator[bytes], house: House) -> None:
        self._answer, self._events, self._house = answer, events, house

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        gone = asyncio.ensure_future(_gone(receive))
        nexts: asyncio.Future[bytes] | None = None
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while not gone.done():
                nexts = nexts or asyncio.ensure_future(anext(self._events))
                await asyncio.wait((nexts, gone), timeout=_ALIVE_S, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    return
                if not nexts.done():
                    await send({"type": "http.response.body", "body": b": waiting\n\n", "more_body": True})
                    continue
                try:
                    body = nexts.result()
                except StopAsyncIteration:
                    break
                nexts = None
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            # Of an answer that has ended, nothing is left to stop.
            self._house.turns.leave(self._answer)
            for task in (gone, nexts):
                if task is not None:
                    task.cancel()


async def _heard(request: Request, work: Work, telling: Coroutine[Any, Any, T], house: House) -> T:
    """What is told of some work in the end; it is left when its client goes before that."""
    gone = asyncio.ensure_future(_gone(request.receive))
    told = asyncio.ensure_future(telling)
    try:
        await asyncio.wait((gone, told), return_when=asyncio.FIRST_COMPLETED)
        if not told.done():
            raise Refusal(499, "the client has gone")
        return told.result()
    finally:
        house.turns.leave(work)
        gone.cancel()
        told.cancel()


async def _gone(receive: Receive) -> None:
    with contextlib.suppress(HungUp):
        while (await receive())["type"] != "http.disconnect":
            pass


def _understood(read: Callable[[Any], W], data: bytes) -> W:
    return read(asking.parse(data))


def _described(served: Served) -> dict[str, Any]:
    """A model as `/v1/models` lists it; what only edge knows stands under `edge`."""
    bundle = served.bundle
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "edge",
        "edge": {
            "format": bundle.format,
            "quantization": bundle.quantization,
            "context_length": served.context_length,
            "chat": served.chats,
            "vision": served.sees,
            "tools": served.takes_tools,
            "embeddings": served.width,
            "proven": bundle.proven,
        },
    }
