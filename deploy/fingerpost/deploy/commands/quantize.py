"""`fingerpost model quantize`: an INT8 version of a model, compared with the original."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fingerpost.deploy import options
from fingerpost.deploy.console import err, out, print_json
from fingerpost.deploy.options.model import ModelOptions

if TYPE_CHECKING:
    from fingerpost.worker.tools.quantize import Quantized

__all__ = ["quantize"]


def quantize(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A model's folder or file, or a folder of versions."),
    ],
    *,
    images: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Images of the model's kind. Folders in it that are named for labels say what "
            "is right.",
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="DIR",
            help="The new folder, such as models/flowers/4; by default the next version beside "
            "the original.",
            show_default=False,
        ),
    ] = None,
    max_loss: Annotated[
        float,
        typer.Option(min=0, max=1, help="Largest accepted loss of accuracy; 0.01 is 1 %."),
    ] = 0.01,
    method: Annotated[
        Literal["minmax", "entropy", "percentile"],
        typer.Option(help="How the range of a tensor follows from its values on the images."),
    ] = "minmax",
    calibration_images: Annotated[
        int, typer.Option(min=1, max=100_000, help="Most images to measure ranges on.")
    ] = 128,
    count: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Most images to compare the answers for.")
    ] = 1000,
    json: options.Json = False,
    model_options: ModelOptions,
) -> None:
    """Quantize an ONNX, TensorFlow or Keras classifier to 8-bit integers, for the CPU.

    Writes a new version: model.onnx, model.toml, labels.txt and report.json. The answers of both
    versions are compared; if the accuracy fell by more than --max-loss, nothing is written, and the
    exit status is 1.
    """
    from fingerpost.worker.tools.int8 import Calibration
    from fingerpost.worker.tools.quantize import QuantizeConfig
    from fingerpost.worker.tools.quantize import quantize as run

    config = QuantizeConfig(
        method=Calibration(method),
        calibration_images=calibration_images,
        compared_images=count,
        max_loss=max_loss,
    )
    files = model_options.find(model)
    with err.status("quantizing"):
        found = run(files, images, config, out=to)
    if json:
        print_json({"out": str(found.folder), **found.facts()})
        return
    out.print(_described(found))


def _described(found: Quantized) -> str:
    text = (
        f"wrote {found.folder}: {found.model_bytes / 1e6:,.1f} MB instead of "
        f"{found.model_bytes_of_original / 1e6:,.1f}; the same best label for {found.agreed} of "
        f"{found.images} images"
    )
    if found.accuracy is None or found.accuracy_of_original is None:
        return f"{text} (no folder of the images has the name of a label)"
    return (
        f"{text}; accuracy {found.accuracy:.2%} instead of {found.accuracy_of_original:.2%} on "
        f"{found.labelled} images"
    )
