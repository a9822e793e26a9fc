"""A sidecar beside a real server, with the embedded registry."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from tests.support.colours import encoded
from tests.support.notifications import Notifications
from tests.support.ports import free_port
from tests.support.waiting import until

from fingerpost.basics.service_manager import ServiceManager
from fingerpost.client import Client, JsonAnswer
from fingerpost.deploy.sidecar.config import SidecarConfig
from fingerpost.deploy.sidecar.sidecar import Sidecar
from fingerpost.errors import FingerpostError
from fingerpost.registry import open_registry
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.registry.http.app import bind, serve

SERVER = str(Path(__file__).parents[2] / "support" / "article_server.py")
RED = encoded("red")


class Place:
    """A registry, a sidecar's server in this process, and what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.port = 0
        self.well = True
        self.answers = True
        self.hold = asyncio.Event()
        self.hold.set()
        self.images = 0
        self.held = 0
        self.pending = 0
        self.stop = asyncio.Event()
        self.registry = open_registry(url)
        self.watch = self.registry.watch("flowers")

    async def serve(self, request: web.Request) -> web.Response:
        if request.path == "/metrics":
            return web.Response(text=f"pending {self.pending}\n")
        if request.method == "GET":
            return web.Response(status=200 if self.well else 503)
        await request.read()
        self.images += 1
        self.held += 1
        await self.hold.wait()
        self.held -= 1
        return web.json_response({"daisy": 0.9} if self.answers else "nothing")

    def config(self, **values):
        common = {"registry": self.url, "service": "flowers", "port": self.port}
        return SidecarConfig(**common | {"check": "http:/ping", "lease_s": 0.1} | values)

    @contextlib.asynccontextmanager
    async def beside(self, **values):
        self.stop = asyncio.Event()
        task = asyncio.create_task(Sidecar(self.config(**values)).run(self.stop.wait))
        try:
            await until(lambda: self.listed or task.done(), within_s=10)
            if task.done():
                task.result()
            yield task
        finally:
            self.stop.set()
            self.hold.set()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def listed(self):
        return self.watch.view.instances if self.watch.view else ()


@pytest.fixture
async def place():
    async with EmbeddedRegistry(port=0) as embedded:
        made = Place(embedded.url)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", made.serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await serve(runner, bind("127.0.0.1", 0))
        made.port = runner.addresses[0][1]
        yield made
        made.hold.set()
        await made.registry.aclose()
        await runner.cleanup()


async def test_it_is_registered_after_an_image_was_answered_and_follows_its_health(place):
    async with place.beside() as task:
        (found,) = place.listed
        assert (found.address, found.protocol) == (f"127.0.0.1:{place.port}", "form")
        assert place.images == 1
        async with Client(registry=place.url) as client:
            assert (await client.classify(RED, "flowers")).label == "daisy"
        place.well = False
        await until(lambda: place.listed == (), within_s=5)
        place.well = True
        await until(lambda: place.listed == (found,), within_s=5)
        place.stop.set()
        await task
        await until(lambda: place.listed == (), within_s=5)


async def test_a_server_of_another_task_is_asked_for_its_own_answer(place):
    place.answers = False  # no labels: the text "nothing"
    async with place.beside(meta={"task": "json"}):
        assert place.images == 1
        async with Client(registry=place.url) as client:
            found = await client.infer(RED, "flowers")
            assert isinstance(found, JsonAnswer)
            assert found.value == "nothing"


async def test_systemd_knows_what_it_does(place, tmp_path):
    with Notifications(tmp_path, watchdog_s=0.3) as systemd:
        manager = ServiceManager.take(dict(systemd.environment))
        place.answers = False
        with pytest.raises(FingerpostError, match="does not answer an image"):
            await Sidecar(place.config(), manager).run(place.stop.wait)
        assert systemd.status() == "waiting for flowers to answer"
        assert not systemd.count("READY=1"), "it is started when it is registered"
        place.answers = True
        running = asyncio.create_task(Sidecar(place.config(), manager).run(place.stop.wait))
        await until(lambda: systemd.count("WATCHDOG=1") > 1, within_s=10)
        assert systemd.count("READY=1") == len(place.listed) == 1
        assert systemd.status() == f"flowers at 127.0.0.1:{place.port} is registered"
        place.stop.set()
        await running
        assert systemd.count("STOPPING=1") == 1


