"""A batch in shared memory: a front end writes images, the model's process reads them in place.

The memory is a `memfd` that both processes map. It can grow and never shrink (it is sealed), so
that neither side can take pages away that the other one reads. The scores are written over the
images, from the first byte on.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import Item

__all__ = ["BatchMemory", "Run"]

# Images of one kind in a row: `u` (uint8), `f` (float32) or `b` (bytes); their shape; their number.
Run = tuple[Literal["u", "f", "b"], tuple[int, ...], int]

# Where a run begins: a multiple of this many bytes, as processors and frameworks like it.
_ALIGN: Final = 64
_TYPES: Final[dict[str, np.dtype[Any]]] = {"u": np.dtype(np.uint8), "f": np.dtype(np.float32)}


class BatchMemory:
    """The memory for one batch at a time, of one front end.

    Args:
        descriptor: of a `memfd`, which belongs to this object from here on; see `made`.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map: mmap.mmap | None = None

    @classmethod
    def made(cls) -> BatchMemory:
        """New memory, which is empty and grows with the first batch."""
        descriptor = os.memfd_create("fingerpost-batch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return cls(descriptor)

    def write(self, items: Sequence[Item]) -> list[Run]:
        """Copy images; return what `read` needs to find them."""
        runs: list[Run] = []
        last: tuple[Literal["u", "f", "b"], tuple[int, ...]] | None = None
        for item in items:
            kind = _kind(item)
            if kind == last and kind[0] != "b":
                runs[-1] = (*kind, runs[-1][2] + 1)
            else:
                runs.append((*kind, 1))
            last = kind
        starts, end = _places(runs)
        memory = self._mapped(end)
        left = iter(items)
        for (_, _, count), start in zip(runs, starts, strict=True):
            at = start
            for _ in range(count):
                item = next(left)
                if isinstance(item, bytes):
                    memory[at : at + len(item)] = item
                else:
                    view = np.frombuffer(memory, item.dtype, item.size, at)
                    np.copyto(view.reshape(item.shape), item)
                    at += item.nbytes
        return runs

    def read(self, runs: Sequence[Run]) -> list[Item]:
        """The images of `write`, in place where they are pixels.

        Raises:
            ValueError: they do not lie in the memory.
        """
        starts, end = _places(runs)
        if end > os.fstat(self.descriptor).st_size:
            raise ValueError(f"a batch of {end:,} bytes does not lie in its memory")
        memory = self._mapped(end)
        items: list[Any] = []
        for (kind, shape, count), start in zip(runs, starts, strict=True):
            size = math.prod(shape)
            if kind == "b":
                items += [memory[start : start + size]] * count
            else:
                batch = np.frombuffer(memory, _TYPES[kind], size * count, start)
                items += list(batch.reshape(count, *shape))
        return items

    def write_scores(self, scores: NDArray[np.float32]) -> None:
        """Write scores from the first byte on."""
        view = np.frombuffer(self._mapped(scores.nbytes), np.float32, scores.size)
        np.copyto(view.reshape(scores.shape), scores)

    def read_scores(self, shape: Sequence[int]) -> NDArray[np.float32]:
        """A copy of the scores of `write_scores`, which had this shape."""
        size = math.prod(shape)
        return np.frombuffer(self._mapped(4 * size), np.float32, size).reshape(shape).copy()

    def close(self) -> None:
        """Give the memory back, once nothing refers to its images."""
        self._map = None
        os.close(self.descriptor)

    def _mapped(self, size: int) -> mmap.mmap:
        """The memory, with at least so many bytes."""
        memory = self._map
        if memory is None or len(memory) < size:
            if os.fstat(self.descriptor).st_size < max(size, 1):
                os.ftruncate(self.descriptor, max(size, mmap.PAGESIZE))
            memory = self._map = mmap.mmap(self.descriptor, 0)
        return memory


def _kind(item: Item) -> tuple[Literal["u", "f", "b"], tuple[int, ...]]:
    if isinstance(item, bytes):
        return "b", (len(item),)
    return ("u" if item.dtype == np.uint8 else "f"), item.shape


def _places(runs: Sequence[Run]) -> tuple[list[int], int]:
    """Where each run begins, and where the last one ends."""
    starts, at = [], 0
    for kind, shape, count in runs:
        if min((*shape, count)) < 0:
            raise ValueError(f"a batch has images of shape {list(shape)}")
        starts.append(at)
        width = 1 if kind == "b" else _TYPES[kind].itemsize
        at += -(-math.prod(shape) * count * width // _ALIGN) * _ALIGN
    return starts, at
