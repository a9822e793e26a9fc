"""The interface between a framework and the engine that serves its models."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import msgspec

from fingerpost.errors import ConfigurationError
from fingerpost.worker.models.manifest import Layout, Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fingerpost.worker.models.files import ModelFiles

    # Pixels uint8 `[height, width, channels]` in 0..255, RGB; encoded bytes where the model takes
    # those; or float32 of the model's own input shape without its batch, which goes in as it is.
    Item = NDArray[np.uint8] | NDArray[np.float32] | bytes

__all__ = [
    "INTEL",
    "Backend",
    "ImageInput",
    "ItemRunner",
    "LoadConfig",
    "SelfDescribing",
    "completed",
]


INTEL: Final = re.compile(r"gpu(:[0-9]{1,3})?|npu")
"""Devices that only OpenVINO uses, by the names of `--device`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInput:
    """The input of a model.

    Attributes:
        height, width: pixels.
        channels: 3 (RGB) or 1 (gray).
        encoded: whether the model takes encoded images and decodes them itself; then `height`,
            `width` and `channels` have no meaning.
        check_encoded: whether such images are decoded once as a check before the model gets them.
        layout: the order of the model's own axes; pixels passed to `predict` are always
            `[H, W, C]`.
        dtype: NumPy's name of the type that the model takes, such as `float32` or `uint8`.
        batch: the number of images in one call: None for any number, else exactly this many.
        inline: a call takes microseconds and never waits, so it is made in the event loop: two
            changes of threads would cost more than the call.
        concurrent_batches: how many calls may run at once, each in a thread of its own. More than
            one pays where a call leaves processors idle at its end that the next could use.
        multiple: of a model without a size, each side is filled up to a multiple of this.
        preprocessing: how images are resized (`resize`, `filter`, `crop_fraction`), and how the
            backend scales the pixels then (`order`, `mean`, `std`).
    """

    height: int = 0
    width: int = 0
    channels: int = 3
    encoded: bool = False
    check_encoded: bool = True
    layout: Layout = Layout.NHWC
    dtype: str = "float32"
    batch: int | None = None
    inline: bool = False
    concurrent_batches: int = 1
    multiple: int = 1
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """One image as the model's own tensor, without the batch; `()` where it takes bytes."""
        if self.encoded:
            return ()
        if self.layout is Layout.NCHW:
            return (self.channels, self.height, self.width)
        return (self.height, self.width, self.channels)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadConfig:
    """How a model is loaded on this machine.

    Attributes:
        device: `auto` (a GPU where the framework finds one, the default), `cpu`, `cuda:N`; for
            OpenVINO also `gpu`, `gpu:N` (of Intel) and `npu`.
        memory_fraction: the share of the GPU's memory that this process may take, above 0 to 1.
            More leaves less to other processes; None, the default, takes what is needed.
        threads: threads for one operation on the CPU, 0 to 1024. More than the cores only switch
            between them; 0, the default, is the framework's own choice (one per core).
    """

    device: str = "auto"
    memory_fraction: float | None = None
    threads: int = 0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda:[0-9]{1,3}", self.device) and not self.intel:
            raise ConfigurationError(
                f"device is {self.device!r}: it must be auto, cpu, cuda:N, gpu, gpu:N or npu"
            )
        if self.memory_fraction is not None and not 0 < self.memory_fraction <= 1:
            raise ConfigurationError(
                f"memory_fraction is {self.memory_fraction}: it must be above 0, to 1"
            )
        if not 0 <= self.threads <= 1024:
            raise ConfigurationError(f"threads is {self.threads}: it must be 0 to 1024")

    @property
    def intel(self) -> bool:
        """Whether the device is one that only OpenVINO uses."""
        return INTEL.fullmatch(self.device) is not None


class Backend(Protocol):
    """A loaded model. `predict` is called from one thread for each concurrent batch."""

    @property
    def framework(self) -> str:
        """Name and version, such as `tensorflow 2.21.0`."""
        ...

    @property
    def platform(self) -> str:
        """Framework and format, such as `onnxruntime_onnx`; as in Triton, where it has the same."""
        ...

    @property
    def device(self) -> str:
        """Where it runs: `cpu`, or the GPU's name."""
        ...

    @property
    def input(self) -> ImageInput:
        """The input that `predict` takes."""
        ...

    def predict(self, images: Sequence[Item]) -> NDArray[np.float32]:
        """Scores, float32 `[len(images), classes]`.

        Args:
            images: 1 or more, each uint8 `[height, width, channels]` in 0..255, RGB (the backend
                does the rest of the preprocessing); or encoded bytes where `input.encoded`; or
                float32 `input.tensor_shape`, which goes in as it is.

        Raises:
            InvalidRequest: an item of another shape.
        """
        ...

    def close(self) -> None:
        """Free memory and devices; `predict` is not called afterwards."""
        ...


@runtime_checkable
class ItemRunner(Protocol):
    """A backend whose items and outcomes are of its own kind: it runs its batches by itself."""

    def run_items(
        self, items: list[Any], padded_size: Callable[[int], int]
    ) -> tuple[list[Any], bool]:
        """Run a batch; an outcome for each item, and whether no run had to be repeated.

        Args:
            items: 1 or more.
            padded_size: the size to which a smaller batch is filled up.
        """
        ...

    def warm_up_items(
        self,
        max_batch: int,
        sizes: tuple[int, ...],
        learn: Callable[[int, float], None] | None = None,
    ) -> None:
        """Run real inferences. Raises `ConfigurationError` where they fail.

        Args:
            max_batch: most items of a batch.
            sizes: the only sizes that run; empty for all up to that.
            learn: is told the size of a batch and its seconds; None to measure nothing.
        """
        ...


@runtime_checkable
class SelfDescribing(Protocol):
    """A backend whose model says more about itself than its input: a Python object.

    Attributes:
        labels: the names of the classes, in the order of the scores; empty where it has none.
        max_batch: most images in one call of `predict`; None where it does not say.
    """

    labels: tuple[str, ...]
    max_batch: int | None


def completed(files: ModelFiles, backend: Backend) -> ModelFiles:
    """The files of a model, with what the loaded model says where these say nothing."""
    if not isinstance(backend, SelfDescribing):
        return files
    batch, manifest = files.manifest.batch, files.manifest
    if backend.max_batch is not None and batch.max is None and not batch.sizes:
        batch = msgspec.structs.replace(batch, max=backend.max_batch)
        manifest = msgspec.structs.replace(manifest, batch=batch)
    return replace(files, manifest=manifest, labels=files.labels or backend.labels)
