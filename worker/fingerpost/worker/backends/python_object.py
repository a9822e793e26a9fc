"""A Python object as a model: anything with a method `predict`."""

from __future__ import annotations

import inspect
import logging
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fingerpost.errors import ConfigurationError, InvalidName, InvalidRequest
from fingerpost.registry.names import check_service, check_version
from fingerpost.worker.backends.inputs import encoded_input, image_input
from fingerpost.worker.backends.pixels import predict_in_batches, score_reader
from fingerpost.worker.backends.raised import is_the_models, type_and_text
from fingerpost.worker.models.files import ModelFiles
from fingerpost.worker.models.manifest import BatchSpec, Framework, InputSpec, Layout, Manifest

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from fingerpost.worker.backends.base import ImageInput, Item
    from fingerpost.worker.backends.pixels import ToScores

__all__ = [
    "PythonBackend",
    "PythonModel",
    "call_load",
    "describe_object",
    "load_object",
    "wrap_object",
]

logger = logging.getLogger(__name__)


class PythonModel(Protocol):
    """A Python object that can be served; only `predict` is required.

    These attributes are read where the object or its class has them:

    Attributes:
        height, width: pixels of the images that `predict` takes.
        labels: the names of the classes, in the order of the scores.
        max_batch: most images in one call of `predict`; by default the worker's setting.
        channels: 3 (RGB, the default) or 1 (gray).
        dtype: `uint8` (the default) or `float32`; both 0 to 255. Where `model.toml` has a `mean` or
            `std`, the default is float32, scaled by them.
        encoded: True for encoded images (JPEG, PNG, ...) as clients sent them, unchecked.
        inline: True where `predict` takes microseconds and never waits (a lookup, a rule): it is
            called in the event loop, and one that takes longer delays every request of this worker.
        device: where it runs, for the registration; by default `cpu`.
        load: a method without arguments, called once before the first `predict`.
        close: a method without arguments, called when the model is unloaded.
    """

    def predict(self, batch: Any, /) -> ArrayLike:
        """Scores `[N, classes]`, finite, in the order of the labels.

        Called from one thread, never two at a time. If it raises, the images of the batch are run
        again one by one, so that one bad image fails alone.

        Args:
            batch: uint8 `[N, height, width, channels]` in 0..255, RGB, which `predict` may change
                (channels before rows where `model.toml` has `layout = "NCHW"`); or a list of N
                `bytes` where `encoded` is True.
        """
        ...


class PythonBackend:
    """A Python object behind the `Backend` interface."""

    platform = "python"

    def __init__(
        self,
        model: PythonModel,
        wanted: ImageInput,
        to_scores: ToScores,
        device: str,
        *,
        labels: tuple[str, ...] = (),
        max_batch: int | None = None,
    ) -> None:
        self._model = model
        self._to_scores = to_scores
        self.input = wanted
        self.framework = f"python {platform.python_version()}"
        self.device = device
        self.labels = labels
        self.max_batch = max_batch

    def predict(self, images: Sequence[Item]) -> NDArray[np.float32]:
        """See `Backend.predict`."""
        if not self.input.encoded:
            return predict_in_batches(images, self.input, self._scores)
        if any(isinstance(image, np.ndarray) for image in images):
            raise InvalidRequest("the model decodes images itself: send encoded images")
        return self._scores([bytes(image) for image in images])

    def close(self) -> None:
        """Call the object's own `close`, if it has one."""
        close = getattr(self._model, "close", None)
        if close is not None:
            close()

    def _scores(self, batch: NDArray[Any] | list[bytes]) -> NDArray[np.float32]:
        return self._to_scores(self._model.predict(batch), len(batch))


def describe_object(
    model: PythonModel,
    *,
    name: str,
    version: str,
    labels: Sequence[str] | None,
    image_size: int | tuple[int, int] | None,
    max_batch: int | None,
) -> ModelFiles:
    """What `model.toml` would say of an object, from the arguments and the object's attributes.

    Args:
        model: the object; its attributes `labels` and `max_batch` count where no argument is given.
        name, version: what it is served as.
        labels: the names of the classes, in the order of the scores.
        image_size: pixels, of both sides or `(height, width)`.
        max_batch: most images in one call of `predict`.

    Raises:
        ConfigurationError: a value that is not valid.
    """
    names = _own_labels(name, getattr(model, "labels", None) if labels is None else labels)
    height, width = image_size if isinstance(image_size, tuple) else (image_size, image_size)
    try:
        return ModelFiles(
            name=check_service(name),
            version=check_version(version),
            folder=Path(),
            path=Path(),
            manifest=Manifest(
                framework=Framework.PYTHON,
                python_class=f"{type(model).__module__}:{type(model).__qualname__}",
                input=InputSpec(height=height, width=width),
                batch=BatchSpec(
                    max=getattr(model, "max_batch", None) if max_batch is None else max_batch
                ),
            ),
            labels=names,
        )
    except (InvalidName, ValueError, TypeError) as error:
        raise ConfigurationError(f"model {name}: {error}") from error


