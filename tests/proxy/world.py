"""A proxy on a real socket, with the embedded registry and small servers as workers."""

from __future__ import annotations

from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from tests.support.waiting import until

from fingerpost.proxy import Proxy
from fingerpost.registry import (
    Instance,
    LoadReport,
    ModelInfo,
    Registration,
    Registry,
    WorkerState,
)
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.registry.http.app import bind, serve

__all__ = ["FakeWorker", "World", "instance"]


class FakeWorker:
    """Answers `/load` and classify requests, and counts the body bytes it gets."""

    def __init__(self) -> None:
        self.body_bytes = 0
        self.probes = 0
        self.paths: list[str] = []
        self.port = 0
        self.boot_id = 0
        self.state = WorkerState.READY
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> None:
        app = web.Application()
        app.router.add_get("/load", self._load)
        app.router.add_get("/health/engine", self._well)
        app.router.add_post("/v1/classify/{model}", self._classify)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await serve(self._runner, bind("127.0.0.1", port))
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _load(self, request: web.Request) -> web.Response:
        self.probes += 1
        report = LoadReport(rif=3, slots=8, state=self.state, boot_id=self.boot_id, seq=1)
        return web.Response(body=msgspec.json.encode(report))

    async def _well(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _classify(self, request: web.Request) -> web.Response:
        self.body_bytes += len(await request.read())
        self.paths.append(str(request.rel_url))
        return web.json_response({"worker": self.port}, status=201)


def instance(name: str, port: int, *, service: str = "digits", **fields: Any) -> Instance:
    models = fields.pop("models", (ModelInfo(name=service, versions=("1",)),))
    return Instance(
        id=name, service=service, host="127.0.0.1", ports={"http": port}, models=models, **fields
    )


class World:
    """Registry, proxy, workers, and what it takes to talk to them."""

    def __init__(self, embedded: EmbeddedRegistry, registry: Registry, proxy: Proxy) -> None:
        self.embedded = embedded
        self.registry = registry
        self.proxy = proxy
        self.http = aiohttp.ClientSession(proxy.url)
        self.workers: dict[str, FakeWorker] = {}
        self.registrations: dict[str, Registration] = {}

    async def add(self, name: str, **fields: Any) -> Registration:
        worker = self.workers[name] = FakeWorker()
        await worker.start()
        worker.boot_id = fields.get("boot_id") or worker.port
        registered = await self.registry.register(instance(name, worker.port, **fields))
        self.registrations[name] = registered
        return registered

    async def addresses(self, path: str = "/v1/resolve/digits") -> set[str]:
        async with self.http.get(path, headers={"Accept": "text/plain"}) as response:
            return set((await response.text()).split()) if response.status == 200 else set()

    async def until(self, count: int, path: str = "/v1/resolve/digits") -> None:
        async def counted() -> bool:
            return len(await self.addresses(path)) == count

        await until(counted, f"{path} names {count}", within_s=10)

    async def measured(self, line: str) -> bool:
        """Whether the proxy's metrics have this in them."""
        async with self.http.get("/metrics") as response:
            return line in await response.text()

    async def stop_workers(self) -> None:
        for worker in self.workers.values():
            await worker.stop()
