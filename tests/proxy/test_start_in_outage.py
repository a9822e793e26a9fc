"""A proxy that starts while the registry is away: what is on disk is what it knows."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.support.waiting import until

from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.registry import Instance, ModelInfo, Snapshot, open_registry
from fingerpost.registry.config import RegistryConfig
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.registry.http.app import bind, serve
from fingerpost.registry.watching.snapshot_store import SnapshotStore

AGE_S = 300.0


@pytest.fixture(autouse=True)
def _clean(no_task_left: None) -> None:
    """No test leaves a task behind."""


@pytest.fixture
async def worker_port() -> AsyncIterator[int]:
    """A worker's `/health/engine`, which is all that the registry asks for."""

    async def well(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/health/engine", well)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await serve(runner, bind("127.0.0.1", 0))
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest.fixture
def dead_port() -> int:
    """A port that refuses connections until somebody listens on it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def instance(service: str, port: int) -> Instance:
    models = (ModelInfo(name=service, versions=("3",)),)
    return Instance(
        id=f"{service}-1", service=service, host="127.0.0.1", ports={"http": port}, models=models
    )


async def store(folder: Path, *instances: Instance) -> None:
    """Files as an earlier proxy left them, `AGE_S` old."""
    files = SnapshotStore(folder)
    for each in instances:
        files.put(
            Snapshot(
                service=each.service,
                instances=(each,),
                known=True,
                index=7,
                taken_at=time.monotonic() - AGE_S,
            )
        )
    await files.aclose()


@contextlib.asynccontextmanager
async def proxy_at(port: int, folder: Path, **settings: Any) -> AsyncIterator[Proxy]:
    registry_config = RegistryConfig(snapshot_folder=str(folder))
    config = ProxyConfig(
        registry=f"http://127.0.0.1:{port}",
        registry_config=registry_config,
        port=0,
        probe_interval_s=0.0,
        **settings,
    )
    async with Proxy(config) as proxy:
        yield proxy


@contextlib.asynccontextmanager
async def asking(proxy: Proxy) -> AsyncIterator[Callable[[str], Awaitable[tuple[int, Any]]]]:
    """`await ask(PATH)`: the status, and the JSON or text."""
    async with aiohttp.ClientSession(proxy.url) as http:

        async def ask(path: str) -> tuple[int, Any]:
            async with http.get(path) as response:
                is_json = response.content_type == "application/json"
                return response.status, await (response.json() if is_json else response.text())

        yield ask


async def services(ask: Callable[[str], Awaitable[tuple[int, Any]]]) -> dict[str, dict]:
    status, body = await ask("/v1/services")
    assert status == 200, body
    return {each["name"]: each for each in body["services"]}


async def test_all_services_on_disk_are_known_without_naming_one(
    tmp_path: Path, dead_port: int
) -> None:
    await store(tmp_path, instance("cats", 1001), instance("digits", 1002))
    async with proxy_at(dead_port, tmp_path) as proxy, asking(proxy) as ask:
        for name, port in (("cats", 1001), ("digits", 1002)):
            status, body = await ask(f"/v1/resolve/{name}@3")
            assert status == 200, body
            assert [each["address"] for each in body["instances"]] == [f"127.0.0.1:{port}"]
            assert body["from_disk"]
            assert AGE_S <= body["age_s"] < AGE_S + 60
        listed = await services(ask)
        assert set(listed) == {"cats", "digits"}
        assert listed["cats"]["from_disk"]
        assert listed["cats"]["age_s"] >= AGE_S
        assert listed["cats"]["versions"] == ["3"]
        assert (await ask("/health/ready"))[0] == 200
        assert (await ask("/v1/resolve/dogs"))[0] == 404
        status, body = await ask("/")
        assert (status, body["error"]["code"]) == (400, "invalid_request"), "there are two"


async def test_the_only_service_on_disk_is_that_of_plain_lookups(
    tmp_path: Path, dead_port: int
) -> None:
    await store(tmp_path, instance("digits", 1002))
    (tmp_path / "cats.json").write_text("damaged")
    async with proxy_at(dead_port, tmp_path) as proxy, asking(proxy) as ask:
        assert await ask("/") == (200, "127.0.0.1:1002\n")
        assert set(await services(ask)) == {"digits"}


async def test_a_registry_that_hangs_is_an_outage_too(tmp_path: Path) -> None:
    await store(tmp_path, instance("digits", 1002))

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with proxy_at(port, tmp_path) as proxy, asking(proxy) as ask:
            assert await ask("/") == (200, "127.0.0.1:1002\n")


async def test_when_the_registry_answers_its_word_counts_and_old_files_are_forgotten(
    tmp_path: Path, dead_port: int, worker_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    digits = instance("digits", worker_port)
    await store(tmp_path, digits, instance("removed-long-ago", 1001))
    async with proxy_at(dead_port, tmp_path) as proxy, asking(proxy) as ask:
        await until(lambda: _has(ask, {"digits", "removed-long-ago"}))
        async with EmbeddedRegistry(port=dead_port) as embedded:
            registry = open_registry(embedded.url)
            registration = await registry.register(digits)
            await until(lambda: _has(ask, {"digits"}))
            assert await ask("/") == (200, f"127.0.0.1:{worker_port}\n")
            assert (await ask("/v1/resolve/removed-long-ago"))[0] == 404
            assert "removed-long-ago is only on disk" in caplog.text

            async def confirmed() -> bool:
                entry = (await services(ask))["digits"]
                return not entry["from_disk"] and entry["age_s"] < AGE_S

            await until(confirmed)
            # Forgotten is not banned.
            again = await registry.register(instance("removed-long-ago", worker_port))
            await until(lambda: _has(ask, {"digits", "removed-long-ago"}))
            # A service that the registry has confirmed stays known without workers.
            await registration.deregister()
            await again.deregister()

            async def without_worker() -> bool:
                return (await ask("/v1/resolve/digits"))[0] == 503

            await until(without_worker)
            await registry.aclose()


async def _has(ask: Callable[[str], Awaitable[tuple[int, Any]]], names: set[str]) -> bool:
    return set(await services(ask)) == names


async def test_more_services_on_disk_than_can_be_watched_do_not_stop_the_proxy(
    tmp_path: Path, dead_port: int, worker_port: int
) -> None:
    await store(tmp_path, *(instance(f"old-{number:03}", 1001) for number in range(101)))
    async with proxy_at(dead_port, tmp_path) as proxy, asking(proxy) as ask:

        async def full() -> bool:
            return len(await services(ask)) == 100

        await until(full)
        status, body = await ask("/v1/resolve/old-100")
        assert (status, body["error"]["code"]) == (503, "registry"), "not 404: it is on disk"
        async with EmbeddedRegistry(port=dead_port) as embedded:
            registry = open_registry(embedded.url)
            registration = await registry.register(instance("digits", worker_port))

            async def found() -> bool:
                return (await ask("/v1/resolve/digits"))[0] == 200

            await until(found)
            await registration.deregister()
            await registry.aclose()
