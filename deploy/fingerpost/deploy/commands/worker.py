"""`fingerpost worker`: serve a model."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import typer

from fingerpost.deploy.commands import options
from fingerpost.deploy.commands.registry_options import takes_registry_options
from fingerpost.deploy.console import start_logging
from fingerpost.registry.options import RegistryOptions

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(takes_registry_options(worker))


def worker(
    *,
    model: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="SavedModel folder, .keras file, frozen graph (.pb), or folder of versions.",
        ),
    ],
    registry: options.RegistryUrl = options.DEFAULT_REGISTRY,
    name: options.ModelName = None,
    version: Annotated[
        str | None, typer.Option(metavar="N", help="Version to serve; by default the highest.")
    ] = None,
    labels: options.Labels = None,
    input_layer: options.InputLayer = None,
    output_layer: options.OutputLayer = None,
    input_mean: options.InputMean = 0.0,
    input_std: options.InputStd = 255.0,
    image_size: options.ImageSize = None,
    host: options.Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.")] = 0,
    advertise: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="Address given to clients, if not the one listened on."),
    ] = None,
    weight: Annotated[int, typer.Option(help="Share of requests, relative to other workers.")] = 1,
    zone: Annotated[str, typer.Option(help="Where it stands: rack or availability zone.")] = "",
    check: Annotated[
        Literal["http", "ttl"],
        typer.Option(help="How Consul watches over it; ttl where the agent cannot reach it."),
    ] = "http",
    wan_address: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="Where other datacenters reach it, if elsewhere."),
    ] = None,
    max_batch: Annotated[int, typer.Option(help="Most images in one run of the model.")] = 32,
    max_queue: Annotated[
        int, typer.Option(help="Most images waiting; beyond it the answer is 429.")
    ] = 512,
    max_bytes: Annotated[
        int, typer.Option(help="Largest image in bytes; beyond it the answer is 413.")
    ] = 20_000_000,
    max_megapixels: Annotated[
        float, typer.Option(help="Largest image in megapixels; beyond it the answer is 413.")
    ] = 64.0,
    threads: Annotated[
        int, typer.Option(min=0, help="Threads for the model; 0 is one a core.")
    ] = 0,
    lease: Annotated[
        float, typer.Option(help="Seconds to go on accepting after the order to leave.")
    ] = 2.0,
    log_level: options.LogLevel = "info",
    follow_parent: options.FollowParent = False,
    access: RegistryOptions,
) -> None:
    """Load a model, warm it up, register it, and serve it until SIGTERM."""
    from fingerpost.registry.consul_checks import CheckConfig
    from fingerpost.worker.backends.tensorflow import TensorFlowOptions, load_tensorflow
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.images import ImageLimits
    from fingerpost.worker.modelfiles import find_model

    start_logging(log_level)
    config = WorkerConfig(
        registry=registry,
        access=dataclasses.replace(access, check=CheckConfig(mode=check), wan_address=wan_address),
        host=host,
        port=port,
        advertise=advertise,
        weight=weight,
        zone=zone,
        max_batch=max_batch,
        max_queue=max_queue,
        limits=ImageLimits(max_bytes=max_bytes, max_pixels=int(max_megapixels * 1e6)),
        lease_s=lease,
    )
    layers = TensorFlowOptions(
        input_layer=input_layer,
        output_layer=output_layer,
        input_mean=input_mean,
        input_std=input_std,
        image_size=image_size,
        threads=threads,
    )
    files = find_model(model, labels=labels, name=name, version=version)

    async def run() -> None:
        from fingerpost.deploy.lifetime import Lifetime
        from fingerpost.worker.worker import Worker

        serving = Worker(files, lambda found: load_tensorflow(found, layers), config)
        async with serving:
            # Before this line a signal ends the process at once: nobody knows of it yet.
            lifetime = Lifetime(follow_parent=follow_parent)
            await serving.register()
            await lifetime.wait()
            await serving.leave()

    asyncio.run(run())