def load_object(model: PythonModel, files: ModelFiles) -> PythonBackend:
    """Call the object's own `load()`, and wrap it.

    Raises:
        ConfigurationError: `load` raises, or the object cannot be served.
    """
    call_load(model, files)
    return wrap_object(model, files)


def call_load(model: Any, files: ModelFiles) -> None:
    """Call the object's own `load()`, if it has one.

    A `load` that needs arguments is the object's own affair, and is not called.

    Raises:
        ConfigurationError: `load` raises.
    """
    load = getattr(model, "load", None)
    if callable(load) and _needs_nothing(load):
        _check_not_async(files, load, "load")
        try:
            load()
        except BaseException as error:
            if not is_the_models(error):
                raise
            raise ConfigurationError(
                f"model {files.name}: its load() fails: {type_and_text(error)}"
            ) from error


def wrap_object(model: Any, files: ModelFiles) -> PythonBackend:
    """The backend of an object with a method `predict`.

    Raises:
        ConfigurationError: it has no such method, or nothing says which images it takes.
    """
    if not callable(getattr(model, "predict", None)):
        raise ConfigurationError(
            f"model {files.name}: class {files.manifest.python_class!r} has no method predict"
        )
    _check_not_async(files, model.predict, "predict")
    wanted = replace(_input(files, model), inline=_is_inline(files, model))
    return PythonBackend(
        model,
        wanted,
        score_reader(files.manifest),
        str(getattr(model, "device", "cpu")),
        labels=_own_labels(files.name, getattr(model, "labels", None)),
        max_batch=_own_max_batch(files.name, getattr(model, "max_batch", None)),
    )


def _own_labels(name: str, labels: Any) -> tuple[str, ...]:
    wrong = isinstance(labels, str)
    try:
        names: tuple[Any, ...] = () if labels is None or wrong else tuple(labels)
    except TypeError:
        names, wrong = (), True
    if wrong or not all(isinstance(each, str) and each for each in names):
        raise ConfigurationError(
            f"model {name}: labels is {labels!r}: it must be a list of names, one for each class"
        )
    return names


def _own_max_batch(name: str, most: Any) -> int | None:
    if most is None or (isinstance(most, int) and 1 <= most <= 4096):
        return most
    raise ConfigurationError(f"model {name}: max_batch is {most!r}: it must be 1 to 4096")


def _needs_nothing(method: Any) -> bool:
    try:
        inspect.signature(method).bind()
    except (TypeError, ValueError):
        return False
    return True


def _check_not_async(files: ModelFiles, method: Any, name: str) -> None:
    call = getattr(method, "__call__", None)  # noqa: B004  # of an object in place of a method
    if any(map(inspect.iscoroutinefunction, (method, call))) or inspect.isasyncgenfunction(method):
        raise ConfigurationError(
            f"model {files.name}: {name} is 'async def', but it is called in a thread and must "
            f"return its result: write 'def {name}', and `asyncio.run(...)` around what is async"
        )


def _is_inline(files: ModelFiles, model: Any) -> bool:
    if hasattr(model, "instant"):  # its old name, read for one more release
        logger.warning(
            "model %s: its class sets 'instant', which is called 'inline' now: rename it",
            files.name,
        )
        return bool(model.instant)
    return bool(getattr(model, "inline", False))


def _input(files: ModelFiles, model: Any) -> ImageInput:
    manifest = files.manifest
    encoded = manifest.input.encoded
    if encoded if encoded is not None else getattr(model, "encoded", False):
        return encoded_input(files, None, check=False)
    layout = manifest.input.layout or Layout.NHWC
    own = {key: getattr(model, key, None) for key in ("height", "width", "channels")}
    sides: list[int | None] = [own["height"], own["width"]]
    channels = own["channels"] or manifest.input.channels or 3
    axes = [channels, *sides] if layout is Layout.NCHW else [*sides, channels]
    scaling = manifest.preprocessing
    plain = (scaling.mean, scaling.std) == (0.0, 1.0)
    dtype = getattr(model, "dtype", "uint8" if plain else "float32")
    return image_input(files, [None, *axes], str(dtype), layout=layout)