@pytest.mark.parametrize("values", [{"check": "tcp"}, {"asks_image": False}])
async def test_other_checks(place, values):
    async with place.beside(**values):
        assert len(place.listed) == 1
        assert place.images == (1 if values.get("asks_image", True) else 0)


async def test_a_server_that_does_not_answer_an_image_is_not_registered(place):
    place.answers = False
    with pytest.raises(FingerpostError, match=r"does not answer an image: .*\(--no-image\)"):
        async with place.beside():
            pytest.fail("it was registered")
    assert place.listed == ()


async def test_in_front_it_counts_what_passes_and_waits_for_it(place):
    async with place.beside(front=0) as task:
        (found,) = place.listed
        assert found.ports["http"] == found.ports["load"] != place.port
        async with aiohttp.ClientSession(found.url) as http, Client(registry=place.url) as client:
            place.hold.clear()
            calls = [asyncio.create_task(client.classify(RED, "flowers")) for _ in range(3)]
            await until(lambda: place.held == 3, within_s=5)
            async with http.get("/load") as answer:
                load = await answer.json()
            assert (load["rif"], load["slots"], load["state"]) == (3, 1, 1)
            place.stop.set()
            await until(lambda: place.listed == (), within_s=5)
            await asyncio.sleep(0.3)  # longer than the lease
            assert not task.done(), "it left three images behind"
            place.hold.set()
            assert [(await each).label for each in calls] == ["daisy"] * 3
        await asyncio.wait_for(task, 5)


async def test_in_front_everything_passes_unchanged(place):
    async with place.beside(front=0):
        (found,) = place.listed
        body = b"x" * 300_000
        async with aiohttp.ClientSession(found.url) as http:
            async with http.post("/any/path?a=1", data=body) as answer:
                assert (answer.status, await answer.json()) == (200, {"daisy": 0.9})
                assert "endpoint-load-metrics" in answer.headers
            place.well = False
            async with http.get("/ping") as answer:
                assert answer.status == 503


async def test_load_is_read_from_the_servers_metrics(place):
    place.pending = 7
    async with place.beside(load="/metrics#pending"):
        (found,) = place.listed
        assert found.ports["http"] == place.port
        async with aiohttp.ClientSession() as http:

            async def rif() -> int:
                async with http.get(f"{found.load_target}/load") as answer:
                    return (await answer.json())["rif"]

            async def seven() -> bool:
                return await rif() == 7

            await until(seven, within_s=5)
            place.pending = 2

            async def two() -> bool:
                return await rif() == 2

            await until(two, within_s=5)


@pytest.mark.parametrize("before", ["exec", ""], ids=["itself", "what it started"])
async def test_a_server_that_it_started_is_ended_after_the_drain(place, before):
    port = free_port()
    command = ("/bin/sh", "-c", f"{before} {sys.executable} -SP {SERVER} {port}; true")
    async with place.beside(port=port, command=command) as task:
        (found,) = place.listed
        assert found.address == f"127.0.0.1:{port}"
        place.stop.set()
        await task
    with pytest.raises(aiohttp.ClientConnectorError):
        async with aiohttp.request("GET", f"http://127.0.0.1:{port}/ping"):
            pytest.fail("the server goes on")


async def test_a_server_that_ends_is_said_and_its_entry_is_removed(place):
    code = "import sys, time; time.sleep(0.1); sys.exit(3)"
    with pytest.raises(FingerpostError, match="ended with status 3 before it answered"):
        async with place.beside(port=free_port(), command=(sys.executable, "-S", "-c", code)):
            pytest.fail("it was registered")
    with pytest.raises(FingerpostError, match="cannot be started"):
        await Sidecar(place.config(command=("/no/such/program",))).run(place.stop.wait)
    code = "import time; time.sleep(1.5); raise SystemExit(4)"
    async with place.beside(command=(sys.executable, "-S", "-c", code)) as task:
        with pytest.raises(FingerpostError, match=r"status 4: its entry was removed"):
            await asyncio.wait_for(task, 20)
    await until(lambda: place.listed == (), within_s=5)
