"""Small real workers and proxies that speak the wire, and a check that nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import msgspec
import pytest
from aiohttp import web
from tests.support.processes import Processes
from tests.support.sleeper import Sleeper
from tests.support.sockets import open_sockets
from tests.support.waiting import until

from fingerpost.client import Client, ClientConfig
from fingerpost.client.wire import (
    INDEX_HEADER,
    ClassifyAnswer,
    ImageAnswer,
    ResolveAnswer,
    ResolvedInstance,
    ServiceEntry,
    ServicesAnswer,
    TimingsMs,
)
from fingerpost.errors import FingerpostError, NoWorker, UnknownService
from fingerpost.registry import LOAD_HEADER, Instance, LoadReport, ModelInfo, WorkerState
from fingerpost.registry.http.app import bind, serve

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """A real HTTP server on a free port of this machine."""

    def __init__(self, handler: Handler) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{tail:.*}", handler)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, shutdown_timeout=0.01, access_log=None
        )
        self.port = 0

    async def start(self) -> None:
        await self._runner.setup()
        await serve(self._runner, bind("127.0.0.1", self.port))
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        await self._runner.cleanup()

    @property
    def connections(self) -> int:
        server = self._runner.server
        return 0 if server is None else len(server.connections)


class Worker:
    """Answers every image by its length; `behave` replaces what it does."""

    def __init__(
        self, name: str, version: str = "1", aliases: dict[str, str] | None = None
    ) -> None:
        self.name = name
        self.version = version
        self.aliases = aliases or {}
        self.server = Server(self._serve)
        self.behave: Handler | None = None
        self.timings: TimingsMs | None = None
        self.state = WorkerState.READY
        self.requests: list[str] = []
        self.deadlines_ms: list[int] = []
        self.bodies: list[bytes] = []
        self.running = 0
        self.most_running = 0
        self.boot_id = sum(name.encode()) + 1
        self.seq = 0
        self.probes = 0
        self.meta: dict[str, str] = {}
        self.answer_load: Handler = self._answer_load

    @property
    def instance(self) -> Instance:
        return Instance(
            id=self.name,
            service="digits",
            host="127.0.0.1",
            ports={"http": self.server.port},
            models=(ModelInfo(name="digits", versions=(self.version,), aliases=self.aliases),),
            boot_id=self.boot_id,
            meta=self.meta,
        )

    def report(self) -> LoadReport:
        self.seq += 1
        return LoadReport(
            rif=self.running, slots=4, state=self.state, boot_id=self.boot_id, seq=self.seq
        )

    async def _answer_load(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=msgspec.json.encode(self.report()))

    def load(self) -> dict[str, str]:
        return {LOAD_HEADER: self.report().to_header()}

    def refuse(self, error: FingerpostError, **headers: str) -> web.Response:
        fields = {key.replace("_", "-"): value for key, value in headers.items()}
        return web.Response(
            status=error.status, body=error.to_json(), headers={**self.load(), **fields}
        )

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies.append(body)
        top = int(request.query["top"])
        predictions = ((str(len(body)), 0.75), ("other", 0.25))[:top]
        answer = ClassifyAnswer(
            model="digits",
            version=self.version,
            results=(ImageAnswer(name="data", predictions=predictions, timings_ms=self.timings),),
        )
        return web.Response(body=msgspec.json.encode(answer), headers=self.load())

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/health/engine":  # a registry asks
            return web.Response()
        if request.path == "/load":
            self.probes += 1
            return await self.answer_load(request)
        self.requests.append(request.path)
        self.deadlines_ms.append(int(request.headers["Fingerpost-Deadline-Ms"]))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await (self.behave or self.answer)(request)
        finally:
            self.running -= 1


class Proxy:
    """Resolves `digits` from a list of instances, holding polls as Consul would.

    `relay` is what it does with images; without, it answers 404 as a stranger does.
    """

    def __init__(self) -> None:
        self.server = Server(self._serve)
        self.instances: list[Instance] = []
        self.index = 1
        self.polls: list[int] = []
        self.fail: web.Response | None = None
        self.relay: Handler | None = None
        self.relayed = 0
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def publish(self, *workers: Worker) -> None:
        self.instances = [each.instance for each in workers]
        self.index += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self.fail is not None:
            return web.Response(status=self.fail.status, body=self.fail.body)
        if request.path.startswith("/v1/relay/"):
            self.relayed += 1
            return web.Response(status=404) if self.relay is None else await self.relay(request)
        if request.path == "/v1/services":
            entry = ServiceEntry(name="digits", instances=1, versions=("1",), aliases={}, age_s=0.0)
            return web.Response(body=msgspec.json.encode(ServicesAnswer(services=(entry,))))
        index = int(request.query.get("index", "0"))
        self.polls.append(index)
        while index == self.index:
            await self._changed.wait()
        headers = {INDEX_HEADER: str(self.index)}
        service = request.path.rpartition("/")[2]
        error: FingerpostError | None = None
        if service != "digits":
            error = UnknownService(service)
        elif not self.instances:
            error = NoWorker(service)
        if error is not None:
            return web.Response(status=error.status, body=error.to_json(), headers=headers)
        answer = ResolveAnswer(
            service=service,
            index=self.index,
            age_s=0.0,
            lease_s=5.0,
            instances=tuple(ResolvedInstance.of(each) for each in self.instances),
        )
        return web.Response(body=msgspec.json.encode(answer), headers=headers)


class Cluster:
    """Starts what a test asks for, and stops it all."""

    def __init__(self) -> None:
        self.servers: list[Server] = []
        self.clients: list[Client] = []
        self.proxies: list[Proxy] = []

    async def worker(self, name: str, **options: object) -> Worker:
        worker = Worker(name, **options)  # type: ignore[arg-type]
        await self.start(worker.server)
        return worker

    async def workers(self, *names: str) -> list[Worker]:
        return [await self.worker(each) for each in names]

    async def proxy(self, *workers: Worker) -> Proxy:
        proxy = Proxy()
        self.proxies.append(proxy)
        await self.start(proxy.server)
        proxy.publish(*workers)
        return proxy

    async def proxy_at(self, port: int, *workers: Worker) -> Proxy:
        proxy = Proxy()
        proxy.server.port = port
        await self.start(proxy.server)
        proxy.publish(*workers)
        return proxy

    async def start(self, server: Server) -> None:
        await server.start()
        self.servers.append(server)

    async def client(self, *workers: Worker, **config: object) -> Client:
        proxy = await self.proxy(*workers)
        return self.client_of(proxy, **config)

    def client_of(self, *proxies: Proxy, **config: object) -> Client:
        client = Client(
            *(each.url for each in proxies),
            config=ClientConfig(**config),  # type: ignore[arg-type]
        )
        self.clients.append(client)
        return client


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """A cluster, and the proof that its clients and servers left no task and no socket."""
    sockets = open_sockets()
    tasks = asyncio.all_tasks()
    cluster = Cluster()
    yield cluster
    for client in cluster.clients:
        await client.aclose()
    assert [each for each in asyncio.all_tasks() - tasks if "fingerpost/client" in repr(each)] == []
    # What the clients closed, the servers notice: none of them is asked to close anything.
    await until(lambda: sum(each.connections for each in cluster.servers) == 0)
    for server in cluster.servers:
        await server.stop()
    await until(lambda: asyncio.all_tasks() <= tasks | {asyncio.current_task()})
    await until(lambda: open_sockets() <= sockets)


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A proxy's URL: real processes, two workers of a model that says `red`, `green` or `blue`."""
    model = Sleeper(tmp_path_factory.mktemp("models") / "colours", 0)
    with Processes(tmp_path_factory.mktemp("colours")) as processes:
        yield processes.two_workers(model.folder)


class Foreign:
    """Somebody's own server: `answer` says what it answers."""

    def __init__(self) -> None:
        self.server = Server(self._serve)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answer: object = {"daisy": 0.25, "rose": 0.75}
        self.status = 200
        self.delay_s = 0.0
        self.busy = self.most = 0

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            body = await request.read()
            self.requests.append((request.path_qs, dict(request.headers), body))
            await asyncio.sleep(self.delay_s)
            return web.json_response(self.answer, status=self.status)
        finally:
            self.busy -= 1


@pytest.fixture
async def foreign():
    servers = [Foreign(), Foreign(), Foreign()]
    for each in servers:
        await each.server.start()
    yield servers
    for each in servers:
        await each.server.stop()
