"""What a proxy's metrics say of workers that fail, of itself, and of its certificate."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import aiohttp
import msgspec
import pytest
from tests.proxy.world import World, instance
from tests.support.tls_cluster import proxied, secure_cluster
from tests.support.waiting import until

from fingerpost.security.tls import ServerTls
from fingerpost.security.tls.config import TlsConfig

pytestmark = pytest.mark.shell


async def test_a_dead_worker_counts_as_failing_and_one_that_drains_does_not(world: World) -> None:
    for name in ("one", "two", "three"):
        await world.add(name)
    await world.until(3)
    assert await world.measured("fingerpost_proxy_ready 1.0")
    assert await world.measured('fingerpost_proxy_failing_instances{service="digits"} 0.0')
    await world.workers["two"].stop()
    await until(
        lambda: world.measured('fingerpost_proxy_failing_instances{service="digits"} 1.0'),
        within_s=10,
    )
    assert await world.measured('fingerpost_proxy_instances{service="digits"} 2.0')
    await world.registrations["three"].drain("maintenance")
    await world.until(1)
    assert await world.measured('fingerpost_proxy_failing_instances{service="digits"} 1.0')


async def test_an_entry_that_is_not_used_counts_while_it_is_there(world: World) -> None:
    await world.add("one")
    entry = msgspec.structs.replace(instance("bad", 80), host="169.254.169.254")
    bad = await world.registry.register(entry)
    count = 'fingerpost_proxy_rejected_instances{service="digits"} '
    await until(lambda: world.measured(count + "1.0"), within_s=10)
    await bad.deregister()
    await until(lambda: world.measured(count + "0.0"), within_s=10)


async def test_the_end_of_the_certificate_and_handshakes_that_failed(tmp_path: Path) -> None:
    async with secure_cluster(tmp_path) as cluster:
        proxy = await proxied(cluster)
        trusting = ssl.create_default_context(cafile=str(cluster.ca.file))
        connector = aiohttp.TCPConnector(ssl=trusting)
        async with (
            aiohttp.ClientSession(proxy.url, connector=connector) as http,
            aiohttp.ClientSession(proxy.url.replace("https", "http")) as stranger,
        ):

            async def value(metric: str) -> float:
                async with http.get("/metrics") as response:
                    found = re.search(rf"^{metric} (\S+)$", await response.text(), re.MULTILINE)
                assert found is not None
                return float(found[1])

            pair = cluster.ca.issue("proxy")
            theirs = ServerTls(TlsConfig(cert=str(pair.cert), key=str(pair.key))).certificate
            ends = await value("fingerpost_tls_certificate_not_after_timestamp_seconds")
            assert ends == pytest.approx(theirs.not_after, abs=300)
            cluster.ca.issue("proxy", valid_to_s=7200)  # on the connection that is open

            async def renewed() -> bool:
                ends = await value("fingerpost_tls_certificate_not_after_timestamp_seconds")
                return ends == pytest.approx(theirs.not_after + 3600, abs=300)

            await until(renewed)
            failures = r'fingerpost_refused_connections_total\{reason="tls_handshake"\}'
            before = await value(failures)
            for _ in range(3):
                async with stranger.get("/") as response:
                    assert response.status == 421
            assert await value(failures) == before + 3
