"""Any Python class as a model: `class = "package.module:Class"` in `model.toml`."""

from __future__ import annotations

import importlib
import inspect
import logging
import platform
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from fingerpost.errors import ConfigurationError, InvalidRequest
from fingerpost.worker.backends.inputs import encoded_input, image_input
from fingerpost.worker.backends.pixels import predict_in_batches, to_scores
from fingerpost.worker.models.manifest import Layout

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from fingerpost.worker.backends.base import ImageInput, Item, LoadConfig
    from fingerpost.worker.models.files import ModelFiles
    from fingerpost.worker.models.manifest import Activation

__all__ = ["PythonClassBackend", "PythonModel", "load"]

logger = logging.getLogger(__name__)

_importing: Final = threading.Lock()
# Top-level names of modules that came from models' folders.
_own_modules: Final[set[str]] = set()


class PythonModel(Protocol):
    """What the class must be.

    Its module is looked for in the model's folder first, then among what is installed. The folder
    is importable until the constructor returns, not afterwards. The constructor may also take
    `device`, which gets what the worker was started with: `auto`, `cpu` or `cuda:N`.

    Attributes, all optional, on the class or set by the constructor:
        height, width, channels: the images wanted, where `model.toml` does not say it.
        encoded: True for encoded images as they were sent, which nobody has looked into.
        inline: True where `predict` takes microseconds and never waits (a lookup, a rule): it is
            called in the event loop, and one that takes longer delays every request of this worker.
        dtype: `uint8`, or `float32`; by default float32 if `model.toml` has a mean or std.
        device: where it runs, for the registration; by default `cpu`.
        close: a method without arguments, called when the model is unloaded.
    """

    def __init__(self, folder: Path) -> None:
        """Load. Whatever it raises is told as the reason why the model cannot be loaded."""
        ...

    def predict(self, batch: NDArray[Any] | list[bytes]) -> ArrayLike:
        """Scores `[N, classes]`, finite, in the order of the labels.

        Called from one thread, never two at a time. What it raises fails the batch, which is then
        run again one by one, so that one bad image fails alone.

        Args:
            batch: `[N, height, width, channels]`, or `[N, channels, height, width]` where
                `model.toml` says `layout = "NCHW"`, preprocessed as it says, and the class's own to
                keep; or N encoded images.
        """
        ...


class PythonClassBackend:
    """A loaded class behind the `Backend` interface."""

    platform = "python"

    def __init__(
        self, model: PythonModel, wanted: ImageInput, activation: Activation, device: str
    ) -> None:
        self._model = model
        self._activation = activation
        self.input = wanted
        self.framework = f"python {platform.python_version()}"
        self.device = device

    def predict(self, images: Sequence[Item]) -> NDArray[np.float32]:
        """See `Backend.predict`."""
        if not self.input.encoded:
            return predict_in_batches(images, self.input, self._scores)
        if any(isinstance(image, np.ndarray) for image in images):
            raise InvalidRequest("the model decodes images itself: send encoded images")
        return self._scores([bytes(image) for image in images])

    def close(self) -> None:
        """Close the class's own, if it has a `close`."""
        close = getattr(self._model, "close", None)
        if close is not None:
            close()

    def _scores(self, batch: NDArray[Any] | list[bytes]) -> NDArray[np.float32]:
        return to_scores(self._model.predict(batch), self._activation, len(batch))


def load(files: ModelFiles, config: LoadConfig) -> PythonClassBackend:
    """Import the class and construct it.

    Raises:
        ConfigurationError: whatever went wrong in there, or an input that nobody describes.
    """
    target = files.manifest.python_class or ""
    try:
        with _importing:
            model = _construct(target, files.folder.resolve(), config)
    except ConfigurationError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:300]
        raise ConfigurationError(
            f"model {files.name}: class {target!r} cannot be loaded: {reason}"
        ) from error
    if not callable(getattr(model, "predict", None)):
        raise ConfigurationError(f"model {files.name}: class {target!r} has no method predict")
    wanted = replace(_input(files, model), inline=_is_inline(files, model))
    device = str(getattr(model, "device", "cpu"))
    return PythonClassBackend(model, wanted, files.manifest.output.activation, device)


def _is_inline(files: ModelFiles, model: Any) -> bool:
    if hasattr(model, "instant"):  # its old name, read for one more release
        logger.warning(
            "model %s: its class sets 'instant', which is called 'inline' now: rename it",
            files.name,
        )
        return bool(model.instant)
    return bool(getattr(model, "inline", False))


def _construct(target: str, folder: Path, config: LoadConfig) -> Any:
    module_name, _, class_name = target.partition(":")
    top = module_name.partition(".")[0]
    if not module_name or not class_name.isidentifier():
        raise ConfigurationError(
            f"class is {target!r} in model.toml: it must be 'package.module:Class'"
        )
    # Another version has modules of the same names; its classes keep theirs.
    for name in [name for name in sys.modules if name.partition(".")[0] in _own_modules]:
        del sys.modules[name]
    before = set(sys.modules)
    importlib.invalidate_caches()
    # A new list each time: other threads may be walking the one there is.
    sys.path = [str(folder), *sys.path]
    # Nothing is written into a folder that is served, and perhaps watched for changes.
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        module = importlib.import_module(module_name)
        own = (folder / f"{top}.py").is_file() or (folder / top).is_dir()
        if own and not _lies_in(module, folder):
            raise ConfigurationError(
                f"class {target!r}: Python has another module {top!r} loaded already "
                f"({module.__file__}): rename the model's"
            )
        constructor = getattr(module, class_name)
        takes_device = "device" in inspect.signature(constructor).parameters
        return constructor(folder, **({"device": config.device} if takes_device else {}))
    finally:
        sys.dont_write_bytecode = bytecode
        sys.path = [place for place in sys.path if place != str(folder)]
        _own_modules.update(
            name.partition(".")[0]
            for name in set(sys.modules) - before
            if _lies_in(sys.modules[name], folder)
        )


def _lies_in(module: Any, folder: Path) -> bool:
    """Whether a module comes from that folder; a namespace package has only a path."""
    places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or ())]
    return any(place and Path(place).is_relative_to(folder) for place in places)


def _input(files: ModelFiles, model: Any) -> ImageInput:
    said = files.manifest.input
    encoded = said.encoded if said.encoded is not None else getattr(model, "encoded", False)
    if encoded:
        return encoded_input(files, None, check=False)
    layout = said.layout or Layout.NHWC
    own = {key: getattr(model, key, None) for key in ("height", "width", "channels")}
    sides: list[int | None] = [own["height"], own["width"]]
    channels = own["channels"] or said.channels or 3
    axes = [channels, *sides] if layout is Layout.NCHW else [*sides, channels]
    scaling = files.manifest.preprocessing
    plain = (scaling.mean, scaling.std) == (0.0, 1.0)
    dtype = getattr(model, "dtype", "uint8" if plain else "float32")
    return image_input(files, [None, *axes], str(dtype), layout=layout)
