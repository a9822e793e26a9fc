"""A worker with a Unix socket, and clients on its host."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from fingerpost.client import Client, ClientConfig
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.worker import PythonModel, Worker, WorkerConfig
from fingerpost.worker.config import DrainConfig
from tests.support.tls_cluster import IMAGE, Flowers

__all__ = ["Here", "connections_at", "here"]


@dataclass
class Here:
    """A worker with a Unix socket in a folder of its own."""

    registry: str
    worker: Worker
    path: Path

    @property
    def connections(self) -> int:
        """How many are open at the socket: the kernel's list names the file of each."""
        return connections_at(self.path)

    async def classify(self, **config: Any) -> bool:
        """Classify two images; return whether there are connections at the socket then."""
        async with Client(registry=self.registry, config=ClientConfig(**config)) as client:
            for _ in range(2):
                result = await client.classify(IMAGE, "flowers")
                assert result.label == "rose"
                assert result.address == self.worker.instance.address
            assert client.stats.retries == {}
            return self.connections > 0

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[aiohttp.ClientSession]:
        """HTTP over the socket."""
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.path))) as http:
            yield http


def connections_at(path: Path) -> int:
    """How many connections are open at a socket."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sum(f" {path}." in line and line.split()[5] == "03" for line in lines)


@contextlib.asynccontextmanager
async def here(
    folder: Path, model: PythonModel | None = None, **settings: Any
) -> AsyncIterator[Here]:
    """A registry, and a worker that has registered with a socket; its model is `flowers`."""
    folder = folder / "run"
    folder.mkdir()
    path = folder / "fingerpost.sock"
    async with EmbeddedRegistry(port=0) as registry:
        config = WorkerConfig(
            registry=registry.url, uds=str(path), drain=DrainConfig(lease_s=0.0), **settings
        )
        async with Worker.for_object(model or Flowers(), name="flowers", config=config) as worker:
            await worker.register()
            yield Here(registry.url, worker, path)
            await worker.leave()
    assert list(folder.iterdir()) == []
