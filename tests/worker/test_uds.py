"""A worker's Unix socket, and clients that find it by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fingerpost.client import Client, ClientConfig
from fingerpost.errors import ConfigurationError, LeaseRequired
from fingerpost.registry import RegistryConfig
from fingerpost.registry.connection_config import ConnectionConfig
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.registry.same_host import host_boot_id
from fingerpost.security.key_files import save_public_keys
from fingerpost.worker import Worker, WorkerConfig
from fingerpost.worker.config import DrainConfig, LeasesConfig, RequestConfig, TelemetryConfig
from tests.support.leases import KEY, lease
from tests.support.rights import kept_out
from tests.support.tls_cluster import IMAGE, Flowers, secure_cluster, serve_with

pytestmark = pytest.mark.shell


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

    async def classify(self, **config: Any) -> int:
        """Classify two images; return how many connections the socket then has."""
        async with Client(registry=self.registry, config=ClientConfig(**config)) as client:
            for _ in range(2):
                result = await client.classify(IMAGE, "flowers")
                assert result.label == "rose"
                assert result.address == self.worker.instance.address
            assert client.stats.retries == {}
            return self.connections

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[aiohttp.ClientSession]:
        """HTTP over the socket."""
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.path))) as http:
            yield http


def connections_at(path: Path) -> int:
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sum(f" {path}." in line and line.split()[5] == "03" for line in lines)


@contextlib.asynccontextmanager
async def here(folder: Path, **settings: Any) -> AsyncIterator[Here]:
    folder = folder / "run"
    folder.mkdir()
    path = folder / "fingerpost.sock"
    async with EmbeddedRegistry(port=0) as registry:
        config = WorkerConfig(
            registry=registry.url, uds=str(path), drain=DrainConfig(lease_s=0.0), **settings
        )
        async with Worker.for_object(Flowers(), name="flowers", config=config) as worker:
            await worker.register()
            yield Here(registry.url, worker, path)
            await worker.leave()
    assert list(folder.iterdir()) == []


async def test_a_client_on_the_host_uses_it_by_itself(tmp_path: Path) -> None:
    async with here(tmp_path) as one:
        meta = one.worker.instance.meta
        assert meta["uds"] == str(one.path)
        assert meta["host_boot_id"] == host_boot_id()
        assert await one.classify() == 1
        assert await one.classify(uds=False) == 0


async def test_a_path_that_is_not_there_means_tcp(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a container: it has the machine's boot id, and another view of the files."""
    async with here(tmp_path) as one:
        elsewhere = one.path.with_name("fingerpost.moved")
        one.path.rename(elsewhere)
        with caplog.at_level(logging.INFO):
            assert await one.classify() == 0
        assert not caplog.records
        elsewhere.rename(one.path)


async def test_another_socket_at_the_path_is_not_used(tmp_path: Path) -> None:
    """In another container the same path may be the socket of another worker, or of anything."""
    async with here(tmp_path) as one:
        one.path.rename(one.path.with_name("fingerpost.moved"))
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(one.path))
            other.listen()
            other.settimeout(0)
            assert await one.classify() == 0
            with pytest.raises(BlockingIOError):
                other.accept()
        one.path.with_name("fingerpost.moved").rename(one.path)


async def test_a_socket_that_may_not_be_used_means_tcp(tmp_path: Path) -> None:
    async with here(tmp_path) as one:
        with kept_out(one.path.parent):
            assert await one.classify() == 0
        assert await one.classify() == 1


async def test_it_speaks_tls_where_the_port_does(tmp_path: Path) -> None:
    path = tmp_path / "fingerpost.sock"
    async with secure_cluster(tmp_path) as cluster:
        trust = {"ca": str(cluster.ca.file), "trust_domain": cluster.client.trust_domain}
        tls = serve_with(cluster.ca.worker("flowers"), client_ca=str(cluster.ca.file), **trust)
        await cluster.worker(tls, uds=str(path))
        given = RegistryConfig(ca_file=str(cluster.ca.file))
        registry = cluster.registry.url
        async with Client(registry=registry, registry_config=given, tls=cluster.client) as client:
            assert (await client.classify(IMAGE, "flowers")).label == "rose"
            assert connections_at(path) == 1
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /load HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"421 Misdirected" in await reader.read(4096)
        writer.close()


async def test_leases_are_asked_for_and_requests_are_logged_by_user(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    save_public_keys(KEY.public, tmp_path / "keys.json")
    leases = LeasesConfig(required=True, keys_file=tmp_path / "keys.json")
    telemetry = TelemetryConfig(access_log=str(log))
    async with here(tmp_path, leases=leases, telemetry=telemetry) as one:
        with pytest.raises(LeaseRequired):
            await one.classify()
        assert await one.classify(lease=lease("flowers")) == 1
    clients = {json.loads(line)["client"] for line in log.read_text().splitlines()}
    assert len(clients) == 1
    assert clients.pop().startswith("uid ")


async def test_limits_are_those_of_the_port(tmp_path: Path) -> None:
    settings = {
        "requests": RequestConfig(max_bytes=1000),
        "connections": ConnectionConfig(max_per_client=1),
    }
    async with here(tmp_path, **settings) as one, one.asking() as http:
        form = aiohttp.FormData()
        form.add_field("data", b"x" * 2000, filename="x.png")
        async with http.post("http://worker/v1/classify/flowers", data=form) as response:
            assert response.status == 413
            assert (await response.json())["error"]["code"] == "image_too_large"
        async with http.get("http://worker/load") as response:
            assert response.status == 200
        async with one.asking() as second, second.get("http://worker/load") as response:
            assert response.status == 429


@pytest.mark.parametrize(
    ("path", "why"),
    [("flowers.sock", "absolute"), ("/fingerpost/" + "x" * 100, "100 is the most")],
)
def test_a_path_that_is_not_valid_is_refused_at_once(path: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        WorkerConfig(uds=path)


def test_the_setting_of_the_client_is_checked() -> None:
    with pytest.raises(ConfigurationError, match="uds"):
        dataclasses.replace(ClientConfig(), uds="/run/fingerpost.sock")  # type: ignore[arg-type]
