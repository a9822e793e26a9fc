"""A whole cluster in one process, each part with a certificate of its own: real TLS."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.registry.config import RegistryConfig
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.security.tls import TlsConfig
from fingerpost.worker import Worker, WorkerConfig
from fingerpost.worker.config import DrainConfig
from tests.support.certificates import TRUST_DOMAIN, Authority, Pair

__all__ = ["IMAGE", "Flowers", "Secure", "proxied", "secure_cluster", "serve_with"]


def _image() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), (250, 10, 10)).save(out, "PNG")
    return out.getvalue()


IMAGE = _image()


class Flowers:
    """A model that sees a rose in everything."""

    labels = ("rose", "daisy")
    height = width = 16

    def predict(self, batch: Any) -> Any:
        return np.tile(np.array([0.9, 0.1], np.float32), (len(batch), 1))


def serve_with(pair: Pair, **more: Any) -> TlsConfig:
    """What a server is started with."""
    return TlsConfig(cert=str(pair.cert), key=str(pair.key), **more)


@dataclass
class Secure:
    """The registry, and what else is started with it.

    Attributes:
        ca: the authority of all.
        client: what a client is given: authority, trust domain, and a certificate of its own.
    """

    ca: Authority
    registry: EmbeddedRegistry
    client: TlsConfig
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def worker(self, tls: TlsConfig | None, *, name: str = "flowers", **more: Any) -> Worker:
        """A worker that has registered; `more` is of its `WorkerConfig`."""
        config = WorkerConfig(
            registry=self.registry.url,
            registry_config=RegistryConfig(ca_file=self._ca_file),
            drain=DrainConfig(lease_s=0.1),
            tls=tls,
            **more,
        )
        worker = Worker.for_object(Flowers(), name=name, config=config)
        await self.stack.enter_async_context(worker)
        await worker.register()
        return worker

    @property
    def _ca_file(self) -> str | None:
        return str(self.ca.file) if self.registry.url.startswith("https") else None

    async def proxy(self, tls: TlsConfig, **more: Any) -> Proxy:
        """A proxy of the registry."""
        config = ProxyConfig(
            registry=self.registry.url,
            registry_config=RegistryConfig(ca_file=self._ca_file),
            port=0,
            tls=tls,
            **{"probe_interval_s": 0.05, **more},
        )
        return await self.stack.enter_async_context(Proxy(config))


@contextlib.asynccontextmanager
async def secure_cluster(folder: Path, *, mutual: bool = False) -> AsyncIterator[Secure]:
    """A registry with TLS, which checks workers by TLS; `mutual` asks its clients, too."""
    ca = Authority(folder)
    own = ca.issue("registry")
    given = ca.issue("client")
    trust: dict[str, Any] = {"ca": str(ca.file), "trust_domain": TRUST_DOMAIN}
    tls = serve_with(own, client_ca=str(ca.file) if mutual else None, **trust)
    client = TlsConfig(cert=str(given.cert), key=str(given.key), **trust)
    async with EmbeddedRegistry(port=0, tls=tls) as registry:
        cluster = Secure(ca=ca, registry=registry, client=client)
        async with cluster.stack:
            yield cluster


async def proxied(cluster: Secure, **more: Any) -> Proxy:
    """A proxy that speaks TLS and trusts only the cluster's authority."""
    pair = cluster.ca.issue("proxy")
    trust = {"ca": str(cluster.ca.file), "trust_domain": TRUST_DOMAIN}
    return await cluster.proxy(serve_with(pair, **trust), **more)
