"""A server whose requests an observer sees."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from fingerpost.client.wire import TimingsMs
from fingerpost.registry.http.app import bind, serve
from fingerpost.worker.telemetry.observer import Observer
from fingerpost.worker.telemetry.request import RequestRecord, current_request

__all__ = ["classify", "serving"]

Work = Callable[[web.Request, RequestRecord], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(observer: Observer, work: Work) -> AsyncIterator[aiohttp.ClientSession]:
    """A server whose one handler is observed as `Admission` does it, and a client of it."""

    async def handler(request: web.Request) -> web.StreamResponse:
        with observer.request(request) as record:
            response = await work(request, record)
            record.status = response.status
            return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    listener = bind("127.0.0.1", 0)
    await serve(runner, listener)
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with aiohttp.ClientSession(url) as session:
            yield session
    finally:
        await runner.cleanup()


async def classify(request: web.Request, record: RequestRecord) -> web.Response:
    """Two images, as the engine tells of them."""
    record.served_by("cats", "3")
    await request.read()
    current = current_request()
    assert current is not None
    assert current is record
    now = time.monotonic()
    current.image(now - 0.4, TimingsMs(decode=100, queue=100, inference=200))
    current.image(now - 0.3, TimingsMs(decode=150, queue=50, inference=100))
    return web.Response(text="ok")
