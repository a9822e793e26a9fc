"""Options that describe a model on disk, for `worker` and for `classify` without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
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
    typer.Option(metavar="NAME", help="The model's name; by default its folder's."),
]
Labels = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="One label a line; by default labels.txt beside the model."),
]
InputLayer = Annotated[
    str | None,
    typer.Option(
        metavar="TENSOR", help="The model's input, such as DecodeJpeg/contents:0 of a frozen graph."
    ),
]
OutputLayer = Annotated[
    str | None,
    typer.Option(
        metavar="TENSOR", help="The model's output, such as final_result:0 of a frozen graph."
    ),
]
InputMean = Annotated[
    float | None,
    typer.Option(help="The model gets (pixel - mean) / std; by default as model.toml says."),
]
InputStd = Annotated[float | None, typer.Option(help="See --input-mean.")]
ImageSize = Annotated[
    int | None,
    typer.Option(min=1, help="Pixels a side, for a model that leaves its input's size open."),
]
