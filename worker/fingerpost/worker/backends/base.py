"""What a framework must offer to be served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Backend", "ImageInput"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInput:
    """What a model wants to be fed.

    Attributes:
        height, width: pixels.
        channels: 3 (RGB) or 1 (gray).
        encoded: the graph takes encoded image bytes and decodes them itself; the three above then
            do not count.
        batch: how many images one call takes: None for any number, else exactly this many.
    """

    height: int = 0
    width: int = 0
    channels: int = 3
    encoded: bool = False
    batch: int | None = None


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

    def predict(self, images: Sequence[NDArray[np.uint8] | bytes]) -> NDArray[np.float32]:
        """Scores, float32 `[len(images), classes]`.

        Args:
            images: 1 or more, each uint8 `[height, width, channels]` in 0..255, or encoded bytes
                where `input.encoded`.
        """
