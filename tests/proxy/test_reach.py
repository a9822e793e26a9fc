"""A proxy asks back the machine that asks it, and no other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from tests.proxy.world import World
from tests.support.ports import free_port

from fingerpost.client.reach import MEASURED_BYTES, reached_body
from fingerpost.registry.http.app import bind, serve

NONCE = "0123456789abcdef" * 2


class Node:
    """A server on the machine that asks; keeps the paths that it is asked for."""

    def __init__(self, body: bytes = reached_body(NONCE), status: int = 200) -> None:
        self.paths: list[str] = []
        self.port = 0
        self._body, self._status = body, status
        self.hold = asyncio.Event()
        self.hold.set()

    async def __aenter__(self) -> Node:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await serve(self._runner, bind("127.0.0.1", 0))
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.hold.set()
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.paths.append(f"{request.method} {request.path_qs}")
        await self.hold.wait()
        headers = {"Location": f"http://127.0.0.1:{self.port}/secret"}
        return web.Response(body=self._body, status=self._status, headers=headers)


async def ask(world: World, port: object, nonce: str = NONCE, **more: Any) -> tuple[int, Any]:
    path = f"/v1/reach?port={port}&nonce={nonce}"
    async with world.http.post(path, **more) as response:
        return response.status, await response.json()


async def test_it_asks_the_caller_alone(world: World) -> None:
    async with Node() as node:
        forged = {"X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.1"}
        status, answer = await ask(world, node.port, headers=forged)
        assert status == 200
        assert (answer["address"], answer["port"]) == ("127.0.0.1", node.port)
        assert answer["reached"] is True
        assert answer["received_at"] <= answer["answered_at"]
        assert node.paths == [f"GET /fingerpost-reach/{NONCE}"]


@pytest.mark.parametrize(
    ("body", "status"), [(b"admin", 200), (b"x" * 100_000, 200), (b"", 302), (b"", 500)]
)
async def test_it_tells_nothing_of_another_server(world: World, body: bytes, status: int) -> None:
    async with Node(body, status) as node:
        _, answer = await ask(world, node.port)
        assert answer["reached"] is False
        assert answer["problem"] == "another server answers there"
        assert len(node.paths) == 1, "no redirect is followed"


async def test_it_says_why_it_does_not_reach_it(world: World) -> None:
    _, answer = await ask(world, free_port())
    assert answer["reached"] is False
    assert answer["problem"] == "Connection refused"


@pytest.mark.parametrize(
    "port", ["", "22", "0", "-1", "65536", "8080@10.0.0.1", "8080/x", "٨٠٨٠", "99999999999"]
)
async def test_ports_of_the_system_and_other_texts_are_refused(world: World, port: str) -> None:
    status, answer = await ask(world, port)
    assert status == 400
    assert "use 1024 to 65535" in answer["error"]["message"]


@pytest.mark.parametrize("nonce", ["", "x" * 32, "../../v1/agent/leave", NONCE + "0"])
async def test_the_path_cannot_be_chosen(world: World, nonce: str) -> None:
    status, answer = await ask(world, 8080, nonce)
    assert status == 400
    assert "nonce is not valid" in answer["error"]["message"]


async def test_once_at_a_time_and_not_for_a_web_page(world: World) -> None:
    async with Node() as node:
        node.hold.clear()
        first = asyncio.create_task(ask(world, node.port))
        while not node.paths:
            await asyncio.sleep(0.005)
        status, answer = await ask(world, node.port)
        assert (status, answer["error"]["code"]) == (429, "overloaded")
        node.hold.set()
        assert (await first)[1]["reached"] is True
        status, _ = await ask(world, node.port, headers={"Origin": "http://evil.example"})
        assert status == 403
        assert len(node.paths) == 1


async def test_bytes_for_measuring_go_only_to_who_answers(world: World) -> None:
    asked: list[tuple[str, int]] = []

    async def serve_bytes(request: web.Request) -> web.StreamResponse:
        asked.append((f"{request.method} {request.query_string}", len(await request.read())))
        measured = request.query.get("measure")
        return web.Response(body=bytes(MEASURED_BYTES) if measured else body)

    app = web.Application(client_max_size=10 * MEASURED_BYTES)
    app.router.add_route("*", f"/fingerpost-reach/{NONCE}", serve_bytes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await serve(runner, bind("127.0.0.1", 0))
        port = runner.addresses[0][1]
        body = b"another server"
        _, answer = await ask(world, f"{port}&measure=1")
        assert asked == [("GET ", 0)]
        assert answer["received_mbit"] == 0
        asked.clear()
        body = reached_body(NONCE)
        _, answer = await ask(world, f"{port}&measure=1")
        assert asked == [("GET ", 0), ("GET measure=1", 0), ("POST ", MEASURED_BYTES)]
        assert answer["received_mbit"] > 10
        asked.clear()
        _, answer = await ask(world, port)
        assert asked == [("GET ", 0)], "it was not asked to measure"
    finally:
        await runner.cleanup()


async def test_who_sends_for_ever_is_left(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fingerpost.proxy.reach.MEASURE_S", 0.3)
    sent = 0

    async def serve_bytes(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        if request.query.get("measure") != "1":
            return web.Response(body=reached_body(NONCE))
        response = web.StreamResponse()
        await response.prepare(request)
        while True:  # until the proxy ends the connection
            await response.write(bytes(65_536))
            sent += 65_536

    app = web.Application()
    app.router.add_route("*", f"/fingerpost-reach/{NONCE}", serve_bytes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await serve(runner, bind("127.0.0.1", 0))
        status, answer = await ask(world, f"{runner.addresses[0][1]}&measure=1")
        assert (status, answer["reached"]) == (200, True)
        assert sent < 10 * MEASURED_BYTES
    finally:
        await runner.cleanup()
