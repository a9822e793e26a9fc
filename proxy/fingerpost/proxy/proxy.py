"""A whole proxy: registry, directory, probes, relay and HTTP routes, put together."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from fingerpost.basics.supervision import supervise
from fingerpost.proxy.directory import Directory
from fingerpost.proxy.holds import StartHolds
from fingerpost.proxy.javascript import add_client
from fingerpost.proxy.leases import ProxyLeases
from fingerpost.proxy.metrics import ProxyMetrics
from fingerpost.proxy.overview import OverviewRoutes
from fingerpost.proxy.probes import LoadProbes
from fingerpost.proxy.reach import ReachCheck
from fingerpost.proxy.relay import Relay
from fingerpost.proxy.routes import ProxyRoutes
from fingerpost.proxy.server import ProxyRunner
from fingerpost.proxy.xds.start import start_xds
from fingerpost.registry import format_address, open_registry
from fingerpost.registry.access import Callers
from fingerpost.registry.http.app import bind, serve
from fingerpost.registry.http.cors import allow_pages
from fingerpost.security.tls import ServerTls

if TYPE_CHECKING:
    import socket

    from aiohttp import web

    from fingerpost.proxy.config import ProxyConfig
    from fingerpost.proxy.xds.server import XdsServer

__all__ = ["Proxy"]


class Proxy:
    """A proxy that serves while inside `async with`, even if the registry is unreachable at first.

    Args:
        config: its settings.
        listener: a bound socket to listen on, from a previous process or from systemd; by default
            one is bound to the config's host and port.

    Attributes:
        port: the port that it listens on; before `async with`, the configured one.
    """

    def __init__(self, config: ProxyConfig, listener: socket.socket | None = None) -> None:
        self._config = config
        self._listener = listener
        self._routes: ProxyRoutes | None = None
        self._site: web.SockSite | None = None
        self._xds: XdsServer | None = None
        self._directory: Directory | None = None
        self._stack = AsyncExitStack()
        self.port = config.port

    @property
    def url(self) -> str:
        """The URL that it listens at: `http://host:port` or `https://host:port`."""
        scheme = "https" if self._config.tls.serves else "http"
        return f"{scheme}://{format_address(self._config.host, self.port)}"

    async def __aenter__(self) -> Self:
        """Start to watch the registry, and to listen.

        Raises:
            ConfigurationError: the port is in use, or the registry's URL is not valid.
        """
        config = self._config
        server_tls = ServerTls(config.tls) if config.tls.serves else None
        async with AsyncExitStack() as stack:
            inherited = self._listener is not None
            listener = self._listener or bind(config.host, config.port)
            self._listener = stack.enter_context(listener)
            registry = open_registry(config.registry, config.reading, tls=config.tls)
            stack.push_async_callback(registry.aclose)
            directory = await stack.enter_async_context(
                Directory(
                    registry,
                    default=config.default_service,
                    expected=config.expected,
                    first_snapshot_timeout_s=config.first_snapshot_timeout_s,
                    forget_after_s=config.forget_after_s,
                )
            )
            metrics = ProxyMetrics(server_tls)
            probes = LoadProbes(directory, config)
            if config.probe_interval_s:
                probing = supervise(probes.run, "load probes")
                stack.push_async_callback(_cancel, asyncio.create_task(probing, name="probes"))
            relay = await stack.enter_async_context(Relay(config, metrics, probes.leave_out))

            def callers_changed() -> None:
                directory.end_holds()
                if self._xds is not None:
                    self._xds.callers_changed()

            callers = await stack.enter_async_context(
                Callers(config.callers, metrics.access, changed=callers_changed)
            )
            leases = None
            if config.leases.key_file is not None:
                leases = await stack.enter_async_context(
                    ProxyLeases(config.leases, registry, directory)
                )
            holds = StartHolds(
                directory,
                probes,
                hold_s=config.hold_for_start_s,
                most=config.max_held,
                expected=config.expected,
            )
            routes = ProxyRoutes(
                directory, probes, relay, callers, holds, leases, config=config, metrics=metrics
            )
            app = routes.app()
            OverviewRoutes(directory, probes, callers, holds).add_to(app)
            reach = ReachCheck(callers, config.host)
            stack.push_async_callback(reach.aclose)
            reach.add_to(app)
            add_client(app)
            allow_pages(app, config.cors)
            runner = ProxyRunner(
                app,
                routes.address,
                config.connections,
                handle_signals=False,
                shutdown_timeout=1.0,
            )
            stack.push_async_callback(runner.cleanup)
            await runner.setup()
            self._site = await serve(runner, listener, server_tls)
            if config.xds.port is not None:
                self._xds = await start_xds(
                    directory, probes, config, metrics, callers, shared=inherited
                )
                stack.push_async_callback(self._xds.aclose)
            self._routes, self._directory = routes, directory
            self.port = listener.getsockname()[1]
            self._stack = stack.pop_all()
        return self

    @property
    def xds_port(self) -> int | None:
        """The port of the xDS server; None where there is none."""
        return None if self._xds is None else self._xds.port

    @property
    def listener(self) -> socket.socket:
        """The listening socket, to hand over to a successor; only inside `async with`."""
        if self._listener is None:
            raise RuntimeError("the proxy does not listen")
        return self._listener

    def status_line(self) -> str:
        """What it does now, on one line, for its service manager."""
        directory = self._directory
        if directory is None:
            return "starting"
        error = directory.error
        trouble = f"; registry: {error}" if error is not None else ""
        if not directory.ready:
            return f"no list of services yet{trouble}"
        snapshots = directory.snapshots()
        workers = sum(len(each.instances) for each in snapshots)
        return f"{len(snapshots)} services, {workers} workers{trouble}"

    async def leave(self, grace_s: float) -> None:
        """Stop accepting connections, and close the open ones after their answers.

        Waits `grace_s` seconds for that. If a successor holds the same socket, it accepts the next
        connections without a gap.
        """
        if self._site is not None and self._routes is not None:
            await self._site.stop()
            if self._xds is not None:
                await self._xds.leave()
            await self._routes.leave(grace_s)

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
