"""The options that describe a model on disk, the same for every subcommand that loads one.

What a message about a model tells people to write, they can so write on the very command.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from fingerpost.deploy.options.group import Option, takes_group

if TYPE_CHECKING:
    from fingerpost.worker.models.files import ManifestOverrides, ModelFiles

__all__ = ["ModelOptions", "takes_model_options"]

_PANEL: Final = "The model on disk"


def _option(text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=_PANEL, show_default=False, **more)


_OPTIONS: Final[tuple[Option, ...]] = (
    (
        "name",
        Annotated[
            str | None,
            _option("The model's name; by default the name of its folder.", metavar="NAME"),
        ],
        None,
    ),
    (
        "labels",
        Annotated[
            Path | None,
            _option("Labels, one a line; by default labels.txt beside the model.", metavar="FILE"),
        ],
        None,
    ),
    (
        "input_layer",
        Annotated[
            str | None,
            _option("Input tensor, such as DecodeJpeg/contents:0 of a frozen graph.",
                    metavar="TENSOR"),
        ],
        None,
    ),
    (
        "output_layer",
        Annotated[
            str | None,
            _option("Output tensor, such as final_result:0 of a frozen graph.", metavar="TENSOR"),
        ],
        None,
    ),
    (
        "input_mean",
        Annotated[
            float | None,
            _option("The input is (pixel - mean) / std; by default as in model.toml."),
        ],
        None,
    ),
    ("input_std", Annotated[float | None, _option("See --input-mean.")], None),
    (
        "image_size",
        Annotated[
            int | None,
            _option("Pixels on each side, for a model that takes any size.", min=1),
        ],
        None,
    ),
    (
        "input_layout",
        Annotated[
            Literal["NHWC", "NCHW"] | None,
            _option("Channels last or first, where the model's file does not show it."),
        ],
        None,
    ),
    (
        "follow_symlinks",
        Annotated[
            bool,
            _option("Allow symlinks in a model's folder that lead out of it, as in Hugging Face's "
                    "cache.", "--follow-symlinks"),
        ],
        False,
    ),
    (
        "require_signature",
        Annotated[
            Path | None,
            _option("Load only what a key in this file (JWKS) has signed by `model sign`.",
                    "--require-signature", metavar="FILE"),
        ],
        None,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """What the command line says about a model on disk; None where an option is not given.

    Attributes:
        name, labels, follow_symlinks: see `find_model`.
        require_signature: the keys of which one must have signed the model: `find_signed_model`.
        all others: see `ManifestOverrides`.
    """

    name: str | None = None
    labels: Path | None = None
    input_layer: str | None = None
    output_layer: str | None = None
    input_mean: float | None = None
    input_std: float | None = None
    image_size: int | None = None
    input_layout: str | None = None
    follow_symlinks: bool = False
    require_signature: Path | None = None

    def find(self, path: Path, *, version: str | None = None, served: bool = False) -> ModelFiles:
        """Find the model at `path` with these options; see `find_model`."""
        return self.finder()(
            path,
            name=self.name,
            version=version,
            labels=self.labels,
            overrides=self.overrides(),
            follow_symlinks=self.follow_symlinks,
            served=served,
        )

    def finder(self) -> Callable[..., ModelFiles]:
        """`find_model`; where a signature is required, one that verifies it."""
        from fingerpost.worker.models.files import find_model

        keys = self.require_signature
        if keys is None:
            return find_model

        def find(path: Path, **options: Any) -> ModelFiles:
            from fingerpost.security.signing.trusted_keys import TrustedKeysFile
            from fingerpost.worker.models.signature import find_signed_model

            return find_signed_model(path, keys=TrustedKeysFile(keys).current(), **options)

        return find

    def overrides(self) -> ManifestOverrides:
        """The options that take precedence over `model.toml`."""
        from fingerpost.worker.models.files import ManifestOverrides

        return ManifestOverrides(
            input_layer=self.input_layer,
            output_layer=self.output_layer,
            input_mean=self.input_mean,
            input_std=self.input_std,
            image_size=self.image_size,
            layout=self.input_layout,
        )

    def of_one_model(self) -> dict[str, object]:
        """The given options that describe a single model, such as `{"--image-size": 224}`."""
        values = {
            f"--{each.name.replace('_', '-')}": getattr(self, each.name)
            for each in fields(self)
            if each.name not in ("follow_symlinks", "require_signature")
        }
        return {option: value for option, value in values.items() if value is not None}

    def arguments(self) -> tuple[str, ...]:
        """These options as arguments of another command, such as `--image-size 224`."""
        given = [f"{option}={value}" for option, value in self.of_one_model().items()]
        if self.require_signature is not None:
            given.append(f"--require-signature={self.require_signature.absolute()}")
        return (*given, *(["--follow-symlinks"] if self.follow_symlinks else []))


def takes_model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a subcommand these options; it gets `ModelOptions` as its argument `model_options`."""
    return takes_group(command, "model_options", _OPTIONS, ModelOptions)
