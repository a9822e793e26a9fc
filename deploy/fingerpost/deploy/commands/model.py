"""`fingerpost model`: look at a model on disk, try it, convert it, and see how fast it is here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from fingerpost.deploy import options
from fingerpost.deploy.console import err, out, print_json
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.worker.backends.base import LoadConfig
    from fingerpost.worker.tools.bench import Measurement

__all__ = ["add_to"]

Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A model's folder or file, or a folder of versions.")
]


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    model = typer.Typer(
        name="model",
        help="Look at a model on disk, try it, convert it, and see how fast it is here.",
        no_args_is_help=True,
    )
    for command in (show, check, export, bench):
        model.command()(command)
    app.add_typer(model)


def show(
    model: Model,
    *,
    name: options.ModelName = None,
    labels: options.Labels = None,
) -> None:
    """Print what a model is understood as, in the words of model.toml.

    What the model's own file says is filled in, so the output can be kept as its model.toml.
    """
    from fingerpost.worker.backends.loading import load_backend
    from fingerpost.worker.models.files import find_model
    from fingerpost.worker.models.manifest import InputSpec, encode_manifest

    files = find_model(model, name=name, labels=labels)
    backend = load_backend(files, _load_config("cpu"))
    found = backend.input
    batch = "any number of images" if found.batch is None else f"{found.batch} images"
    out.print(
        f"# {files.name}@{files.version}: {backend.framework}; takes {batch} of {found.dtype} at "
        f"once; {len(files.labels) or 'no'} labels",
        markup=False,
    )
    shape = InputSpec(encoded=True)
    if not found.encoded:
        shape = InputSpec(
            height=found.height, width=found.width, channels=found.channels, layout=found.layout
        )
    manifest = msgspec.structs.replace(
        files.manifest,
        input=msgspec.structs.replace(shape, name=files.manifest.input.name),
        preprocessing=found.preprocessing,
    )
    out.print(encode_manifest(manifest).rstrip(), markup=False)


def check(
    model: Model,
    *,
    name: options.ModelName = None,
    labels: options.Labels = None,
    device: options.Device = "auto",
    max_batch: Annotated[
        int, typer.Option(min=1, help="The largest batch to try; what a worker would run.")
    ] = 32,
) -> None:
    """Load a model and run it as a worker does before it serves; say OK, or what is wrong."""
    from fingerpost.worker.backends.loading import load_backend
    from fingerpost.worker.engine.inference import warm_up
    from fingerpost.worker.models.files import find_model
    from fingerpost.worker.worker import check_labels

    files = find_model(model, name=name, labels=labels)
    backend = load_backend(files, _load_config(device))
    most = min(max_batch, files.manifest.batch.max or max_batch)
    classes = len(check_labels(files, warm_up(backend, most)))
    out.print(
        f"OK: {files.name}@{files.version}, {backend.framework} on {backend.device}, "
        f"{classes} classes, batches of 1 to {most}",
        markup=False,
    )


def export(
    model: Model,
    *,
    out_: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The new folder, such as models/flowers/4.")
    ],
    format_: Annotated[Literal["onnx"], typer.Option("--format", help="What to make.")] = "onnx",
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Images to compare the answers on; by default made-up ones."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Most images to compare on.")] = 64,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest difference between two scores that is fine.")
    ] = 0.001,
    json: options.Json = False,
    name: options.ModelName = None,
    labels: options.Labels = None,
) -> None:
    """Make an ONNX version of a TensorFlow or Keras model, and compare the answers of both.

    Writes model.onnx, model.toml and labels.txt. If the answers differ by more than the tolerance,
    nothing is written, and the exit status is 1.
    """
    from fingerpost.worker.models.files import find_model
    from fingerpost.worker.tools.export import export_onnx
    from fingerpost.worker.tools.sample_images import image_files, sample_images

    files = find_model(model, name=name, labels=labels)
    pictures = image_files(images, count) if images else sample_images(count)
    found = export_onnx(files, out_, pictures, tolerance=tolerance)
    written = found.difference <= tolerance
    if json:
        print_json({"out": str(out_) if written else None, "comparison": found})
    else:
        out.print(
            f"{'wrote' if written else 'not written:'} {out_}: the same best label for "
            f"{found.agreed} of {found.images} {'images' if images else 'made-up images'}, "
            f"largest difference of a score {found.difference:.2g}",
            markup=False,
        )
    if found.variety < 10 * tolerance:
        err.print(
            "the model answers all of these images nearly alike, so that says little: "
            "name images of its own kind with --images",
            markup=False,
        )
    if not written:
        err.print(f"the tolerance is {tolerance:g}: to have it anyway, raise --tolerance")
        raise typer.Exit(1)


def bench(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="Models' folders or files.")
    ],
    *,
    seconds: Annotated[
        float, typer.Option(help="How long to measure in all; loading comes on top.")
    ] = 60.0,
    batch_sizes: Annotated[
        str, typer.Option(metavar="N,...", help="Batch sizes to measure.")
    ] = "1,2,4,8,16,32",
    threads: Annotated[
        str | None,
        typer.Option(
            metavar="N,...",
            help="Threads to measure with; by default one, half of the cores, and all.",
            show_default=False,
        ),
    ] = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Measure images/s and latency of models on this machine, and say which to use.

    The backends alone, from decoded pixels to scores, in turn, by the median of several rounds.
    """
    from fingerpost.worker.models.files import find_model
    from fingerpost.worker.tools.bench import BenchConfig, best_latency, best_throughput, measure

    placed = _load_config(device)
    config = BenchConfig(
        seconds=seconds,
        batch_sizes=_numbers("--batch-sizes", batch_sizes),
        threads=_numbers("--threads", threads) if threads else (),
        device=placed.device,
    )
    with err.status("measuring") as status:
        found = measure(
            [find_model(model) for model in models],
            config,
            progress=lambda text: status.update(text),
        )
    fastest, quickest = best_throughput(found), best_latency(found)
    if json:
        print_json({"measurements": found, "best_throughput": fastest, "best_latency": quickest})
        return
    _print_table(found)
    out.print(
        f"For throughput: {_named(fastest)}, batches of {fastest.batch}: "
        f"{fastest.images_s:,.0f} images/s. "
        f"For latency: {_named(quickest)}: {quickest.batch} in {quickest.p50_ms:.1f} ms.",
        markup=False,
    )


def _print_table(found: Sequence[Measurement]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("model", "framework", "device"):
        table.add_column(column)
    for column in ("threads", "batch", "images/s", "p50 ms", "p99 ms"):
        table.add_column(column, justify="right")
    for each in found:
        about = each.candidate
        table.add_row(
            about.model,
            about.framework,
            about.device,
            str(about.threads),
            str(each.batch),
            f"{each.images_s:,.1f}",
            f"{each.p50_ms:,.1f}",
            f"{each.p99_ms:,.1f}",
        )
    out.print(table)


def _named(best: Measurement) -> str:
    about = best.candidate
    threads = f", --threads {about.threads}" if about.device == "cpu" else ""
    return f"{about.model} ({about.framework}{threads})"


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        numbers = ()
    if not numbers or numbers[0] < 1:
        raise ConfigurationError(f"{option} {text}: give whole numbers from 1 on, such as 1,2,4")
    return numbers


def _load_config(device: str) -> LoadConfig:
    """For `--device`, which this process and its children are limited to."""
    from fingerpost.worker.backends.devices import find_gpus, place, visible_gpus

    placement = place(device, visible_gpus(find_gpus(), os.environ))
    os.environ.update(placement.environment())
    return placement.load_config()
