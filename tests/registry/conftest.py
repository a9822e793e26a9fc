"""Fixtures of the registry room: both registries and a small worker."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from fingerpost.registry import (
    ConsulRegistry,
    Instance,
    LoadReport,
    ModelInfo,
    WatchConfig,
    WorkerState,
)
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.registry.http.app import bind, serve


@pytest.fixture(autouse=True)
def _clean(request: pytest.FixtureRequest) -> None:
    """Every asynchronous test of this room leaves no task behind."""
    if asyncio.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("no_task_left")


@pytest.fixture(params=["embedded", "consul", "consul-cluster"])
async def url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The URL of a registry: the embedded one, a real Consul agent, three servers and a client."""
    if request.param == "consul":
        yield request.getfixturevalue("consul_url")
    elif request.param == "consul-cluster":
        yield request.getfixturevalue("consul_cluster").url
    else:
        async with EmbeddedRegistry(port=0) as embedded:
            yield embedded.url


class Restartable:
    """A registry that can be stopped and started again on the same port, its memory lost."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self._embedded: EmbeddedRegistry | None = None
        self._port = 0

    async def start(self) -> str:
        if self._process is not None:
            await asyncio.to_thread(self._process.start)
            return self._process.url
        self._embedded = await EmbeddedRegistry(port=self._port).start()
        self._port = self._embedded.port
        return self._embedded.url

    async def stop(self) -> None:
        if self._process is not None:
            await asyncio.to_thread(self._process.stop)
        elif self._embedded is not None:
            await self._embedded.aclose()


@pytest.fixture(params=["embedded", "consul"])
async def restartable(request: pytest.FixtureRequest) -> AsyncIterator[Restartable]:
    consul = request.param == "consul"
    registry = Restartable(request.getfixturevalue("consul_process") if consul else None)
    yield registry
    await registry.stop()


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., ConsulRegistry]]:
    """Make registries that look often, and close them at the end."""
    made: list[ConsulRegistry] = []

    def make(url: str, **arguments: Any) -> ConsulRegistry:
        arguments.setdefault("keep_alive_s", 0.1)
        arguments.setdefault("watch_config", WatchConfig(wait_s=10, backoff_cap_s=0.2))
        made.append(ConsulRegistry(url, **arguments))
        return made[-1]

    yield make
    for registry in made:
        await registry.aclose()


@pytest.fixture
async def registry(url: str, connect: Callable[..., ConsulRegistry]) -> ConsulRegistry:
    return connect(url)


@pytest.fixture
def service() -> str:
    """A service name of the test's own: the Consul agent is shared by all."""
    return f"flowers-{uuid.uuid4().hex[:8]}"


class Worker:
    """What the registry sees of a worker: `/health/engine`, healthy or not, and `/load`."""

    def __init__(self) -> None:
        self.healthy = True
        self.boot_id = 0  # of the process that has the port now; 0 does not look at the check's
        self.leaving = False
        self.port = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/health/engine", self._health)
        app.router.add_get("/load", self._load)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await serve(self._runner, bind("127.0.0.1", 0))
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _load(self, request: web.Request) -> web.Response:
        state = WorkerState.READY if self.healthy else WorkerState.FAILED
        if self.leaving:
            state = WorkerState.DRAINING
        report = LoadReport(rif=0, slots=1, state=state, boot_id=self.boot_id, seq=1)
        return web.Response(body=msgspec.json.encode(report))

    async def _health(self, request: web.Request) -> web.Response:
        wanted = request.query.get("boot_id")
        if self.boot_id and wanted not in (None, str(self.boot_id)):
            return web.Response(status=410)
        return web.Response(status=200 if self.healthy else 503)

    def instance(self, service: str, nonce: str = "1", **fields: Any) -> Instance:
        fields.setdefault("models", (ModelInfo(name="flowers", versions=("1",)),))
        ports = {"http": self.port} | fields.pop("ports", {})
        instance_id = f"{service}-127.0.0.1-{self.port}-{nonce}"
        return Instance(id=instance_id, service=service, host="127.0.0.1", ports=ports, **fields)


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker()
    await worker.start()
    yield worker
    await worker.stop()


@pytest.fixture
async def neighbour() -> AsyncIterator[Worker]:
    """Another worker on the same host."""
    neighbour = Worker()
    await neighbour.start()
    yield neighbour
    await neighbour.stop()


@pytest.fixture
async def raw() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP session, to talk to a registry behind the library's back."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port that nothing listens on, held against others until the test ends."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
async def embedded() -> AsyncIterator[EmbeddedRegistry]:
    async with EmbeddedRegistry(port=0) as registry:
        yield registry
