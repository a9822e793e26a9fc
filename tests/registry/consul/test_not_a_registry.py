"""What answers at the registry's URL is something else: which, and what to write instead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.ports import free_port

from fingerpost.client import Client, ClientConfig
from fingerpost.errors import NotARegistry, RegistryError, RegistryUnreachable
from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.registry.consul.registry import ConsulRegistry
from fingerpost.registry.embedded.server import EmbeddedRegistry
from fingerpost.worker import Worker, WorkerConfig


def http(status: str, *head: str, body: str = "") -> bytes:
    lines = (f"HTTP/1.1 {status}", *head, f"Content-Length: {len(body)}", "Connection: close")
    return "\r\n".join((*lines, "", body)).encode()


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """The URL of a server that answers everything so."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


class Model:
    height = width = 1

    def predict(self, batch: list[bytes]) -> list[list[float]]:
        return [[1.0]] * len(batch)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (http("404 Not Found", "Server: nginx/1.22", body="<h1>gone</h1>"), "nginx/1.22.*gone"),
        (http("200 OK", "Server: Python", body="<html>hello"), "'Python' has X-Consul-Index ''"),
        (http("301 Moved", "Location: https://elsewhere/"), "HTTP 301 .*this is not a registry"),
        (http("405 Not Allowed"), "HTTP 405"),
        (http("400 Bad", body="Client sent an HTTP request to an HTTPS server."), r"consul\+https"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "answers what is not HTTP"),
    ],
)
async def test_a_worker_says_at_once_what_answered(answer: bytes, message: str) -> None:
    async with answering(answer) as url:
        worker = Worker.for_object(Model(), name="m", config=WorkerConfig(registry=url))
        async with asyncio.timeout(10):
            with pytest.raises(NotARegistry, match=message):
                await worker.__aenter__()


async def test_a_proxy_is_not_a_registry_nor_a_registry_a_proxy() -> None:
    async with (
        EmbeddedRegistry(port=0) as registry,
        Proxy(ProxyConfig(registry=registry.url, port=0)) as proxy,
    ):
        worker = Worker.for_object(Model(), name="m", config=WorkerConfig(registry=proxy.url))
        with pytest.raises(NotARegistry, match=r"a proxy or worker .*--proxy URL"):
            await worker.__aenter__()
        message = "404 page not found: /v1/.*this is not a Fingerpost proxy.*--registry"
        async with Client(registry.url, config=ClientConfig(wait_for_ready_s=0.5)) as client:
            with pytest.raises(RegistryError, match=message):
                await client.classify(b"x", model="m")
            with pytest.raises(RegistryError, match=message):
                await client.services()


async def test_errors_of_a_registry_are_waited_for() -> None:
    """Servers without a leader answer 500, and a gateway before them 502."""
    for status in ("500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable"):
        async with answering(http(status)) as url:
            registry = ConsulRegistry(url)
            with pytest.raises(RegistryError) as caught:
                await registry.catalog()
            assert not isinstance(caught.value, NotARegistry)
            await registry.aclose()


async def test_a_connection_error_is_in_the_systems_words() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    registry = ConsulRegistry(url)
    with pytest.raises(RegistryUnreachable) as caught:
        await registry.catalog()
    assert str(caught.value).endswith(
        f"{url} cannot be reached: Connection refused; is it running there?"
    )
    await registry.aclose()
