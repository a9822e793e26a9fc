"""The settings of batching."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError
from fingerpost.worker.engine.fairness.flow import DEFAULT_CLASSES, PriorityClass

if TYPE_CHECKING:
    from fingerpost.worker.models.manifest import BatchSpec

__all__ = ["BatchingConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingConfig:
    """How images are gathered into batches.

    Attributes:
        max_batch: most images in one run of the model. More gives throughput, until the model's
            memory ends; 32 fits small machines.
        max_queue: most images waiting, those being decoded among them. More absorbs longer bursts,
            at the price of latency; 512 is 16 full batches.
        max_wait_s: how many seconds an image may wait for others while the model is idle. 0 suits
            most models; more pays only where a full batch costs little more than a single image.
        latency_s: keep the seconds from submission to answer under this, by smaller batches and by
            refusing what would take longer. Lower values cost throughput. None, the default, makes
            batches as large as the load.
        sizes: the only sizes that run, ascending to `max_batch`: a smaller batch is padded to the
            next one. For compiled graphs, which are slow at every new shape; empty allows every
            size.
        classes: the priority classes of images, the first to be served first, each with the least
            share of the images that it gets while it has some. A higher floor takes more from the
            classes before it; 0 lets them stop it.
    """

    max_batch: int = 32
    max_queue: int = 512
    max_wait_s: float = 0.0
    latency_s: float | None = None
    sizes: tuple[int, ...] = ()
    classes: tuple[PriorityClass, ...] = DEFAULT_CLASSES

    @property
    def floors(self) -> tuple[float, ...]:
        """The floors of the classes."""
        return tuple(each.floor for each in self.classes)

    def __post_init__(self) -> None:
        for name in ("max_batch", "max_queue"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        if not 0 <= self.max_wait_s < math.inf:
            raise ConfigurationError(f"max_wait_s is {self.max_wait_s}: it must be 0 or more")
        if self.latency_s is not None and not 0 < self.latency_s < math.inf:
            raise ConfigurationError(f"latency_s is {self.latency_s}: it must be above 0")
        if self.sizes:
            ascending = list(self.sizes) == sorted(set(self.sizes)) and self.sizes[0] >= 1
            if not ascending or self.sizes[-1] != self.max_batch:
                raise ConfigurationError(
                    f"sizes is {list(self.sizes)}: it must ascend from 1 or more "
                    f"to max_batch, {self.max_batch}"
                )

    def override(self, spec: BatchSpec) -> BatchingConfig:
        """This configuration with the settings of a model's own file in place of its own."""
        return replace(
            self,
            max_batch=spec.sizes[-1] if spec.sizes else spec.max or self.max_batch,
            sizes=spec.sizes or (() if spec.max else self.sizes),
            max_wait_s=self.max_wait_s if spec.max_wait_ms is None else spec.max_wait_ms / 1000,
            latency_s=spec.latency_ms / 1000 if spec.latency_ms else self.latency_s,
        )

    def padded_size(self, images: int) -> int:
        """The number of images that a batch of `images` runs as, padding included."""
        if not self.sizes:
            return images
        return next((size for size in self.sizes if size >= images), images)
