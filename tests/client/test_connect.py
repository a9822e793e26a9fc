"""Requests of any protocol at picked workers: a JSON API that has nothing to do with images."""

from __future__ import annotations

import asyncio
import json
from http.client import HTTPConnection

import aiohttp
import httpx
import httpx2
import pytest
from aiohttp import web
from tests.client.conftest import Server
from tests.support.waiting import until

from fingerpost.client import Client, ClientConfig, SyncClient
from fingerpost.client.adapters.aiohttp import FingerpostMiddleware
from fingerpost.client.adapters.httpx import FingerpostTransport
from fingerpost.errors import ConfigurationError, DeadlineExceeded, UnknownService


class Api:
    """Adds numbers: `POST /sum`, and `GET /sum?n=1&n=2`."""

    def __init__(self) -> None:
        self.server = Server(self._serve)
        self.asked: list[web.Request] = []
        self.status = 200
        self.drop = False
        self.hold = asyncio.Event()
        self.hold.set()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        if self.drop:
            assert request.transport is not None
            request.transport.abort()
        await self.hold.wait()
        if request.method == "POST":
            numbers = (await request.json())["numbers"]
        else:
            numbers = map(int, request.query.getall("n"))
        return web.json_response({"sum": sum(numbers)}, status=self.status)


@pytest.fixture
async def apis():
    made = [Api(), Api(), Api()]
    for each in made:
        await each.server.start()
    yield made
    for each in made:
        each.hold.set()
        await each.server.stop()


@pytest.fixture
async def client(apis):
    async with Client(url(*(each.server.port for each in apis))) as made:
        yield made


def url(*ports):
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"static://{hosts}?model=sums&protocol=form"


def endpoints(client):
    return client._dispatcher._services["sums requests"].balancer.endpoints


def in_flight(client):
    return sum(each.in_flight for each in endpoints(client))


# `connect`


async def test_it_counts_until_it_is_released(client):
    async with client.connect("sums") as one:
        async with client.connect("sums") as two:
            assert {one.id, two.id} <= {each.id for each in endpoints(client)}
            assert one.id != two.id, "the second went to a busy one"
            assert in_flight(client) == 2
            two.release("overloaded", retry_after_s=0.1)
            two.release("failed")  # no effect
            assert in_flight(client) == 1
        assert in_flight(client) == 1
        assert (one.url, one.address) == (f"http://{one.host}:{one.port}", f"{one.host}:{one.port}")
        assert (dict(one.headers), one.ssl_context) == ({}, None)
        with pytest.raises(ValueError, match="'well' is not a valid outcome: use answered"):
            one.release("well")
    assert in_flight(client) == 0


async def test_how_the_block_ends_says_what_the_worker_is(client):
    for error, left_out in ((ConnectionRefusedError, 1), (KeyError, 0), (ConnectionResetError, 0)):
        used = ""
        with pytest.raises(error):
            async with client.connect("sums") as worker:
                used = worker.id
                raise error
        (endpoint,) = [each for each in endpoints(client) if each.id == used]
        now = asyncio.get_running_loop().time()
        assert (endpoint.ejection.usable_from() > now) is bool(left_out), error
        assert in_flight(client) == 0


