"""`fingerpost proxy`: tell clients where the workers are."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fingerpost.basics.service_manager import ServiceManager
from fingerpost.deploy import options
from fingerpost.deploy.logs import start_logging
from fingerpost.deploy.options.registry import takes_registry_options
from fingerpost.deploy.options.tls import takes_server_tls_options
from fingerpost.deploy.processes.handover import (
    inherited_listener,
    is_successor,
    notify_predecessor,
    start_successor,
)
from fingerpost.deploy.without_tls import warn_without_tls
from fingerpost.errors import FingerpostError
from fingerpost.registry.config import RegistryConfig
from fingerpost.security.tls.config import TlsConfig

if TYPE_CHECKING:
    from fingerpost.basics.shutdown import ShutdownSignals
    from fingerpost.proxy import Proxy

__all__ = ["add_to"]

logger = logging.getLogger(__name__)

# How long open connections may stay at the end, and how long a successor may take to start.
_GRACE_S: Final = 1.0
_TIME: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(s|m)?", re.ASCII)
_SUCCESSOR_S: Final = 20.0


def _seconds(text: str | float) -> float:
    """A time such as `120`, `120s` or `2m`."""
    found = _TIME.fullmatch(str(text))
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a valid time: give seconds, such as 120s")
    return float(found[1]) * (60.0 if found[2] == "m" else 1.0)


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(takes_registry_options(takes_server_tls_options(proxy, asks_workers=True)))


def proxy(
    *,
    registry: str,
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 12480,
    host: options.Host = "127.0.0.1",
    service: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Service that GET / answers for; by default the only one."
        ),
    ] = None,
    relay: Annotated[
        bool,
        typer.Option("--relay", help="Relay images for clients that cannot reach the workers."),
    ] = False,
    lease: Annotated[
        float, typer.Option(help="Seconds that a client may use an answer without asking again.")
    ] = 2.0,
    hold_for_start: Annotated[
        float,
        typer.Option(
            parser=_seconds,
            metavar="SECONDS",
            help="Hold lookups of a model without a worker for so long, until its first worker is "
            "up (120s). 0 answers at once.",
        ),
    ] = 0.0,
    expect: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="Models that may have no worker: they are known before one has registered, and "
            "stay known.",
        ),
    ] = "",
    xds_port: Annotated[
        int | None,
        typer.Option(
            help="Serve xDS on this port (12482), by which clients of gRPC in any language, and "
            "Envoys, find workers by themselves.",
            show_default=False,
            min=0,
            max=65535,
        ),
    ] = None,
    insecure: options.Insecure = False,
    max_per_client: options.MaxPerClient = None,
    allow_origin: options.AllowOrigins = None,
    lease_key: Annotated[
        Path | None,
        typer.Option(
            envvar="FINGERPOST_LEASE_KEY",
            metavar="FILE",
            help="Sign leases with the private key in this file, for workers with "
            "--require-lease. `fingerpost keys init` makes one.",
        ),
    ] = None,
    lease_life: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="How long a lease lasts, and so an outage may last."),
    ] = 300.0,
    url_life: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="How long the lease in a URL of GET / lasts."),
    ] = 60.0,
    lease_bind: Annotated[
        bool,
        typer.Option(
            "--lease-bind", help="Bind the lease of a client to its certificate, where it has one."
        ),
    ] = False,
    cluster: options.Cluster = options.DEFAULT_CLUSTER,
    callers: options.CallersFile = None,
    audit_log: options.AuditLogFile = None,
    log_level: options.LogLevel = "info",
    log_format: options.LogFormat = "text",
    follow_parent: options.FollowParent = False,
    registry_config: RegistryConfig,
    tls: TlsConfig | None,
) -> None:
    """Tell clients where the workers are. Run as many proxies as you like.

    SIGHUP restarts the proxy without refusing a connection: a new process takes over its socket.
    A process that has handed over ignores further ones.
    """
    from fingerpost.proxy import Proxy, ProxyConfig
    from fingerpost.proxy.config import ProxyLeasesConfig
    from fingerpost.proxy.xds_config import XdsConfig
    from fingerpost.registry.access import CallersConfig
    from fingerpost.registry.http.connection_config import ConnectionConfig
    from fingerpost.registry.http.cors_config import CorsConfig
    from fingerpost.registry.http.descriptors import raise_descriptor_limit
    from fingerpost.security.leases.config import LeaseConfig

    start_logging(log_level, log_format)
    # Until it serves, there is nothing to hand over.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    config = ProxyConfig(
        registry=registry,
        registry_config=registry_config,
        host=host,
        port=port,
        connections=ConnectionConfig(max_per_client=max_per_client),
        xds=XdsConfig(port=xds_port),
        cors=CorsConfig(allow_origins=tuple(allow_origin or ())),
        default_service=service,
        relay=relay,
        lease_s=lease,
        hold_for_start_s=hold_for_start,
        expected=tuple(filter(None, map(str.strip, expect.split(",")))),
        tls=tls or TlsConfig(),
        callers=CallersConfig(policy=callers, audit_log=audit_log),
        leases=ProxyLeasesConfig(
            key_file=lease_key,
            signing=LeaseConfig(cluster=cluster, life_s=lease_life, url_life_s=url_life),
            bind=lease_bind,
        ),
    )
    warn_without_tls("proxy", host, tls, insecure=insecure)

    async def run() -> None:
        from fingerpost.basics.shutdown import ShutdownSignals

        manager = ServiceManager.take(os.environ)
        listener = inherited_listener(os.environ)
        follows = is_successor(os.environ)
        async with Proxy(config, listener) as serving:
            signals = ShutdownSignals(follow_parent=follow_parent)
            logger.info("listening at %s, registry %s", serving.url, registry)
            notify_predecessor(os.environ)
            if not follows:  # or the predecessor says it
                manager.ready(serving.status_line())
            async with manager.informed(serving.status_line, lambda: True):
                await _until_leaving(signals, serving, manager)
                signals.ignore_restarts()
                manager.stopping("closing connections")
                await serving.leave(_GRACE_S)

    raise_descriptor_limit()
    asyncio.run(run())


async def _until_leaving(signals: ShutdownSignals, serving: Proxy, manager: ServiceManager) -> None:
    """Return at the first SIGTERM or SIGINT, or once a successor has taken over."""
    ending = asyncio.create_task(signals.wait())
    while not ending.done():
        restart = asyncio.create_task(signals.restart_requested.wait())
        await asyncio.wait((ending, restart), return_when=asyncio.FIRST_COMPLETED)
        restart.cancel()
        if not signals.restart_requested.is_set():
            continue
        signals.restart_requested.clear()
        try:
            manager.reloading()
            pid = await start_successor(serving.listener, _SUCCESSOR_S, manager.environment)
        except FingerpostError as error:
            manager.ready(serving.status_line())
            logger.error("restart failed, this process keeps serving: %s", error)  # noqa: TRY400 - one line
            continue
        logger.info("process %d has taken over", pid)
        manager.succeeded_by(pid)
        ending.cancel()
        return
