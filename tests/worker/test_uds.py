"""A worker's Unix socket, and clients that find it by themselves."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import logging
import socket
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from fingerpost.client import Client, ClientConfig
from fingerpost.errors import ConfigurationError, LeaseRequired
from fingerpost.registry import RegistryConfig
from fingerpost.registry.http.connection_config import ConnectionConfig
from fingerpost.registry.same_host import host_boot_id
from fingerpost.security.key_files import save_public_keys
from fingerpost.worker import WorkerConfig
from fingerpost.worker.config import LeasesConfig, RequestConfig, TelemetryConfig
from fingerpost.worker.images import ImageConfig
from tests.support.bad_images import BAD
from tests.support.leases import KEY, lease
from tests.support.rig import serving
from tests.support.rights import kept_out
from tests.support.same_host import connections_at, here
from tests.support.tls_cluster import IMAGE, secure_cluster, serve_with

pytestmark = pytest.mark.shell


async def test_a_client_on_the_host_uses_it_by_itself(short_folder: Path) -> None:
    async with here(short_folder) as one:
        meta = one.worker.instance.meta
        assert meta["uds"] == str(one.path)
        assert meta["host_boot_id"] == host_boot_id()
        assert await one.classify()
        assert not await one.classify(uds=False)


async def test_a_path_that_is_not_there_means_tcp(
    short_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a container: it has the machine's boot id, and another view of the files."""
    async with here(short_folder) as one:
        elsewhere = one.path.with_name("fingerpost.moved")
        one.path.rename(elsewhere)
        with caplog.at_level(logging.INFO):
            assert not await one.classify()
        assert not caplog.records
        elsewhere.rename(one.path)


async def test_another_socket_at_the_path_is_not_used(short_folder: Path) -> None:
    """In another container the same path may be the socket of another worker, or of anything."""
    async with here(short_folder) as one:
        one.path.rename(one.path.with_name("fingerpost.moved"))
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(one.path))
            other.listen()
            other.settimeout(0)
            assert not await one.classify()
            with pytest.raises(BlockingIOError):
                other.accept()
        one.path.with_name("fingerpost.moved").rename(one.path)


async def test_a_socket_that_may_not_be_used_means_tcp(short_folder: Path) -> None:
    async with here(short_folder) as one:
        with kept_out(one.path.parent):
            assert not await one.classify()
        assert await one.classify()


async def test_it_speaks_tls_where_the_port_does(short_folder: Path) -> None:
    path = short_folder / "fingerpost.sock"
    async with secure_cluster(short_folder) as cluster:
        trust = {"ca": str(cluster.ca.file), "trust_domain": cluster.client.trust_domain}
        tls = serve_with(cluster.ca.worker("flowers"), client_ca=str(cluster.ca.file), **trust)
        await cluster.worker(tls, uds=str(path))
        given = RegistryConfig(ca_file=str(cluster.ca.file))
        registry = cluster.registry.url
        async with Client(registry=registry, registry_config=given, tls=cluster.client) as client:
            assert (await client.classify(IMAGE, "flowers")).label == "rose"
            assert connections_at(path)
            sent = client.stats.bytes_sent
            frame = np.zeros((90, 160, 3), np.uint8)
            assert (await client.classify(frame, "flowers")).label == "rose"
            assert client.stats.bytes_sent == sent
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /load HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"421 Misdirected" in await reader.read(4096)
        writer.close()


async def test_leases_are_asked_for_and_requests_are_logged_by_user(short_folder: Path) -> None:
    log = short_folder / "access.log"
    save_public_keys(KEY.public, short_folder / "keys.json")
    leases = LeasesConfig(required=True, keys_file=short_folder / "keys.json")
    telemetry = TelemetryConfig(access_log=str(log))
    async with here(short_folder, leases=leases, telemetry=telemetry) as one:
        with pytest.raises(LeaseRequired):
            await one.classify()
        assert await one.classify(lease=lease("flowers"))
    clients = {json.loads(line)["client"] for line in log.read_text().splitlines()}
    assert len(clients) == 1
    assert clients.pop().startswith("uid ")


async def test_limits_are_those_of_the_port(short_folder: Path) -> None:
    settings = {
        "requests": RequestConfig(max_bytes=1000),
        "connections": ConnectionConfig(max_per_client=1),
    }
    async with here(short_folder, **settings) as one, one.asking() as http:
        form = aiohttp.FormData()
        form.add_field("data", b"x" * 2000, filename="x.png")
        async with http.post("http://worker/v1/classify/flowers", data=form) as response:
            assert response.status == 413
            assert (await response.json())["error"]["code"] == "image_too_large"
        async with http.get("http://worker/load") as response:
            assert response.status == 200
        async with one.asking() as second, second.get("http://worker/load") as response:
            assert response.status == 429


async def test_bad_images_are_refused_as_at_the_port(short_folder: Path) -> None:
    path = str(short_folder / "fingerpost.sock")
    async with serving(uds=path, images=ImageConfig()) as rig:
        connector = aiohttp.UnixConnector(path)
        async with aiohttp.ClientSession("http://worker", connector=connector) as http:
            for name, (image, kind) in BAD.items():
                data = io.BytesIO(image)
                asked = http.post("/v1/classify/colours", data=data, expect100=True)
                async with asked as response:
                    body = await response.json()
                assert response.status == kind("").status, name
                assert body["error"]["code"] == kind.code, name
        assert rig.service.memory.used == 0


@pytest.mark.parametrize(
    ("path", "why"),
    [("flowers.sock", "absolute"), ("/fingerpost/" + "x" * 100, "93 is the most")],
)
def test_a_path_that_is_not_valid_is_refused_at_once(path: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        WorkerConfig(uds=path)


def test_the_setting_of_the_client_is_checked() -> None:
    with pytest.raises(ConfigurationError, match="uds"):
        dataclasses.replace(ClientConfig(), uds="/run/fingerpost.sock")  # type: ignore[arg-type]