async def test_a_cancelled_block_is_released(client):
    async def hang() -> None:
        async with client.connect("sums"):
            await asyncio.sleep(60)

    task = asyncio.create_task(hang())
    await until(lambda: client._dispatcher and in_flight(client) == 1, within_s=5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert in_flight(client) == 0


async def test_what_is_wrong():
    async with Client(url(1)) as client:
        with pytest.raises(UnknownService):
            async with client.connect("other"):
                pytest.fail("connected")
        with pytest.raises(ConfigurationError, match="timeout_s"):
            async with client.connect("sums", timeout_s=-1):
                pytest.fail("connected")
    async with Client(config=ClientConfig(relay=True)) as client:
        with pytest.raises(ConfigurationError, match="relays"):
            async with client.connect("sums"):
                pytest.fail("connected")
    async with Client("http://127.0.0.1:9") as client:
        with pytest.raises(DeadlineExceeded, match="no answer by the deadline"):
            async with client.connect("sums", timeout_s=0.2):
                pytest.fail("connected")


# The adapters


class Httpx:
    """httpx or httpx2 with a transport of ours."""

    def __init__(self, client, library) -> None:
        self.errors = (library.HTTPError,)
        self.http = library.AsyncClient(
            transport=FingerpostTransport(client, library.AsyncHTTPTransport()), timeout=5
        )

    async def close(self):
        await self.http.aclose()

    async def ask(self, method, path, **more):
        answer = await self.http.request(method, path, **more)
        return answer.status_code, answer.json()


class Aiohttp:
    errors = (aiohttp.ClientError,)

    def __init__(self, client, _) -> None:
        self.http = aiohttp.ClientSession(middlewares=[FingerpostMiddleware(client)])

    async def close(self):
        await self.http.close()

    async def ask(self, method, path, **more):
        async with self.http.request(method, path, **more) as answer:
            return answer.status, await answer.json()


@pytest.fixture(params=[(Httpx, httpx2), (Httpx, httpx), (Aiohttp, None)],
                ids=["httpx2", "httpx", "aiohttp"])  # fmt: skip
async def http(request, client):
    kind, library = request.param
    made = kind(client, library)
    yield made
    await made.close()


GET = "http://sums/sum?n=1&n=2"


async def test_a_service_is_a_host(http, apis, client):
    question = {"numbers": [3, 4]}
    asking = (http.ask("POST", "http://sums/sum", json=question) for _ in range(30))
    assert await asyncio.gather(*asking) == [(200, {"sum": 7})] * 30
    assert await http.ask("GET", GET) == (200, {"sum": 3})
    assert all(len(each.asked) > 3 for each in apis)
    asked = apis[0].asked[0]
    assert asked.host == f"127.0.0.1:{apis[0].server.port}"
    assert in_flight(client) == 0


async def test_what_asks_for_tls_is_not_sent_in_clear(http, apis, client):
    with pytest.raises(ConfigurationError, match="https://sums/ asks for TLS, which the worker"):
        await http.ask("GET", "https://sums/sum?n=1")
    assert not any(each.asked for each in apis)
    assert in_flight(client) == 0
    assert await http.ask("GET", "http://sums:80/sum?n=1") == (200, {"sum": 1})


async def test_other_hosts_are_asked_as_they_are(http, apis, client):
    port = apis[0].server.port
    assert await http.ask("GET", f"http://127.0.0.1:{port}/sum?n=5") == (200, {"sum": 5})
    assert client._dispatcher is None


async def test_nothing_is_lost_when_one_dies(http, apis, client):
    await apis[1].server.stop()
    for _ in range(20):
        assert (await http.ask("POST", "http://sums/sum", json={"numbers": [1]}))[0] == 200
    assert client.stats.ejections >= 1


async def test_a_broken_connection_is_tried_again_if_the_method_allows(http, apis, client):
    apis[0].drop = True
    for _ in range(9):
        assert (await http.ask("GET", GET))[0] == 200
    first = len(apis[0].asked)
    assert first >= 1
    failures = 0
    for _ in range(9):
        try:
            await http.ask("POST", "http://sums/sum", json={"numbers": [1]})
        except http.errors:
            failures += 1
    assert failures == len(apis[0].asked) - first, "a POST was sent twice"
    headers = {"Idempotency-Key": "7"}
    for _ in range(9):
        answer = await http.ask("POST", "http://sums/sum", json={"numbers": [1]}, headers=headers)
        assert answer[0] == 200


@pytest.mark.parametrize("status", [503, 502])
async def test_a_status_that_says_try_again(http, apis, client, status):
    apis[0].status = status
    for _ in range(9):
        assert (await http.ask("GET", GET))[0] == 200
    for each in apis:
        each.status = status
    assert (await http.ask("POST", "http://sums/sum", json={"numbers": [1]}))[0] == status
    assert in_flight(client) == 0


async def test_where_all_are_dead_the_error_is_the_librarys(http, apis):
    for each in apis:
        await each.server.stop()
    with pytest.raises(http.errors):
        await http.ask("GET", GET)


async def test_a_body_that_is_read_once_is_sent_once(http, apis):
    async def pieces():
        yield b'{"numbers": [2, 3]}'

    name = "data" if isinstance(http, Aiohttp) else "content"
    answer = await http.ask("POST", "http://sums/sum", **{name: pieces()})
    assert answer == (200, {"sum": 5})
    for each in apis:
        each.drop = True
    before = sum(len(each.asked) for each in apis)
    with pytest.raises(http.errors):
        headers = {"Idempotency-Key": "7"}
        await http.ask("POST", "http://sums/sum", **{name: pieces()}, headers=headers)
    assert sum(len(each.asked) for each in apis) == before + 1


async def test_without_an_event_loop(apis):
    """In threads: each outcome, and workers that refuse are left out."""
    ports = [each.server.port for each in apis]
    await apis[2].server.stop()

    def ask() -> None:
        with SyncClient(url(*ports)) as client:
            sums, refused = [], 0
            while len(sums) < 20:
                try:
                    with client.connect("sums") as worker:
                        http = HTTPConnection(worker.host, worker.port, timeout=10)
                        http.request("POST", "/sum", json.dumps({"numbers": [3, 4]}))
                        sums.append(json.load(http.getresponse())["sum"])
                        http.close()
                except ConnectionRefusedError:
                    refused += 1
            assert sums == [7] * 20
            assert refused <= 6
            with pytest.raises(KeyError, match="of the caller"), client.connect("sums"):
                raise KeyError("of the caller")
            with client.connect("sums") as worker:
                worker.release("failed")
                with pytest.raises(ValueError, match="'lost' is not a valid outcome"):
                    worker.release("lost")
            with pytest.raises(UnknownService), client.connect("nothing", timeout_s=5):
                pass

    await asyncio.to_thread(ask)
