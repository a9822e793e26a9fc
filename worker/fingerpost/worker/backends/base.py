"""What a framework must offer to be served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from fingerpost.worker.manifest import Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    # Pixels uint8 `[height, width, channels]` in 0..255, RGB; encoded bytes where the model takes
    # those; or float32 of the model's own input shape without its batch, which goes in as it is.
    Item = NDArray[np.uint8] | NDArray[np.float32] | bytes

__all__ = ["Backend", "ImageInput", "LoadOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInput:
    """What a model wants to be fed.

    Attributes:
        height, width: pixels.
        channels: 3 (RGB) or 1 (gray).
        encoded: the graph takes encoded image bytes and decodes them itself; the three above then
            do not count.
        batch: how many images one call takes: None for any number, else exactly this many.
        preprocessing: how images come to that size (`resize`, `filter`, `crop_fraction`), and what
            the backend does to the pixels then (`order`, `mean`, `std`).
    """

    height: int = 0
    width: int = 0
    channels: int = 3
    encoded: bool = False
    batch: int | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What the machine, not the model, decides about loading.

    Attributes:
        device: `auto` (a GPU where the framework finds one), `cpu`, or `cuda:N`.
        memory_fraction: the share of the device's memory this process may take, 0 < f <= 1;
            None lets the framework grow as it needs.
        threads: threads for one operation on the CPU; 0 leaves it to the framework (one a core).
    """

    device: str = "auto"
    memory_fraction: float | None = None
    threads: int = 0


class Backend(Protocol):
    """A loaded model. `predict` is called from one thread, never two at a time."""

    @property
    def framework(self) -> str:
        """Name and version, such as `tensorflow 2.21.0`."""

    @property
    def device(self) -> str:
        """Where it runs: `cpu`, or the GPU's name."""

    @property
    def input(self) -> ImageInput:
        """What `predict` wants."""

    def predict(self, images: Sequence[Item]) -> NDArray[np.float32]:
        """Scores, float32 `[len(images), classes]`.

        Args:
            images: 1 or more, each uint8 `[height, width, channels]` in 0..255, RGB (the backend
                does the rest of the preprocessing); or encoded bytes where `input.encoded`; or
                float32 in the model's own layout, which goes in as it is.
        """

    def close(self) -> None:
        """Free memory and devices; `predict` is not called afterwards."""
