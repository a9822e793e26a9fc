"""Callers of a proxy by their client certificates: SPIFFE ids and subjects."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import aiohttp
import pytest
from tests.support.certificates import Authority, Pair

from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.registry.access import CallersConfig
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.security.callers.api_keys import hash_key, make_key
from fingerpost.security.tls import TlsConfig

KEY = make_key()
POLICY = f"""
[[callers]]
name = "shop"
certificates = ["spiffe://example.org/shop/*", "CN=laptop"]

[[callers]]
name = "key"
keys = ["{hash_key(KEY)}"]
"""


async def ask(proxy: Proxy, ca: Authority, pair: Pair, key: str = "") -> int:
    context = ssl.create_default_context(cafile=str(ca.file))
    await asyncio.to_thread(context.load_cert_chain, pair.cert, pair.key)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http,
        http.get(f"{proxy.url}/v1/services", headers=headers) as answer,
    ):
        return answer.status


@pytest.mark.shell
async def test_certificates_of_callers(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    (tmp_path / "callers.toml").write_text(POLICY)
    server = ca.issue("proxy")
    tls = TlsConfig(cert=str(server.cert), key=str(server.key), client_ca=str(ca.file))
    async with EmbeddedRegistry(port=0) as registry:
        config = ProxyConfig(
            registry=registry.url,
            port=0,
            tls=tls,
            callers=CallersConfig(policy=str(tmp_path / "callers.toml")),
        )
        async with Proxy(config) as proxy:
            shop = ca.issue("shop", uris=["spiffe://example.org/shop/web"])
            other = ca.issue("other", uris=["spiffe://example.org/shopping/web"])
            assert await ask(proxy, ca, shop) == 200
            assert await ask(proxy, ca, ca.issue("laptop")) == 200
            assert await ask(proxy, ca, other) == 401
            assert await ask(proxy, ca, ca.issue("laptop2")) == 401
            # A credential in the header decides, for better or worse.
            assert await ask(proxy, ca, other, KEY) == 200
            assert await ask(proxy, ca, shop, make_key()) == 401
