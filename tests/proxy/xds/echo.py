"""Workers that speak gRPC and report their load, with a proxy that serves xDS."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc.aio import server as make_server
from tests.proxy.world import FakeWorker

from fingerpost.deploy.xds_bootstrap import grpc_bootstrap
from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.proxy.xds_config import XdsConfig
from fingerpost.registry import Instance, ModelInfo, Registration, open_registry
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.worker.grpc.schema.messages import message_class

__all__ = ["EchoWorker", "XdsWorld", "xds_world"]

OrcaLoadReport = message_class("xds.data.orca.v3.OrcaLoadReport")
_CLIENT = Path(__file__).with_name("client.py")
MODELS = (ModelInfo(name="digits", versions=("2", "1"), aliases={"canary": "2"}),)


class EchoWorker:
    """Answers each call with its name, and says how busy it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.utilization = 0.3
        self.http = FakeWorker()
        self.port = 0
        self._server = make_server()

    async def start(self) -> None:
        async def say(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            report = OrcaLoadReport(application_utilization=self.utilization, rps_fractional=100.0)
            trailer = ("endpoint-load-metrics-bin", report.SerializeToString())
            context.set_trailing_metadata((trailer,))
            return self.name.encode()

        handler = grpc.unary_unary_rpc_method_handler(say)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("echo.Echo", {"Say": handler}),)
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        await self.http.start()
        self.http.boot_id = self.http.port

    async def stop(self) -> None:
        """Vanish, as a process that is killed: the registry is told by nobody."""
        await self._server.stop(None)
        await self.http.stop()


class XdsWorld:
    """A registry, a proxy with xDS, and workers."""

    def __init__(self, registry: Any, proxy: Proxy) -> None:
        self.registry = registry
        self.proxy = proxy
        self.workers: dict[str, EchoWorker] = {}
        self.registrations: dict[str, Registration] = {}

    async def add(self, name: str, **fields: Any) -> EchoWorker:
        worker = self.workers[name] = EchoWorker(name)
        await worker.start()
        entry = Instance(
            id=name,
            service="digits",
            host="127.0.0.1",
            ports={"http": worker.http.port, "grpc": worker.port},
            models=MODELS,
            boot_id=worker.http.boot_id,
            **fields,
        )
        self.registrations[name] = await self.registry.register(entry)
        return worker

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.proxy.xds_port}"

    @asynccontextmanager
    async def client(self, target: str, zone: str = "") -> AsyncIterator[Client]:
        """A program that connects to a target of xDS, in a process of its own."""
        bootstrap = grpc_bootstrap([("127.0.0.1", self.proxy.xds_port or 0)], zone=zone)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            _CLIENT,
            target,
            env={**os.environ, "GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield Client(process)
        finally:
            process.kill()
            await process.communicate()


class Client:
    """Calls the workers, and tells who answered."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def call(self, count: int) -> tuple[dict[str, int], dict[str, int]]:
        """Call so often; how many answers each worker gave, and how many errors of each kind."""
        out, lines = self._process.stdin, self._process.stdout
        assert out is not None
        assert lines is not None
        out.write(f"{count}\n".encode())
        async with asyncio.timeout(60):
            told = json.loads(await lines.readline())
        return told["shares"], told["errors"]


@asynccontextmanager
async def xds_world(
    proxy_settings: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[XdsWorld]:
    """A world; `settings` are those of xDS."""
    async with EmbeddedRegistry(port=0) as embedded:
        registry = open_registry(embedded.url)
        config = ProxyConfig(
            registry=embedded.url,
            port=0,
            probe_interval_s=0.05,
            xds=XdsConfig(port=0, look_every_s=0.05, **settings),
            **(proxy_settings or {}),
        )
        async with Proxy(config) as proxy:
            world = XdsWorld(registry, proxy)
            try:
                yield world
            finally:
                for registration in world.registrations.values():
                    await registration.deregister()
        await registry.aclose()
        for worker in world.workers.values():
            await worker.stop()
