"""Loads a model of any task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.loading import load_backend, load_tensors
from fingerpost.worker.models.tasks import Task
from fingerpost.worker.tasks.backend import OutputReader, TaskBackend
from fingerpost.worker.tasks.detection import DetectionReader
from fingerpost.worker.tasks.inputs import model_inputs
from fingerpost.worker.tasks.segmentation import SegmentationReader
from fingerpost.worker.tasks.tensors import TensorsReader

if TYPE_CHECKING:
    from fingerpost.worker.backends.base import Backend, LoadConfig
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["load_model"]


def load_model(files: ModelFiles, config: LoadConfig) -> Backend:
    """Load a model from disk; blocks for seconds.

    Raises:
        ConfigurationError: see `load_backend`; or its inputs cannot be understood.
    """
    reader = _reader(files)
    if reader is None:
        return load_backend(files, config)
    model = load_tensors(files, config)
    try:
        inputs = model_inputs(files, model.inputs)
        if reader.task is not Task.TENSORS and not inputs.images:
            raise ConfigurationError(
                f"model {files.name} takes no image, but task is {reader.task.value!r}: name the "
                "input that is one by input.name in model.toml"
            )
        return TaskBackend(model, inputs, reader)
    except BaseException:
        model.close()
        raise


def _reader(files: ModelFiles) -> OutputReader | None:
    manifest = files.manifest
    if manifest.detection is not None:
        return DetectionReader(manifest.detection, files.labels)
    if manifest.task is Task.SEGMENTATION:
        return SegmentationReader(manifest.segmentation, manifest.output.name, files.labels)
    return TensorsReader() if manifest.task is Task.TENSORS else None
