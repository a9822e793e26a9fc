"""`fingerpost register`: keep the entry of a server that is not Fingerpost's in the registry."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, Final

import typer

from fingerpost.basics.service_manager import ServiceManager
from fingerpost.deploy import options
from fingerpost.deploy.logs import start_logging
from fingerpost.deploy.options.registry import takes_registry_options
from fingerpost.errors import ConfigurationError
from fingerpost.registry.config import RegistryConfig

__all__ = ["add_to"]

# How a process reaches a server of its own machine that listens on all addresses.
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not listened on


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(takes_registry_options(register))


def register(
    *,
    registry: str,
    service: Annotated[str, typer.Option(metavar="NAME", help="Name that clients ask for.")],
    port: Annotated[int, typer.Option(help="Port of the server.")],
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- COMMAND...]",
            help="Starts the server; it is ended with this command. Without it, the server runs "
            "already.",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address of the server; 0.0.0.0: all of this machine's or container's, of which "
            "clients get the one that others reach."
        ),
    ] = "127.0.0.1",
    advertise: Annotated[
        str | None, typer.Option(metavar="HOST", help="Address for clients, if it is another one.")
    ] = None,
    check: Annotated[
        str, typer.Option(metavar="CHECK", help="Its health: http:/PATH, or tcp.")
    ] = "http:/",
    protocol: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="What it speaks: form, torchserve, v2, tfserving or fingerpost."
        ),
    ] = "form",
    meta: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="How it is asked, such as path=/predict; repeatable."
        ),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Image that it must answer first; by default a drawn one."
        ),
    ] = None,
    no_image: Annotated[
        bool, typer.Option("--no-image", help="Register it without asking it an image.")
    ] = False,
    front: Annotated[
        int | None,
        typer.Option(
            metavar="PORT", help="Stand in front of it at this port, and report its load."
        ),
    ] = None,
    load: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE", help="Read its load from v2's statistics (v2), or from /PATH#METRIC."
        ),
    ] = None,
    load_port: Annotated[int, typer.Option(help="Port for load reports with --load.")] = 0,
    slots: Annotated[int, typer.Option(help="Requests that it works on at once.")] = 1,
    lease: Annotated[
        float, typer.Option(help="Seconds that clients may still come after its entry is gone.")
    ] = 2.0,
    grace: Annotated[
        float, typer.Option(help="Seconds for what is in flight, and for its end after SIGTERM.")
    ] = 30.0,
    weight: Annotated[int, typer.Option(help="Its share of requests relative to others.")] = 1,
    zone: Annotated[str, typer.Option(help="Its rack or availability zone.")] = "",
    registration_key: Annotated[
        Path | None,
        typer.Option(
            envvar="FINGERPOST_REGISTRATION_KEY",
            metavar="FILE",
            help="Sign the registration with the private key in this file.",
        ),
    ] = None,
    log_level: options.LogLevel = "info",
    log_format: options.LogFormat = "text",
    follow_parent: options.FollowParent = False,
    registry_config: RegistryConfig,
) -> None:
    """Start a server that is not Fingerpost's, or find it running, and keep it in the registry.

    It is registered once it answers an image, left out while it is not healthy, and drained on
    SIGTERM.
    """
    from fingerpost.deploy.sidecar.config import SidecarConfig
    from fingerpost.deploy.sidecar.sidecar import Sidecar
    from fingerpost.worker.address import reachable_host

    start_logging(log_level, log_format)
    if host in _LOOPBACK:
        advertise, host = advertise or reachable_host(host, registry), _LOOPBACK[host]
    config = SidecarConfig(
        registry=registry,
        service=service,
        port=port,
        host=host,
        advertise=advertise,
        check=check,
        protocol=protocol,
        meta=_pairs(meta or []),
        image=image,
        asks_image=not no_image,
        front=front,
        load=load,
        load_port=load_port,
        slots=slots,
        lease_s=lease,
        grace_s=grace,
        weight=weight,
        zone=zone,
        registration_key=registration_key,
        registry_config=registry_config,
        command=tuple(command or ()),
    )

    async def run() -> None:
        from fingerpost.basics.shutdown import ShutdownSignals

        # The server does not inherit it: it cannot speak for the sidecar.
        manager = ServiceManager.take(os.environ)
        signals = ShutdownSignals(follow_parent=follow_parent)
        await Sidecar(config, manager).run(signals.wait)

    asyncio.run(run())


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key in pairs:
            raise ConfigurationError(f"--meta {text!r}: use KEY=VALUE, each key once")
        pairs[key] = value
    return pairs
