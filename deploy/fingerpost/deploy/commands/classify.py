"""`fingerpost classify`: predict the labels of images, with a cluster or without."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fingerpost.deploy import options
from fingerpost.deploy.console import err, out, print_json
from fingerpost.deploy.file_names import name_to_json, stdin_names
from fingerpost.deploy.model_argument import is_path, service_of
from fingerpost.deploy.options.cluster import ClusterTarget, takes_cluster_options
from fingerpost.deploy.options.model import ModelOptions, takes_model_options
from fingerpost.deploy.setting_names import with_options
from fingerpost.deploy.whole_run import OF_ALL_IMAGES, check_model
from fingerpost.errors import (
    ConfigurationError,
    FingerpostError,
    InvalidRequest,
    RegistryUnreachable,
)

if TYPE_CHECKING:
    from fingerpost.client import Client

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(takes_cluster_options(takes_model_options(classify)))


def classify(
    *,
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Image files, or - for paths on standard input."),
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="DIR|NAME",
            help="Folder or file of a model, to be loaded here; or the name of a cluster's model.",
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="How many labels to print.")] = 3,
    json: options.Json = False,
    relay: options.Relay = False,
    priority: options.Priority = None,
    deadline: options.Deadline = 30.0,
    wait_for_ready: options.WaitForReady = 5.0,
    model_options: ModelOptions,
    cluster: ClusterTarget,
) -> None:
    """Classify image files.

    Without --proxy, --registry or --consul, a model's folder or file is loaded in this process, and
    the name of a model is asked for at the proxy on this machine. With `-`, each line of standard
    input is classified as it arrives. The exit status is 1 if an image failed.
    """
    if relay and not cluster.named:
        raise ConfigurationError("--relay sends images through proxies: name them with --proxy URL")
    show = _print_json if json else _print_line
    on_disk = is_path(model)
    if cluster.named or not on_disk:
        from fingerpost.client import ClientConfig

        config = ClientConfig(timeout_s=deadline, wait_for_ready_s=wait_for_ready)
        client = cluster.client(config, relay=relay, priority=priority)
        if on_disk:
            model = service_of(Path(model))
        try:
            failed = asyncio.run(_with_cluster(client, images, model, top, show))
        except RegistryUnreachable as error:
            if cluster.named:
                raise
            raise ConfigurationError(
                f"there is no file or folder {model!r} to load, and no cluster on this machine to "
                f"ask for a model of that name: give --model DIR, or --proxy URL ({error})"
            ) from error
    else:
        if priority is not None:
            raise ConfigurationError("--class is for a cluster: a model loaded here has no queue")
        from fingerpost.worker.backends.base import LoadConfig
        from fingerpost.worker.backends.loading import load_backend
        from fingerpost.worker.tools.local import LocalModel

        files = model_options.find(Path(model))
        local = LocalModel(files, load_backend(files, LoadConfig()))
        failed = 0
        for image in _names(images):
            try:
                predictions = local.classify(_read(image), top=top)
            except FingerpostError as error:
                failed += 1
                show(image, {"error": error})
            else:
                show(
                    image,
                    {"model": local.name, "version": local.version, "predictions": predictions},
                )
    if failed:
        raise typer.Exit(1)


async def _with_cluster(
    client: Client,
    images: list[str],
    model: str,
    top: int,
    show: Callable[[str, dict[str, Any]], None],
) -> int:
    failed = 0
    # Standard input may be interactive: each line is answered before the next is read.
    concurrency = 1 if images == ["-"] else 16
    async with client:
        await check_model(client, model)
        results = client.stream(
            _names_off_loop(images), model=model, top=top, ordered=True, concurrency=concurrency
        )
        async with aclosing(results):
            async for result in results:
                if isinstance(result.error, OF_ALL_IMAGES):
                    raise result.error
                if result.error is not None:
                    failed += 1
                    show(result.key, {"error": result.error})
                    continue
                show(
                    result.key,
                    {
                        "model": result.model,
                        "version": result.version,
                        "worker": result.address,
                        "predictions": result.predictions,
                    },
                )
    return failed


def _names(images: list[str]) -> Iterator[str]:
    if images != ["-"]:
        yield from images
        return
    yield from stdin_names()


async def _names_off_loop(images: list[str]) -> AsyncIterator[str]:
    names = _names(images)
    while (name := await asyncio.to_thread(next, names, None)) is not None:
        yield name


def _read(image: str) -> bytes:
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"cannot be read: {error.strerror}") from error


def _print_json(image: str, answer: dict[str, Any]) -> None:
    error = answer.get("error")
    if isinstance(error, FingerpostError):
        answer = {"error": {"code": error.code, "message": with_options(error)}}
    print_json({**name_to_json(image, "image"), **answer})


def _print_line(image: str, answer: dict[str, Any]) -> None:
    error = answer.get("error")
    if error is not None:
        err.print(f"{image}: {with_options(error)}")
        return
    labels = "  ".join(f"{label} {score:.1%}" for label, score in answer["predictions"])
    out.print(f"{image}: {labels}")
    sys.stdout.flush()
