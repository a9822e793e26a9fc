"""Pixels go to a GPU as the bytes they are and are scaled there.

The processor then copies 150 KB an image of 224 x 224, into pinned memory, where it would make
600 KB of float32 in the model's layout, which takes longer than a ResNet-50 takes to run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import torch

from fingerpost.worker.models.manifest import Layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import ImageInput

__all__ = ["DevicePixels", "pinned"]


class DevicePixels:
    """Scales pixels on a device as `fingerpost.worker.backends.pixels.stack` does on the processor.

    Args:
        wanted: the model's input.
        device: where its batches are wanted.
    """

    def __init__(self, wanted: ImageInput, device: torch.device) -> None:
        self.wanted: Final = replace(wanted, dtype="uint8", layout=Layout.NHWC)
        self._device = device
        self._channels_first = wanted.layout is Layout.NCHW
        preprocessing = wanted.preprocessing
        self._mean = self._factor = None
        if wanted.dtype != "uint8" and (preprocessing.mean, preprocessing.std) != (0.0, 1.0):
            self._mean = self._per_channel(preprocessing.mean)
            self._factor = self._per_channel(preprocessing.std).reciprocal()

    def scaled(self, batch: NDArray[Any]) -> torch.Tensor:
        """On the device: uint8 as they are, else `(pixel - mean) / std`, float32.

        Args:
            batch: uint8 `[N, H, W, C]`, as `stack` makes it for `wanted`.

        Returns:
            In the model's own order of axes.
        """
        with torch.inference_mode():
            pixels = torch.from_numpy(batch).to(self._device, non_blocking=True)
            if self._channels_first:
                pixels = pixels.permute(0, 3, 1, 2)
            if self._mean is None or self._factor is None:
                return pixels
            return pixels.to(torch.float32).sub_(self._mean).mul_(self._factor)

    def _per_channel(self, values: float | tuple[float, ...]) -> torch.Tensor:
        channels = torch.tensor(values, dtype=torch.float32, device=self._device).reshape(-1)
        return channels[:, None, None] if self._channels_first else channels


def pinned(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Memory that a GPU reads by itself; PyTorch keeps it for the next batch when it is freed."""
    array: NDArray[Any] = torch.empty(shape, dtype=getattr(torch, dtype), pin_memory=True).numpy()
    return array
