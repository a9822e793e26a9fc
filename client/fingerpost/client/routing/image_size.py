"""How large the images of a client are, for workers whose time is known by the image only."""

from __future__ import annotations

from math import inf
from typing import Final

from fingerpost.basics.moving_average import ewma

__all__ = ["ImageSize"]

_SMOOTHING: Final = 0.1


class ImageSize:
    """The average megabytes of an image; one for all workers of a service.

    It makes the seconds that a new worker takes for an image comparable with the seconds that
    others have taken for a megabyte. Before this client has sent an image, what a worker takes for
    each of the two says how large those of other clients are.

    Attributes:
        mb: the average; 1 while nothing is known.
    """

    __slots__ = ("_own", "mb")

    def __init__(self) -> None:
        self._own = 0.0
        self.mb = 1.0

    def sent(self, mb: float) -> None:
        """Count an image of this client."""
        self._own = self.mb = ewma(self._own or mb, mb, _SMOOTHING)

    def told(self, alone_s: float, s_per_mb: float) -> None:
        """Note what a worker takes for an image, and for a megabyte of those that it has had."""
        if not self._own and 0 < (mb := alone_s / s_per_mb) < inf:
            self.mb = mb
