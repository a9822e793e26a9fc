"""How images are gathered into batches, in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.worker.models.manifest import BatchSpec

__all__ = ["BatchingOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingOptions:
    """How images are gathered.

    Attributes:
        max_batch: most images in one run. More gives throughput, until the model's memory ends.
        max_queue: most images waiting, those being decoded among them. More absorbs longer bursts,
            at the price of latency.
        max_wait_s: how long an image may wait for company while the model is idle. 0 suits most
            models; more pays only where a full batch costs little more than a single image.
        latency_s: keep the time from submission to answer under this, by smaller batches and by
            refusing what would take longer; None makes batches as large as the load.
        sizes: the only sizes that are run, ascending to `max_batch`: a smaller batch is padded to
            the next one. For compiled graphs, which are slow at every new shape.
    """

    max_batch: int = 32
    max_queue: int = 512
    max_wait_s: float = 0.0
    latency_s: float | None = None
    sizes: tuple[int, ...] = ()

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

    def over(self, spec: BatchSpec) -> BatchingOptions:
        """These options, with what a model's own file says in their place."""
        return replace(
            self,
            max_batch=spec.sizes[-1] if spec.sizes else spec.max or self.max_batch,
            sizes=spec.sizes or (() if spec.max else self.sizes),
            max_wait_s=self.max_wait_s if spec.max_wait_ms is None else spec.max_wait_ms / 1000,
            latency_s=spec.latency_ms / 1000 if spec.latency_ms else self.latency_s,
        )

    def size(self, images: int) -> int:
        """The size that a batch of so many images runs as."""
        if not self.sizes:
            return images
        return next((size for size in self.sizes if size >= images), images)
