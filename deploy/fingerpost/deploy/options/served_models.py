"""Which models `fingerpost worker` serves, by its options."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from fingerpost.deploy.options.model import ModelOptions
    from fingerpost.worker.repository.sources import ModelSource

__all__ = ["many_models", "one_model"]


def one_model(
    path: Path, version: str | None, policy: str, model_options: ModelOptions
) -> ModelSource:
    """The source of one model: a fixed version, or all versions in its folder."""
    from fingerpost.worker.models.files import find_versions
    from fingerpost.worker.models.manifest import MANIFEST
    from fingerpost.worker.repository.sources import FixedModel, ModelFolder
    from fingerpost.worker.repository.versions.policy import VersionPolicy

    if (path / MANIFEST).is_file() or not find_versions(path):
        find = partial(model_options.find, path, version=version, served=True)
        return FixedModel(find(), find)
    if version is not None:
        # Says which versions there are.
        model_options.find(path, version=version, served=True)
        policy = f"specific:{version}"
    return ModelFolder(
        path,
        name=model_options.name,
        policy=VersionPolicy.parse(policy),
        labels=model_options.labels,
        find=partial(
            model_options.finder(),
            overrides=model_options.overrides(),
            follow_symlinks=model_options.follow_symlinks,
        ),
        follow_symlinks=model_options.follow_symlinks,
    )


def many_models(
    folder: Path, only: str | None, policy: str, model_options: ModelOptions
) -> ModelSource:
    """The source of all models in a folder, or of those that are named."""
    from fingerpost.worker.repository.sources import ModelRoot
    from fingerpost.worker.repository.versions.policy import VersionPolicy

    names = [each.strip() for each in only.split(",")] if only else []
    return ModelRoot(
        folder,
        only=names,
        policy=VersionPolicy.parse(policy),
        find=model_options.finder(),
        follow_symlinks=model_options.follow_symlinks,
    )
