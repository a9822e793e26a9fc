"""Chooses the input and the output of a model by their names."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["only_input", "output_name"]


def only_input(files: ModelFiles, names: Collection[str]) -> str:
    """The name of the only input, which `input.name` may give too.

    Raises:
        ConfigurationError: the model has several, or its input has another name.
    """
    if len(names) != 1:
        raise ConfigurationError(
            f"{files.path} has {len(names)} inputs ({', '.join(names)}): only a model with one "
            "input, for images, is a classifier; any inputs and outputs are served by task = "
            '"tensors" in model.toml. Or save a model that computes the others from the image'
        )
    return _chosen(files, "input", names)


def output_name(files: ModelFiles, names: Collection[str]) -> str:
    """The output that `output.name` gives, or the only one.

    Raises:
        ConfigurationError: there are several and none is named, or not one of that name.
    """
    return _chosen(files, "output", names)


def _chosen(files: ModelFiles, end: Literal["input", "output"], names: Collection[str]) -> str:
    wanted = getattr(files.manifest, end).name
    if wanted is None and len(names) == 1:
        return next(iter(names))
    if wanted in names:
        return str(wanted)
    known = ", ".join(names)
    if wanted is None:
        raise ConfigurationError(
            f"{files.path} has {len(names)} {end}s ({known}): name one with {end}.name in "
            f'model.toml or --{end}-layer; all are served by task = "tensors" in model.toml'
        )
    raise ConfigurationError(f"{files.path} has no {end} {wanted!r} ({end}.name); it has {known}")
