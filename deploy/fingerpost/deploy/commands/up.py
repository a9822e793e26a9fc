"""`fingerpost up`: run a whole cluster on this machine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from fingerpost.deploy import options
from fingerpost.deploy.console import err, out
from fingerpost.deploy.options.model import ModelOptions, takes_model_options
from fingerpost.deploy.options.registry import takes_registry_options
from fingerpost.deploy.options.tls import takes_server_tls_options
from fingerpost.registry.config import RegistryConfig
from fingerpost.security.tls.config import TlsConfig

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    command = takes_server_tls_options(takes_model_options(up), asks_workers=True)
    app.command()(takes_registry_options(command))


def up(
    model: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="Model to serve. May be repeated."),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Serve every model in this folder, each worker all of them."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Worker processes for each model.")] = 3,
    port: Annotated[int, typer.Option(help="The proxy's port.")] = 12480,
    registry_port: Annotated[int, typer.Option(help="The embedded registry's port.")] = 12481,
    registry: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Use this registry instead of the embedded one."),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=0, help="Threads for each worker's model; 0 is one for each core.")
    ] = 0,
    callers: options.CallersFile = None,
    audit_log: options.AuditLogFile = None,
    lease_key: Annotated[
        Path | None,
        typer.Option(
            envvar="FINGERPOST_LEASE_KEY",
            metavar="FILE",
            help="The proxy signs leases with this private key, and workers require them.",
            show_default=False,
        ),
    ] = None,
    lease_bind: Annotated[
        bool,
        typer.Option("--lease-bind", help="Bind the lease of a client to its certificate."),
    ] = False,
    registration_key: Annotated[
        Path | None,
        typer.Option(
            envvar="FINGERPOST_REGISTRATION_KEY",
            metavar="FILE",
            help="The private key (Ed25519) with which workers sign their registration.",
            show_default=False,
        ),
    ] = None,
    log_level: options.LogLevel = "info",
    log_format: options.LogFormat = "text",
    *,
    model_options: ModelOptions,
    registry_config: RegistryConfig,
    tls: TlsConfig | None,
) -> None:
    """Run a registry, a proxy and workers on this machine, restart what dies, stop on Ctrl-C.

    The options of security are passed on to all processes; they share one certificate.
    """
    from fingerpost.basics.shutdown import ShutdownSignals
    from fingerpost.deploy.local.cluster import LocalCluster, LocalClusterConfig
    from fingerpost.deploy.local.hints import hints
    from fingerpost.deploy.local.security import ClusterSecurity
    from fingerpost.errors import ConfigurationError
    from fingerpost.worker.repository.sources import ModelRoot
    from fingerpost.worker.repository.versions.policy import VersionPolicy

    if bool(model) == bool(models):
        raise typer.BadParameter("give either --model PATH, once or more, or --models FOLDER")
    of_one = model_options.of_one_model()
    if of_one and (models or len(model or ()) > 1):
        raise typer.BadParameter(
            f"{', '.join(of_one)} cannot be used with several models: write it into the model.toml "
            "of each, or leave out all but one --model"
        )
    broken_models: dict[str, str] = {}
    if models is not None:
        found = ModelRoot(
            models, policy=VersionPolicy(latest=1), follow_symlinks=model_options.follow_symlinks
        ).scan()
        names = [name for name, each in found.items() if each.versions and not each.error]
        broken_models = {name: each.error for name, each in found.items() if each.error}
        if not names:
            why = "; ".join(f"{name}: {error}" for name, error in broken_models.items())
            raise ConfigurationError(
                why
                or f"{models} has no model with a version: give a folder with NAME/VERSION/ in it"
            )
    else:
        names = [model_options.find(path, served=True).name for path in model or ()]
    security = ClusterSecurity(
        embedded=registry is None,
        tls=tls,
        registry_config=registry_config,
        callers=callers,
        audit_log=audit_log,
        lease_key=lease_key,
        lease_bind=lease_bind,
        registration_key=registration_key,
    )
    config = LocalClusterConfig(
        models=tuple(model or ()),
        repository=models,
        services=tuple(names),
        workers=workers,
        proxy_port=port,
        registry_port=registry_port,
        registry=registry,
        registry_config=security.access,
        tls=tls,
        registry_options=tuple(security.registry_options),
        proxy_options=tuple(security.proxy_options),
        worker_options=(
            *("--threads", str(threads), "--log-level", log_level),
            *model_options.arguments(),
            *security.worker_options,
        ),
    )

    os.environ["FINGERPOST_LOG_FORMAT"] = log_format  # for every process
    if registry_config.token is not None:
        os.environ["FINGERPOST_REGISTRY_TOKEN"] = registry_config.token

    def print_line(name: str, line: str) -> None:
        err.print(_json_line(name, line) if log_format == "json" else f"{name:>10} | {line}")

    async def run() -> None:
        signals = ShutdownSignals()
        async with LocalCluster(config, print_line) as cluster:
            await signals.cancel_on_signal(_announce(cluster))
            err.print("stopping...")

    async def _announce(cluster: LocalCluster) -> None:
        broken = broken_models | await cluster.wait_ready(timeout_s=120.0)
        for name, why in broken.items():
            err.print(f"{name} is not served: {why}")
        served = [name for name in names if name not in broken]
        out.print("The cluster is up. Try:")
        for line in hints(security, served[0], cluster.proxy_url, only=len(served) == 1):
            out.print(f"  {line}")
        out.print("Ctrl-C stops it.")
        await cluster.run()

    asyncio.run(run())


def _json_line(name: str, line: str) -> str:
    """A line of a process's log with the process's name; one that is not JSON is its message."""
    try:
        fields = msgspec.json.decode(line, type=dict[str, str])
    except msgspec.MsgspecError:
        fields = {"message": line}
    return msgspec.json.encode({"process": name} | fields).decode()
