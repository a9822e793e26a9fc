"""The same key to the same worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.client.routing.subset import N, score

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Sticky"]


class Sticky:
    """Picks by rendezvous hashing: for workers that keep something between requests.

    A worker that is not usable loses its keys to the others evenly, and gets them back. Load is
    not looked at, so that a popular key can overload its worker. Takes some 2 us for each worker.
    """

    def pick(self, candidates: Sequence[N], key: str) -> N:
        """Return the one of `candidates` that `key` belongs to."""
        return max(candidates, key=lambda candidate: score(key, candidate))
