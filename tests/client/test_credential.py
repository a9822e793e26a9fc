"""What a client shows to proxies, and to nobody else."""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.support.guarded import ALL, ONE, Guarded, guarded_proxy
from tests.support.pictures import photo, save
from tests.support.waiting import until

from fingerpost.client import Client, ClientConfig, SyncClient
from fingerpost.client.credential import Credential
from fingerpost.errors import ConfigurationError, Forbidden, Unauthenticated
from fingerpost.registry.http.app import bind, serve

QUICK = ClientConfig(wait_for_ready_s=0.5, timeout_s=5)


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    async with guarded_proxy(tmp_path) as guarded:
        yield guarded


async def test_a_client_shows_its_key(guarded: Guarded) -> None:
    url = guarded.world.proxy.url
    async with Client(url, config=QUICK, api_key=ONE) as client:
        assert (await client.resolve("digits")).instances
        assert await client.services() == ("digits",)
        with pytest.raises(Forbidden, match="one may not use 'cats'"):
            await client.resolve("cats")
    async with Client(url, config=QUICK) as client:
        with pytest.raises(Unauthenticated, match="say who you are"):
            await client.resolve("digits")
        with pytest.raises(Unauthenticated):
            await client.services()


async def test_a_client_of_threads_shows_it_too(guarded: Guarded) -> None:
    def ask() -> tuple[str, ...]:
        with SyncClient(guarded.world.proxy.url, config=QUICK, api_key=ALL) as client:
            assert ALL not in repr(vars(client))
            copy = pickle.loads(pickle.dumps(client))  # noqa: S301 - our own
            with copy:
                assert copy.services() == ("cats", "digits")
            return client.services()

    assert await asyncio.to_thread(ask) == ("cats", "digits")


async def test_a_token_file_is_read_again(guarded: Guarded, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("fpk_wrong\n")
    async with Client(guarded.world.proxy.url, config=QUICK, token_file=str(file)) as client:
        with pytest.raises(Unauthenticated):
            await client.services()
        file.write_text(f"{ALL}\n")
        assert await client.services() == ("cats", "digits")
        file.unlink()  # in the middle of a rotation: the last one stays
        assert await client.services() == ("cats", "digits")


class Listener:
    """Any server: it keeps the header fields of what it is sent."""

    def __init__(self, answer: web.Response | None = None) -> None:
        self.fields: list[dict[str, str]] = []
        self._answer = answer

    async def __aenter__(self) -> Listener:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await serve(self._runner, bind("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        self.fields.append(dict(request.headers))
        await request.read()
        if request.path == "/redirect":
            return web.Response()
        return self._answer or web.json_response({}, status=404)


async def test_workers_never_get_it(guarded: Guarded) -> None:
    seen: list[str] = []
    async with Listener() as listener:
        port = int(listener.url.rpartition(":")[2])
        from tests.proxy.world import instance

        await guarded.world.registry.register(instance("w9", port, service="birds"))

        async def listed() -> bool:
            return "birds" in (await guarded.ask("GET", "/v1/services", ALL))[1]

        await until(listed, "the worker is known")
        config = ClientConfig(timeout_s=1, wait_for_ready_s=1)
        async with Client(guarded.world.proxy.url, config=config, api_key=ALL) as client:
            with pytest.raises(Exception, match=".") as caught:
                await client.classify(save(photo()), "birds")
            seen += [str(caught.value), repr(client), repr(vars(client))]
        await until(lambda: any("Fingerpost-Deadline-Ms" in each for each in listener.fields))
        assert not any("Authorization" in each for each in listener.fields)
        assert ALL not in str(listener.fields)
    assert not any(ALL in each for each in seen)


async def test_it_is_not_sent_over_a_redirect() -> None:
    async with Listener() as elsewhere:
        moved = web.Response(status=307, headers={"Location": f"{elsewhere.url}/redirect"})
        async with (
            Listener(moved) as proxy,
            Client(proxy.url, config=QUICK, api_key=ALL) as client,
        ):
            with pytest.raises(Exception, match="not a Fingerpost proxy") as caught:
                await client.services()
            assert ALL not in str(caught.value)
            assert proxy.fields[0]["Authorization"] == f"Bearer {ALL}"
        assert elsewhere.fields == []


async def test_a_relay_gets_it_with_each_image(guarded: Guarded) -> None:
    config = ClientConfig(relay=True, timeout_s=1, wait_for_ready_s=0.5)
    async with Client(guarded.world.proxy.url, config=config, api_key=ALL) as client:
        with pytest.raises(Exception, match="201|BadAnswer|labels|answer"):  # not a real worker
            await client.classify(save(photo()), "digits")
    assert guarded.world.workers["w1"].body_bytes > 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"api_key": "a", "token": "b"}, "api_key and token exclude each other"),
        ({"api_key": "a", "token_file": "/x"}, "api_key and token_file exclude each other"),
        ({"api_key": "a b"}, "not a valid API key or token"),
        ({"api_key": ""}, "not a valid API key or token"),
        ({"api_key": "a\r\nX: y"}, "not a valid API key or token"),
        ({"token": "ä"}, "not a valid API key or token"),
        ({"token": b"abc"}, "token must be a str"),
        ({"token_file": "/missing"}, "cannot be read: No such file"),
        ({"token_file": "/dev/zero"}, "is a device, not a regular file"),
    ],
)
def test_bad_credentials(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        Client("http://127.0.0.1:1", **given)
    assert "X: y" not in str(caught.value)


def test_a_registry_gets_no_api_key() -> None:
    with pytest.raises(ConfigurationError, match="an API key or token is for proxies"):
        Client("consul://127.0.0.1:8500", api_key=ALL)


def test_it_is_said_where_a_key_goes_in_clear(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for url in ("http://127.0.0.1:1", "http://[::1]:1", "https://10.0.0.7:1", "http://localhost:1"):
        Client(url, api_key=ALL)
    assert not caplog.records
    Client("http://10.0.0.7:1", "http://proxy:2", api_key=ALL)
    (record,) = caplog.records
    assert "sent to http://10.0.0.7:1, http://proxy:2 without TLS" in record.getMessage()
    assert ALL not in record.getMessage()
    Client("http://10.0.0.7:1", "http://proxy:3", api_key=ALL)
    Client("http://10.0.0.7:1", token=ALL)  # said already
    _, record = caplog.records
    assert "sent to http://proxy:3 without TLS" in record.getMessage()


def test_a_credential_costs_little() -> None:
    credential = Credential(ALL)
    started = time.perf_counter()
    for _ in range(1000):
        assert credential.header() == f"Bearer {ALL}"
    assert (time.perf_counter() - started) / 1000 < 50e-6
    assert ALL not in repr(credential)
