"""A proxy with TLS: what it answers to curl, to Prometheus, and about impostors."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl

import aiohttp
import pytest
from tests.support.tls_cluster import IMAGE, proxied, secure_cluster, serve_with
from tests.support.waiting import until

pytestmark = pytest.mark.shell


def _trusting(cluster):
    context = ssl.create_default_context(cafile=str(cluster.ca.file))
    return aiohttp.TCPConnector(ssl=context)


async def test_curl_gets_whole_urls(tmp_path):
    async with secure_cluster(tmp_path) as cluster:
        worker = await cluster.worker(serve_with(cluster.ca.worker("flowers")))
        proxy = await proxied(cluster)
        address = worker.instance.address
        async with aiohttp.ClientSession(proxy.url, connector=_trusting(cluster)) as http:

            async def named():
                async with http.get("/") as response:
                    return response.status == 200

            await until(named)
            for _ in range(3):  # parsed, then from memory
                async with http.get("/", headers={"Accept": "*/*"}) as response:
                    url = (await response.text()).strip()
                    assert url.startswith(f"https://{address}/instance/")
            (tmp_path / "image.png").write_bytes(IMAGE)
            trust = f"--cacert {cluster.ca.file}"
            shell = f'curl -s {trust} -F data=@image.png "$(curl -s {trust} {proxy.url})"'
            curl = await asyncio.create_subprocess_shell(
                shell, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
            )
            answer, _ = await curl.communicate()
            assert json.loads(answer)[0][0] == "rose"
            async with http.get("/v1/resolve/flowers") as response:
                (found,) = (await response.json())["instances"]
                assert (found["address"], found["meta"]["scheme"]) == (address, "https")
            async with http.get(
                "/v1/resolve/flowers", headers={"Accept": "text/plain"}
            ) as response:
                assert await response.text() == f"https://{address}\n"
            async with http.post(
                "/v1/classify/flowers", data=IMAGE, allow_redirects=False
            ) as response:
                assert response.headers["Location"].startswith(f"https://{address}/instance/")
            async with http.get("/v1/prometheus/targets") as response:
                (group,) = await response.json()
                assert group["labels"]["__scheme__"] == "https"


async def test_plain_http_is_told_so_once_and_disturbs_nobody(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    async with secure_cluster(tmp_path) as cluster:
        proxy = await proxied(cluster)
        async with aiohttp.ClientSession(proxy.url, connector=_trusting(cluster)) as http:
            async with http.get("/health/live") as response:
                assert response.status == 200
            plain = proxy.url.replace("https", "http")
            async with aiohttp.ClientSession() as stranger:
                for _ in range(5):
                    async with stranger.get(f"{plain}/") as response:
                        assert response.status == 421
                        assert "https://" in (await response.json())["error"]["message"]
            async with http.get("/health/live") as response:
                assert response.status == 200
        assert caplog.text.count("handshakes failed") == 1
        assert "plain HTTP" in caplog.text


async def test_a_worker_without_a_certificate_is_not_named(tmp_path):
    async with secure_cluster(tmp_path) as cluster:
        impostor = await cluster.worker(None)
        proxy = await proxied(cluster)
        async with aiohttp.ClientSession(proxy.url, connector=_trusting(cluster)) as http:
            await asyncio.sleep(0.3)
            async with http.get("/") as response:
                assert response.status == 503
                assert "certificate" in await response.text()
            honest = await cluster.worker(serve_with(cluster.ca.worker("flowers")))

            async def named():
                async with http.get("/") as response:
                    return response.status == 200

            await until(named)
            for _ in range(10):
                async with http.get("/") as response:
                    text = await response.text()
                    assert honest.instance.address in text
                    assert impostor.instance.address not in text


async def test_handshakes_count_as_connections(tmp_path):
    from fingerpost.registry.http.connection_config import ConnectionConfig

    async with secure_cluster(tmp_path) as cluster:
        limits = ConnectionConfig(max_per_client=2, headers_timeout_s=0.5)
        proxy = await proxied(cluster, connections=limits)
        held = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)  # refused at once
        writer.close()
        for reader, writer in held:  # and these after the time for headers
            assert await asyncio.wait_for(_end(reader), 3) == b""
            writer.close()


async def _end(reader):
    try:
        return await reader.read()
    except ConnectionError:
        return b""
