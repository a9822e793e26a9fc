"""Late workers behind the relay are asked whether they are at work; slow bodies are given up."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from tests.support.colours import encoded
from tests.support.http import post_request, raw_connection, read_answer
from tests.support.optional import not_none
from tests.support.rig import serving
from tests.support.waiting import until

from fingerpost.client.wire import SUSPECT_HEADER, WAITED_HEADER, WORKER_HEADER
from fingerpost.errors import ConfigurationError
from fingerpost.proxy import Proxy, ProxyConfig, relayed_body
from fingerpost.registry import LoadReport, WorkerState
from fingerpost.registry.http.app import bind, serve


@pytest.fixture(autouse=True)
async def _clean(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """No test leaves a task behind, once aiohttp waits no longer for the rest of an upload."""
    defaults = not_none(RequestHandler.__init__.__kwdefaults__)
    monkeypatch.setitem(defaults, "lingering_time", 0.1)
    yield
    await until(lambda: len(asyncio.all_tasks()) == 1, "all tasks have ended")


class Late:
    """A worker that takes `seconds` for an image, and says so, or what it is told to."""

    def __init__(self, seconds: float = 0.0, **report: Any) -> None:
        self._seconds = seconds
        self._report = {"rif": 1, "state": WorkerState.READY, **report}
        self.requests: list[web.Request] = []
        self.asked = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/load", self._load)
        app.router.add_post("/v1/classify/{model}", self._classify)
        return app

    async def _load(self, request: web.Request) -> web.Response:
        self.asked += 1
        report = LoadReport(slots=1, boot_id=7, seq=self.asked, **self._report)
        return web.Response(body=msgspec.json.encode(report))

    async def _classify(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        await request.read()
        await asyncio.sleep(self._seconds)
        return web.json_response({"done": True})


class Breaking(Late):
    """A worker that breaks the connection off, when it has all of an image or some of it."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self._whole = whole

    async def _classify(self, request: web.Request) -> web.Response:
        await (request.read() if self._whole else request.content.readany())
        not_none(request.transport).abort()
        return web.Response()


