"""`fingerpost model bench`: the speed of models and runtimes on this machine, and who agrees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.deploy import options
from fingerpost.deploy.console import err, out, print_json
from fingerpost.deploy.options.devices import load_config
from fingerpost.deploy.options.model import ModelOptions
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.worker.tools.bench import Measurement

__all__ = ["bench"]


def bench(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="Models' folders or files.")
    ],
    *,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Images on which the models are compared; by default generated ones.",
        ),
    ] = None,
    accuracy: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Name the fastest of those that agree with the first model on this share of the "
            "images; 0.99 is 99 %.",
        ),
    ] = 0.0,
    count: Annotated[
        int, typer.Option(min=1, max=100_000, help="Most images to compare the models on.")
    ] = 200,
    seconds: Annotated[
        float, typer.Option(help="How long to measure in all, without loading.")
    ] = 60.0,
    batch_sizes: Annotated[
        str, typer.Option(metavar="N,...", help="Batch sizes to measure.")
    ] = "1,2,4,8,16,32",
    threads: Annotated[
        str | None,
        typer.Option(
            metavar="N,...",
            help="Numbers of threads; by default one, half of the cores, and all.",
            show_default=False,
        ),
    ] = None,
    model_options: ModelOptions,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Measure images/s and latency of models on this machine, and name the best.

    Give versions of one model in several formats. Each is run by every runtime that reads its file
    and is installed here. Only the backends are measured, from decoded pixels to scores: all in
    turn, in several rounds, of which the median counts.
    """
    from fingerpost.worker.tools.bench import (
        BenchConfig,
        accurate,
        best_latency,
        best_throughput,
        measure,
    )
    from fingerpost.worker.tools.sample_images import image_files

    placed = load_config(device)
    config = BenchConfig(
        seconds=seconds,
        batch_sizes=_numbers("--batch-sizes", batch_sizes),
        threads=_numbers("--threads", threads) if threads else (),
        device=placed.device,
        images=tuple(image_files(images, count)) if images else (),
    )
    with err.status("measuring") as status:
        found = measure(
            [model_options.find(model) for model in models],
            config,
            progress=lambda text: status.update(text),
        )
    fitting = accurate(found, accuracy)
    if not fitting:
        raise ConfigurationError(
            f"no model could run that agrees with the first on {accuracy:.2%} of the images: "
            "lower --accuracy, or give other --batch-sizes"
        )
    fastest, quickest = best_throughput(fitting), best_latency(fitting)
    if json:
        print_json(
            {
                "accuracy": accuracy,
                "measurements": found,
                "best_throughput": fastest,
                "best_latency": quickest,
            }
        )
        return
    _print_table(found)
    if accuracy:
        out.print(f"Of those that agree with the first on {accuracy:.2%} of the images or more:")
    out.print(
        f"For throughput: {_named(fastest)}, batches of {fastest.batch}: "
        f"{fastest.images_s:,.0f} images/s. "
        f"For latency: {_named(quickest)}: {quickest.batch} in {quickest.p50_ms:.1f} ms.",
    )


def _print_table(found: Sequence[Measurement]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("model", "framework", "device"):
        table.add_column(column)
    for column in ("agreement", "threads", "batch", "images/s", "p50 ms", "p99 ms", "CPU ms"):
        table.add_column(column, justify="right")
    for each in found:
        about = each.candidate
        table.add_row(
            about.model,
            about.framework,
            about.device,
            f"{about.agreement:.2%}",
            str(about.threads),
            str(each.batch),
            f"{each.images_s:,.1f}",
            f"{each.p50_ms:,.1f}",
            f"{each.p99_ms:,.1f}",
            f"{each.cpu_ms:,.2f}",
        )
    out.print(table)


def _named(best: Measurement) -> str:
    about = best.candidate
    setting = f", with {about.setting} in model.toml" if about.setting else ""
    threads = f", --threads {about.threads}" if about.device == "cpu" else ""
    return f"{about.model} ({about.framework}{setting}{threads})"


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        numbers = ()
    if not numbers or numbers[0] < 1:
        raise ConfigurationError(f"{option} {text}: give whole numbers of 1 or more, such as 1,2,4")
    return numbers
