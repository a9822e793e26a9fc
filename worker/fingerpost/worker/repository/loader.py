"""Makes a warm engine from a version's files.

A full garbage collection stops every thread while it visits each object. TensorFlow alone has
260,000, and every load makes enough garbage for one: 0.15 s, measured on 2 cores, in which no
request is answered. So a framework is imported before its first model is loaded, and all objects
that exist by then are left out of collections (`gc.freeze`). During a load there are no
collections; one follows the load, of the objects that it made, and one follows an unload. The
longest pause is 40 ms then, where it was 130. Rejected: freezing after the load, because a model
that is unloaded would never be freed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import completed
from fingerpost.worker.backends.needed import NEEDED
from fingerpost.worker.engine.engine import Engine
from fingerpost.worker.models.formats import is_keras
from fingerpost.worker.models.manifest import Framework
from fingerpost.worker.models.tasks import Task
from fingerpost.worker.tasks.backend import TaskBackend
from fingerpost.worker.tasks.engine import TaskEngine
from fingerpost.worker.tasks.readers import row_reader

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from fingerpost.worker.backends.base import Backend
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.engine.outcome import Labels
    from fingerpost.worker.models.files import ModelFiles
    from fingerpost.worker.tasks.readers import RowReader
    from fingerpost.worker.telemetry.metrics import WorkerMetrics

__all__ = ["EngineLoader", "LoadedModel", "check_labels"]

logger = logging.getLogger(__name__)

_SWITCH_S: Final = 0.0005


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A version that is loaded and warm.

    Attributes:
        engine: runs it.
        labels: the names of the classes, in the order of the scores.
        own_labels: those that the model itself has, for when its files have none.
        meta: facts about it for the registration.
        task, reader: see `ServedVersion`.
    """

    engine: Engine
    labels: Labels
    own_labels: tuple[str, ...] = ()
    meta: dict[str, str] = field(default_factory=dict)
    task: Task = Task.CLASSIFICATION
    reader: RowReader | None = None


class EngineLoader:
    """Makes a warm engine from a version's files; a callable that blocks.

    Args:
        load: makes the backend.
        config: the worker's settings.
        decoders: the threads that all engines share for decoding.
        metrics: the worker's metrics.
        frameworks: whether the models run in this process, so that it imports what they need.
    """

    def __init__(
        self,
        load: Callable[[ModelFiles], Backend],
        config: WorkerConfig,
        decoders: ThreadPoolExecutor,
        metrics: WorkerMetrics,
        *,
        frameworks: bool = True,
    ) -> None:
        self._load = load
        self._config = config
        self._decoders = decoders
        self._metrics = metrics
        self._frameworks = frameworks
        self._first = True

    def __call__(self, files: ModelFiles) -> LoadedModel:
        """Load a version and warm it up.

        Raises:
            ConfigurationError: it cannot be loaded or run, or has another number of labels than
                scores.
        """
        if self._first:
            self._first = False
            if self._frameworks:
                _import_framework(files)
            gc.collect()
            gc.freeze()
        try:
            with _short_switch_interval():
                return self._loaded(files)
        except SystemExit as error:  # of a model's own code; it would end the worker
            raise ConfigurationError(
                f"model {files.name}: its code exits the process while it is loaded"
            ) from error

    def _loaded(self, files: ModelFiles) -> LoadedModel:
        backend = self._load(files)
        _warn_of_teachable_machine(files)
        own = completed(replace(files, labels=()), backend).labels
        files = completed(files, backend)
        engine = self._engine(backend, files)
        try:
            classes = engine.warm_up()
            labels = check_labels(files, classes)
        except BaseException:
            asyncio.run(engine.aclose())
            raise
        wanted, task = backend.input, files.manifest.task
        size = f"{wanted.height}x{wanted.width}x{wanted.channels}"
        meta = {
            "framework": backend.framework,
            **self._config.models.placement.meta(backend.device),
            "image": "any" if wanted.encoded else size,
            **({} if task is Task.CLASSIFICATION else {"task": task.value}),
            **({"digest": files.digest} if files.digest else {}),
        }
        if files.copy is not None:  # it is removed with the engine
            weakref.finalize(engine, files.copy.remove)
        return LoadedModel(
            engine=engine,
            labels=labels,
            own_labels=own,
            meta=meta,
            task=task,
            reader=row_reader(task, files.manifest.output, classes),
        )

    def _engine(self, backend: Backend, files: ModelFiles) -> Engine:
        config = self._config
        make = TaskEngine if isinstance(backend, TaskBackend) else Engine
        return make(
            backend,
            images=config.images,
            batching=config.batching.override(files.manifest.batch),
            decoders=self._decoders,
            decode_threads=config.models.decode_threads,
            metrics=self._metrics,
            model=files.name,
        )


@contextlib.contextmanager
def _short_switch_interval() -> Iterator[None]:
    """Let other threads wait for Python's lock (the GIL) for 0.5 ms at most, instead of 5.

    A request needs the lock at each of its steps. While TensorFlow builds a graph, the 99th
    percentile of the event loop's delay is 9 ms with this and 16 without. The load takes a tenth
    longer. Garbage collections are off meanwhile.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()
        sys.setswitchinterval(before)


def _import_framework(files: ModelFiles) -> None:
    """Import what the backend will import; if it is missing, the backend raises the error."""
    framework = files.manifest.framework
    with contextlib.suppress(ImportError, ConfigurationError):
        if framework is Framework.TENSORFLOW:
            from fingerpost.worker.backends.tensorflow.load import import_tensorflow

            import_tensorflow(keras=is_keras(files.path))
        else:
            importlib.import_module(NEEDED[framework].module)


def _warn_of_teachable_machine(files: ModelFiles) -> None:
    """Say how its models want their pixels, which no file of theirs says; labels tell its models.

    `model check` finds this out for every model, by running it some forty times: too long a start.
    """
    scaling = files.manifest.preprocessing
    numbered = files.labels and all(
        label.startswith(f"{number} ") for number, label in enumerate(files.labels)
    )
    h5 = files.path.suffix in (".h5", ".hdf5")
    if numbered and h5 and files.inferred and (scaling.mean, scaling.std) == (0.0, 1.0):
        logger.warning(
            "model %s seems to be of Teachable Machine, whose models take -1 to 1, and its pixels "
            "go in as 0 to 255: give --input-mean 127.5 --input-std 127.5, or see `fingerpost "
            "model check`",
            files.name,
        )


def check_labels(files: ModelFiles, classes: int) -> tuple[str, ...]:
    """The names of a model's classes: its labels, or where it has none the classes' numbers.

    An embedding has none, and the numbers of a regression need none.

    Raises:
        ConfigurationError: there are not as many labels as scores.
    """
    task = files.manifest.task
    if not task.one_row:
        return files.labels
    if task is Task.EMBEDDING or (task is Task.REGRESSION and not files.labels):
        return ()
    if not files.labels:
        logger.warning(
            "model %s has no labels: answers name classes 0 to %d", files.name, classes - 1
        )
        return tuple(str(number) for number in range(classes))
    if len(files.labels) != classes:
        hint = ""
        if abs(len(files.labels) - classes) == 1:
            hint = "; one more or less is often a first class 'background'"
        raise ConfigurationError(
            f"model {files.name} gives {classes} scores for an image, but has "
            f"{len(files.labels)} labels: give those it was trained with, one for each score "
            f"(labels.txt, --labels or labels=){hint}"
        )
    return files.labels