@contextlib.asynccontextmanager
async def relaying(worker: Late, **settings: Any) -> AsyncIterator[aiohttp.ClientSession]:
    async with contextlib.AsyncExitStack() as stack:
        runner = web.AppRunner(
            worker.app(), access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        await serve(runner, bind("127.0.0.1", 0))
        config = ProxyConfig(
            registry=f"static://127.0.0.1:{runner.addresses[0][1]}?model=digits",
            port=0,
            relay=True,
            probe_interval_s=0,
            **{"response_timeout_s": 0.2, **settings},
        )
        proxy = await stack.enter_async_context(Proxy(config))
        yield await stack.enter_async_context(aiohttp.ClientSession(proxy.url))


async def post(
    http: aiohttp.ClientSession, data: Any = b"image", **options: Any
) -> tuple[int, dict[str, Any], str]:
    async with http.post("/v1/relay/digits", data=data, **options) as response:
        body = await response.read()
        return response.status, json.loads(body), response.headers.get(WORKER_HEADER, "")


async def test_a_worker_that_is_at_work_is_waited_for() -> None:
    worker = Late(1.2)
    async with relaying(worker) as http:
        assert (await post(http))[:2] == (200, {"done": True})
    assert worker.asked >= 3
    assert len(worker.requests) == 1


@pytest.mark.parametrize(
    "report",
    [{"rif": 0}, {"state": WorkerState.FAILED}, {"rif": "no number"}],
    ids=["has nothing in flight", "has failed", "answers nonsense"],
)
async def test_a_worker_that_does_not_say_that_it_works_is_given_up(report: dict[str, Any]) -> None:
    async with relaying(Late(60.0, **report)) as http:
        started = time.monotonic()
        status, body, worker = await post(http)
        assert time.monotonic() - started < 10
    assert (status, body["error"]["code"]) == (503, "unreachable")
    assert body["error"]["retryable"]
    assert "no answer for 0.2 s" in body["error"]["message"]
    assert worker.startswith("static-127")  # it had the image: clients suspect that


async def test_a_slow_client_is_not_a_silent_worker() -> None:
    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(8):
            await asyncio.sleep(0.1)
            yield b"x"

    worker = Late(rif=0)
    async with relaying(worker) as http:
        assert (await post(http, slowly()))[0] == 200
    assert worker.asked == 0


@pytest.mark.parametrize("whole", [True, False])
async def test_a_worker_that_broke_off_is_named_if_it_had_the_whole_image(whole: bool) -> None:
    data = io.BytesIO(b"x" * (1000 if whole else 50_000_000))
    async with relaying(Breaking(whole=whole)) as http:
        status, body, worker = await post(http, data)
    assert (status, body["error"]["code"], bool(worker)) == (503, "unreachable", whole)


async def test_what_the_client_says_of_the_image_is_passed_on() -> None:
    worker = Late()
    async with relaying(worker) as http:
        headers = {WAITED_HEADER: "1234", SUSPECT_HEADER: "1"}
        assert (await post(http, headers=headers))[0] == 200
    [request] = worker.requests
    assert (request.headers[WAITED_HEADER], request.headers[SUSPECT_HEADER]) == ("1234", "1")


@pytest.mark.parametrize(
    ("pause_s", "message"),
    [(60.0, "stalled: no byte came for 0.5 s"), (0.05, "arrives too slowly")],
    ids=["stalls", "drips"],
)
async def test_a_body_that_stalls_or_drips_is_refused(
    pause_s: float, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relayed_body, "_RATE_S", 0.5)
    async with (
        relaying(Late(), body_timeout_s=0.5, response_timeout_s=30) as http,
        raw_connection(not_none(http._base_url).port or 0) as (reader, writer),
    ):
        head = "POST /v1/relay/digits HTTP/1.1\r\nHost: proxy\r\nContent-Length: 100000\r\n\r\n"
        writer.write(head.encode())
        answer = asyncio.create_task(read_answer(reader))
        while not answer.done():
            writer.write(b"x")
            await asyncio.wait({answer}, timeout=pause_s)
        status, _, body = await answer
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (400, "invalid_request")
    assert message in error["message"]


async def test_the_relay_says_how_much_it_carries() -> None:
    worker = Late(0.5)
    async with relaying(worker) as http:

        async def load() -> LoadReport:
            async with http.get("/load") as response:
                return msgspec.json.decode(await response.read(), type=LoadReport)

        assert (await load()).rif == 0
        image = asyncio.create_task(post(http))
        while not worker.requests:
            await asyncio.sleep(0.01)
        assert ((await load()).rif, (await load()).state) == (1, WorkerState.READY)
        await image
        assert (await load()).rif == 0


@pytest.mark.parametrize("name", ["response_timeout_s", "body_timeout_s"])
def test_settings_that_are_not_valid(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        ProxyConfig(registry="embedded", **{name: 0})  # type: ignore[arg-type]


async def test_a_worker_that_says_when_it_begins_is_read_to_its_answer() -> None:
    """`102 Processing` comes before the answer to a suspect image; callers do not get it."""
    async with serving() as rig, contextlib.AsyncExitStack() as stack:
        registry = f"static://127.0.0.1:{rig.port}?model=colours"
        config = ProxyConfig(registry=registry, port=0, relay=True, probe_interval_s=0)
        proxy = await stack.enter_async_context(Proxy(config))
        reader, writer = await stack.enter_async_context(raw_connection(proxy.port))
        for _ in range(2):
            request = post_request("/v1/relay/colours", encoded("red"), f"{SUSPECT_HEADER}: 1")
            writer.write(request)
            status, _, body = await read_answer(reader)
            assert (status, json.loads(body)["results"][0]["predictions"][0][0]) == (200, "red")
