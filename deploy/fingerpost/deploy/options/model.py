"""Options that describe a model on disk, for `worker` and for `classify` without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "FollowSymlinks",
    "ImageSize",
    "InputLayer",
    "InputMean",
    "InputStd",
    "Labels",
    "ModelName",
    "OutputLayer",
]

ModelName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The model's name; by default the name of its folder."),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Labels, one a line; by default labels.txt beside the model."
    ),
]
InputLayer = Annotated[
    str | None,
    typer.Option(
        metavar="TENSOR", help="Input tensor, such as DecodeJpeg/contents:0 of a frozen graph."
    ),
]
OutputLayer = Annotated[
    str | None,
    typer.Option(metavar="TENSOR", help="Output tensor, such as final_result:0 of a frozen graph."),
]
InputMean = Annotated[
    float | None,
    typer.Option(help="The input is (pixel - mean) / std; by default as in model.toml."),
]
InputStd = Annotated[float | None, typer.Option(help="See --input-mean.")]
ImageSize = Annotated[
    int | None,
    typer.Option(min=1, help="Pixels on each side, for a model that takes any size."),
]
FollowSymlinks = Annotated[
    bool,
    typer.Option(
        "--follow-symlinks",
        help="Allow symlinks in a model's folder that lead out of it, as in Hugging Face's cache.",
    ),
]
