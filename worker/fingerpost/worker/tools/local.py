"""Classification of single images in this process, without a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.errors import WrongTask
from fingerpost.worker.backends.base import completed
from fingerpost.worker.engine.inference import warm_up
from fingerpost.worker.engine.outcome import top_labels
from fingerpost.worker.images import ImageConfig, prepare
from fingerpost.worker.models.tasks import Task
from fingerpost.worker.worker import check_labels

if TYPE_CHECKING:
    from fingerpost.worker.backends.base import Backend
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["LocalModel"]


class LocalModel:
    """A model in this process, for one image at a time.

    Args:
        files: the model on disk.
        backend: the loaded model.

    Raises:
        WrongTask: it is not a classifier.
        ConfigurationError: the model cannot run, or has another number of labels than scores.
    """

    def __init__(self, files: ModelFiles, backend: Backend) -> None:
        if files.manifest.task is not Task.CLASSIFICATION:
            raise WrongTask(
                f"model {files.name} answers {files.manifest.task.value}, not classification: "
                "serve it with `fingerpost up` or `fingerpost worker`, and use `fingerpost infer`"
            )
        self._backend = backend
        self._limits = ImageConfig()
        self._labels = check_labels(completed(files, backend), warm_up(backend, max_batch=1))
        self.name = files.name
        self.version = files.version

    def classify(self, data: bytes, *, top: int) -> tuple[tuple[str, float], ...]:
        """Labels with scores, best first; `top` of them, 0 for all. Raises `ImageError`."""
        image = prepare(data, self._backend.input, self._limits)
        return top_labels(self._backend.predict([image])[0], self._labels, top)
