"""Clients of workers, proxies and registries that speak TLS: real ones, in one process."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import Any

import pytest
from tests.support.certificates import TRUST_DOMAIN, Authority
from tests.support.optional import not_none
from tests.support.tls_cluster import IMAGE, proxied, secure_cluster, serve_with
from tests.support.waiting import until

from fingerpost.client import Client, ClientConfig
from fingerpost.errors import DeadlineExceeded, FingerpostError, TlsFailed
from fingerpost.registry.config import RegistryConfig
from fingerpost.registry.instance import Instance, ModelInfo
from fingerpost.security.tls import TlsConfig

pytestmark = pytest.mark.shell


def _by_registry(cluster, tls=None, **config):
    return Client(
        registry=cluster.registry.url,
        registry_config=RegistryConfig(ca_file=str(cluster.ca.file)),
        tls=tls or cluster.client,
        config=ClientConfig(**{"timeout_s": 10.0, **config}),
    )


async def test_a_worker_with_a_certificate_is_used(tmp_path):
    async with secure_cluster(tmp_path) as cluster:
        worker = await cluster.worker(serve_with(cluster.ca.worker("flowers")))
        assert worker.instance.url.startswith("https://")
        async with _by_registry(cluster) as client:
            for _ in range(3):
                assert (await client.classify(IMAGE, "flowers")).label == "rose"
            assert client.stats.retries == {}


async def test_large_images_and_streams_of_pieces(tmp_path):
    async def pieces():
        for at in range(0, len(IMAGE), 7):
            yield IMAGE[at : at + 7]

    async with secure_cluster(tmp_path) as cluster:
        await cluster.worker(serve_with(cluster.ca.worker("flowers")))
        padded = IMAGE + bytes(5_000_000)  # after the PNG's end, which decoders do not mind
        async with _by_registry(cluster) as client:
            assert (await client.classify(padded, "flowers")).label == "rose"
            assert (await client.classify(pieces(), "flowers")).label == "rose"
            assert client.stats.bytes_sent == len(padded) + len(IMAGE)


async def test_mutual_tls(tmp_path):
    async with secure_cluster(tmp_path) as cluster:
        pair = cluster.ca.worker("flowers")
        await cluster.worker(serve_with(pair, client_ca=str(cluster.ca.file)))
        async with _by_registry(cluster) as client:
            assert (await client.classify(IMAGE, "flowers")).label == "rose"
        stranger = dataclasses.replace(cluster.client, cert=None, key=None)
        async with _by_registry(cluster, stranger, timeout_s=1.0) as client:
            with pytest.raises(DeadlineExceeded) as told:
                await client.classify(IMAGE, "flowers")
            assert isinstance(told.value.__cause__, TlsFailed)
            assert "client certificate" in str(told.value.__cause__)
            assert client.stats.suspect_images == 0


async def _register_impostor(cluster, **meta):
    """Registers an honest-looking entry, and returns a server there that counts its bytes."""
    got = bytearray()

    async def read(reader, writer):
        with contextlib.suppress(OSError):
            got.extend(await reader.read(1 << 20))
        writer.close()

    server = await asyncio.start_server(read, "127.0.0.1", 0)
    cluster.stack.callback(server.close)
    entry = Instance(
        id="impostor",
        service="flowers",
        host="127.0.0.1",
        ports={"http": server.sockets[0].getsockname()[1]},
        models=(ModelInfo(name="flowers", versions=("1",)),),
        weight=100,
        meta=meta,
    )
    from fingerpost.registry.config import CheckConfig
    from fingerpost.registry.factory import open_registry

    registry = open_registry(
        cluster.registry.url,
        RegistryConfig(ca_file=str(cluster.ca.file), check=CheckConfig(mode="ttl")),
    )
    cluster.stack.push_async_callback(registry.aclose)
    registration: Any = await registry.register(entry, healthy=lambda: True)
    cluster.stack.push_async_callback(registration.stop)
    return got


@pytest.mark.parametrize("meta", [{}, {"scheme": "https"}], ids=["plain", "says https"])
async def test_an_impostor_gets_no_image(tmp_path, meta):
    async with secure_cluster(tmp_path) as cluster:
        await cluster.worker(serve_with(cluster.ca.worker("flowers")))
        got = await _register_impostor(cluster, **meta)
        async with _by_registry(cluster) as client:
            for _ in range(20):
                assert (await client.classify(IMAGE, "flowers")).label == "rose"
            assert client.stats.retries.get("tls_failed", 0) >= 1 or client.stats.probes_lost
            assert IMAGE[:8] not in got
            assert b"POST" not in got


async def test_a_worker_of_another_service_gets_no_image(tmp_path):
    async with secure_cluster(tmp_path) as cluster:
        await cluster.worker(serve_with(cluster.ca.worker("digits")))
        async with _by_registry(cluster, timeout_s=1.0) as client:
            with pytest.raises(DeadlineExceeded) as told:
                await client.classify(IMAGE, "flowers")
        assert "not one of a worker of 'flowers'" in str(told.value.__cause__)
        by_host = TlsConfig(ca=str(cluster.ca.file))
        async with _by_registry(cluster, by_host) as client:  # no trust domain: the host is checked
            assert (await client.classify(IMAGE, "flowers")).label == "rose"


async def test_plain_workers_while_a_cluster_changes_over(tmp_path):
    async with secure_cluster(tmp_path) as cluster:
        await cluster.worker(None)
        both = dataclasses.replace(cluster.client, allow_plain=True)
        async with _by_registry(cluster, both) as client:
            assert (await client.classify(IMAGE, "flowers")).label == "rose"
        async with _by_registry(cluster, timeout_s=1.0) as client:
            with pytest.raises(FingerpostError) as told:
                await client.classify(IMAGE, "flowers")
            assert "registered without TLS" in str(told.value.__cause__)


@pytest.mark.parametrize("relay", [False, True])
async def test_by_a_proxy_with_tls(tmp_path, relay):
    async with secure_cluster(tmp_path) as cluster:
        await cluster.worker(serve_with(cluster.ca.worker("flowers")))
        proxy = await proxied(cluster, relay=relay)
        assert proxy.url.startswith("https://")
        config = ClientConfig(relay=relay, timeout_s=10.0)
        async with Client(proxy.url, tls=cluster.client, config=config) as client:
            assert (await client.classify(IMAGE, "flowers")).label == "rose"
            assert bool(client.stats.bytes_relayed) is relay
        async with Client(proxy.url, config=ClientConfig(wait_for_ready_s=2.0)) as client:
            with pytest.raises(FingerpostError, match="give its authority with --tls-ca"):
                await client.classify(IMAGE, "flowers")


async def test_a_certificate_that_expires_while_serving_is_said_with_the_remedy(tmp_path, caplog):
    async with secure_cluster(tmp_path) as cluster:
        ids = [f"spiffe://{TRUST_DOMAIN}/fingerpost/worker/flowers"]
        worker = await cluster.worker(serve_with(cluster.ca.issue("short", uris=ids, valid_to_s=3)))
        await asyncio.sleep(3.2)
        url = f"static://{worker.instance.address}?scheme=https"
        config = ClientConfig(timeout_s=1.0)
        async with Client(url, tls=cluster.client, config=config) as client:
            with pytest.raises(DeadlineExceeded) as told:
                await client.classify(IMAGE, "flowers")
            with pytest.raises(DeadlineExceeded):
                await client.classify(IMAGE, "flowers")
        assert "certificate has expired; give that server a new one" in str(told.value.__cause__)
        # The server says it once, however many clients turn away.
        (line,) = [each for each in caplog.messages if "so clients refuse this server" in each]
        assert "short.cert.pem" in line
        assert "renew it" in line
        cluster.ca.issue("short", uris=ids)
        async with Client(url, tls=cluster.client) as client:
            assert (await client.classify(IMAGE, "flowers")).label == "rose"


async def test_sessions_are_resumed(tmp_path):
    async with secure_cluster(tmp_path) as cluster:
        await cluster.worker(serve_with(cluster.ca.worker("flowers")))
        async with _by_registry(cluster) as client:
            await client.classify(IMAGE, "flowers")
            pools = not_none(client._transport)._pools._pools
            (pool,) = pools.values()
            pool.evict_idle()
            await client.classify(IMAGE, "flowers")
            socket: Any = pool._idle[0]._socket
            assert socket.session_reused


async def test_a_ca_rotated_under_load_loses_nothing(tmp_path, monkeypatch):
    """Two authorities in the files of all while certificates change from one to the other."""
    monkeypatch.setattr("fingerpost.security.tls.files._LOOK_EVERY_S", 0.05)
    async with secure_cluster(tmp_path) as cluster:
        ca, pairs = cluster.ca, [cluster.ca.worker("flowers", f"w{n}") for n in range(2)]
        for pair in pairs:
            await cluster.worker(serve_with(pair, client_ca=str(ca.file)))
        failed, done, stop = [], 0, asyncio.Event()

        async def load(client):
            nonlocal done
            while not stop.is_set():
                try:
                    await client.classify(IMAGE, "flowers")
                    done += 1
                except FingerpostError as error:
                    failed.append(error)

        async with _by_registry(cluster, connections_per_worker=2) as client:
            await client.classify(IMAGE, "flowers")
            pools = not_none(client._transport)
            async with asyncio.TaskGroup() as group:
                for _ in range(4):
                    group.create_task(load(client))

                async def step():
                    """Time for files to be read, with new connections."""
                    await asyncio.sleep(0.2)
                    for pool in list(pools._pools._pools.values()):
                        pool.evict_idle()
                    before = done
                    await until(lambda: done > before + 20)

                await step()
                new = Authority(tmp_path, "new")
                ca.file.write_bytes(ca.pem + new.pem)  # both are trusted
                await step()
                for name in ("w0", "w1"):  # workers change, one after the other
                    new.worker("flowers", name)
                    await step()
                new.issue("client")
                await step()
                ca.file.write_bytes(new.pem)  # the old one is not trusted any more
                await step()
                stop.set()
        assert failed == []
        assert done > 100
