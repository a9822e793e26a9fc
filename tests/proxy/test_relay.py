"""A proxy that relays, and workers that answer whatever an attacker likes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

import aiohttp
import psutil
import pytest
from aiohttp import web
from tests.support.hostile import ENDLESS, FIXED, reply, serving_hostile

from fingerpost.client.wire import BOOT_ID_HEADER, DEADLINE_HEADER
from fingerpost.errors import Misdirected
from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.registry import Instance, ModelInfo, RegistryConfig, open_registry
from fingerpost.registry.config import CheckConfig
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.registry.http.app import bind, serve

MB = 1_000_000
# Answers that are of the protocol as far as a relay can know: it passes them on.
PASSED = {
    name
    for name, answer in FIXED.items()
    if answer[9:12] in (b"200", b"204", b"429", b"500") and name != "compressed"
}


@pytest.fixture(autouse=True)
def _clean(no_task_left: None) -> None:
    """No test leaves a task behind."""


@contextlib.asynccontextmanager
async def relaying(*addresses: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A session at a proxy that relays to these workers."""
    registry = f"static://{','.join(addresses)}?model=digits"
    config = ProxyConfig(registry=registry, port=0, relay=True, probe_interval_s=0)
    async with Proxy(config) as proxy, aiohttp.ClientSession(proxy.url) as http:
        yield http


async def post(http: aiohttp.ClientSession, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    async with http.post(
        "/v1/relay/digits", data=b"x" * 1000, headers=headers, allow_redirects=False
    ) as response:
        return response.status, await response.read(), dict(response.headers)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_makes_the_proxy_fetch_nothing(status: int) -> None:
    """A page that only the proxy can reach must not get to the caller (SSRF)."""
    asked = []

    async def secret(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response({"secret": "password"})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", secret)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await serve(runner, bind("127.0.0.1", 0))
    inner = f"http://127.0.0.1:{runner.addresses[0][1]}/internal"
    async with (
        serving_hostile(reply(b"", f"{status} Moved", f"Location: {inner}")) as hostile,
        relaying(hostile.address) as http,
    ):
        answered, body, headers = await post(http)
    await runner.cleanup()
    assert answered == 502
    assert "Location" not in headers
    assert b'"bad_answer"' in body
    assert hostile.address.encode() in body
    assert asked == []


@pytest.mark.parametrize("name", sorted(FIXED.keys() - PASSED))
async def test_what_is_not_passed_on(name: str) -> None:
    async with serving_hostile(FIXED[name]) as hostile, relaying(hostile.address) as http:
        status, body, _ = await post(http)
    assert status == 502
    assert b'"bad_answer"' in body
    assert hostile.address.encode() in body


@pytest.mark.parametrize("name", ENDLESS)
async def test_an_answer_without_an_end(name: str) -> None:
    before = psutil.Process().memory_info().rss
    async with serving_hostile(*ENDLESS[name]) as hostile, relaying(hostile.address) as http:
        started = time.monotonic()
        status, body, _ = await post(http)
        assert (status, b'"bad_answer"' in body) in ((502, True), (503, False)), body
        assert hostile.address.encode() in body
        assert hostile.most_bytes < 16 * MB + 16 * MB  # and what the kernel holds
    assert time.monotonic() - started < 20
    assert psutil.Process().memory_info().rss - before < 64 * MB


async def test_a_worker_that_says_nothing_is_waited_for_until_the_deadline() -> None:
    async with serving_hostile(b"") as hostile, relaying(hostile.address) as http:
        started = time.monotonic()
        status, body, _ = await post(http, **{DEADLINE_HEADER: "300"})
        assert status == 504
        assert b'"deadline"' in body
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(("said", "passed_on"), [("3000", "60"), ("9" * 9, None)])
async def test_what_a_caller_gets_of_a_hostile_answer(said: str, passed_on: str | None) -> None:
    """No page that a browser would show as the proxy's own, no cookie, no endless Retry-After."""
    answer = reply(
        b"<script>",
        "200 OK",
        "Content-Type: text/html",
        "Set-Cookie: a=b; Path=/",
        f"Retry-After: {said}",
        "Access-Control-Allow-Origin: *",
    )
    async with serving_hostile(answer) as hostile, relaying(hostile.address) as http:
        for _ in range(2):
            status, body, headers = await post(http)
            assert (status, body) == (200, b"<script>")
            assert headers["Content-Type"] == "application/octet-stream"
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers.get("Retry-After") == passed_on
            assert headers.keys().isdisjoint({"Set-Cookie", "Access-Control-Allow-Origin"})
        assert len(hostile.requests) == 2
        assert not [each for each in hostile.requests if b"cookie" in each.lower()]


async def test_an_image_for_a_process_that_is_gone_goes_to_another_worker() -> None:
    """The worker refuses it by its headers; the relay had sent no byte, or asks for it again."""
    seen: list[tuple[str, str | None]] = []

    def worker(name: str, boot_id: int) -> web.Application:
        async def classify(request: web.Request) -> web.Response:
            wanted = request.headers.get(BOOT_ID_HEADER)
            seen.append((name, wanted))
            if wanted != str(boot_id):
                error = Misdirected("meant for another process")
                return web.Response(status=421, body=error.to_json())
            await request.read()
            return web.json_response({"worker": name})

        app = web.Application()
        app.router.add_post("/v1/classify/{model}", classify)
        return app

    async with (
        EmbeddedRegistry(port=0) as embedded,
        contextlib.AsyncExitStack() as stack,
    ):
        registry = open_registry(embedded.url, RegistryConfig(check=CheckConfig(mode="ttl")))
        stack.push_async_callback(registry.aclose)
        for name, listed, is_now in [("ghost", 7, 9), ("good", 8, 8)]:
            runner = web.AppRunner(worker(name, is_now))
            stack.push_async_callback(runner.cleanup)
            await runner.setup()
            await serve(runner, bind("127.0.0.1", 0))
            await registry.register(
                Instance(
                    id=name,
                    service="digits",
                    host="127.0.0.1",
                    ports={"http": runner.addresses[0][1]},
                    models=(ModelInfo(name="digits", versions=("1",)),),
                    boot_id=listed,
                )
            )
        config = ProxyConfig(registry=embedded.url, port=0, relay=True, probe_interval_s=0)
        proxy = await stack.enter_async_context(Proxy(config))
        http = await stack.enter_async_context(aiohttp.ClientSession(proxy.url))
        statuses = []
        for _ in range(8):
            async with http.post("/v1/relay/digits", data=b"image") as response:
                statuses.append(response.status)
                if response.status != 200:
                    error = (await response.json())["error"]
                    assert (error["code"], error["retryable"]) == ("misdirected", True)
        assert statuses.count(200) >= 7
        assert [name for name, _ in seen].count("ghost") == 1
