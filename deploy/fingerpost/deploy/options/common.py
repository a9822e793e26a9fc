"""Options that several subcommands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

__all__ = [
    "DEFAULT_REGISTRY",
    "FollowParent",
    "Host",
    "ImageSize",
    "InputLayer",
    "InputMean",
    "InputStd",
    "Json",
    "Labels",
    "LogLevel",
    "ModelName",
    "OutputLayer",
    "RegistryUrl",
    "Relay",
]

DEFAULT_REGISTRY: Final = "http://127.0.0.1:12481"

RegistryUrl = Annotated[
    str,
    typer.Option(
        "--registry",
        envvar="FINGERPOST_REGISTRY",
        metavar="URL",
        help="Consul's agent, as consul://HOST:8500, or `fingerpost registry`.",
    ),
]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 serves other machines too.")]
Relay = Annotated[
    bool,
    typer.Option(
        "--relay",
        help="Send images through the proxies: for where the workers cannot be reached.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
LogLevel = Annotated[
    str,
    typer.Option(
        envvar="FINGERPOST_LOG_LEVEL", metavar="LEVEL", help="debug, info, warning or error."
    ),
]
FollowParent = Annotated[
    bool,
    typer.Option("--follow-parent", hidden=True, help="Leave when standard input ends."),
]

# A model on disk, for `worker` and for `classify` without a cluster.
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
