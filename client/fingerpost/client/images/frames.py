"""Decoded frames in memory that workers on this host can map: uint8 arrays `[H, W, 3]` of NumPy.

A frame is copied once, into a memfd, and sent as its descriptor. The memory is used again for the
next frame: new pages cost more than the copy. It is sealed against shrinking, which lets a worker
map it without danger, and against everybody's writing but ours.
"""

from __future__ import annotations

import mmap
import os
import sys
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fingerpost.client.images.load import load_image
from fingerpost.client.images.oneshot import OneShot

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Frame", "FrameMemory", "ImageData", "is_frame"]

# Of Linux, where alone `is_frame` is true; the last one of Linux 5.1.
_F_ADD_SEALS: Final = 1033
_F_SEAL_SHRINK: Final = 0x2
_F_SEAL_GROW: Final = 0x4
_F_SEAL_FUTURE_WRITE: Final = 0x10
# Memory that is kept for the next frames of a model: ten of 1920 x 1080.
_MAX_IDLE_BYTES: Final = 1 << 26


def is_frame(image: Any) -> bool:
    """Whether it is a uint8 array `[H, W, 3]` of NumPy, with pixels, and this is Linux."""
    numpy = sys.modules.get("numpy")  # a program that has an array has imported it
    return (
        numpy is not None
        and isinstance(image, numpy.ndarray)
        and image.dtype == numpy.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and image.size > 0
        and hasattr(os, "memfd_create")
    )


class _Memory:
    """A sealed memfd of one size, mapped here."""

    __slots__ = ("descriptor", "mapped")

    def __init__(self, size: int) -> None:
        import fcntl  # which Windows does not have

        self.descriptor = os.memfd_create("fingerpost-frame", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, size)
            self.mapped = mmap.mmap(self.descriptor, size)
            seals = _F_SEAL_SHRINK | _F_SEAL_GROW
            try:
                fcntl.fcntl(self.descriptor, _F_ADD_SEALS, seals | _F_SEAL_FUTURE_WRITE)
            except OSError:  # an older kernel
                fcntl.fcntl(self.descriptor, _F_ADD_SEALS, seals)
        except BaseException:
            os.close(self.descriptor)
            raise

    def close(self) -> None:
        """Give the memory back."""
        os.close(self.descriptor)
        self.mapped.close()


class Frame:
    """A frame in shared memory; `release` it when no attempt will follow.

    Attributes:
        descriptor: of the memfd.
        description: datatype and shape, as the request has them.
        lent: how many workers may still read it: those that have not answered.
    """

    __slots__ = ("_give_back", "_memory", "_png", "description", "lent", "shape")

    def __init__(
        self, memory: _Memory, shape: tuple[int, ...], give_back: Callable[[_Memory], None]
    ) -> None:
        self._memory = memory
        self._give_back = give_back
        self._png: bytes | None = None
        self.shape = shape
        self.description = f"UINT8 {'x'.join(map(str, shape))}"
        self.lent = 0

    def __len__(self) -> int:
        return len(self._memory.mapped)

    @property
    def descriptor(self) -> int:
        """Of the memfd."""
        return self._memory.descriptor

    @property
    def pixels(self) -> bytes:
        """A copy of the pixels."""
        return self._memory.mapped[:]

    async def encoded(self) -> bytes:
        """The frame as PNG, for workers that cannot map it; encoded in a thread, and once."""
        if self._png is None:
            numpy: Any = sys.modules["numpy"]
            array = numpy.frombuffer(self.pixels, numpy.uint8).reshape(self.shape)
            data = await load_image(array)
            assert not isinstance(data, OneShot)  # noqa: S101 - of an array
            self._png = data
        return self._png

    def release(self) -> None:
        """Give the memory back, for the next frame unless a worker may still read this one."""
        if self.lent:
            self._memory.close()
        else:
            self._give_back(self._memory)


class FrameMemory:
    """The memory of frames, which is used again for frames of the same size and model.

    Not for those of another model, whose workers need not see them.
    """

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], list[_Memory]] = {}
        self._closed = False

    def copy(self, array: Any, model: str) -> Frame | None:
        """Copy an array, see `is_frame`; None where there is no memory or no descriptor for it."""
        numpy: Any = sys.modules["numpy"]  # see `is_frame`
        key = (model, array.nbytes)
        idle = self._idle.get(key)
        try:
            memory = idle.pop() if idle else _Memory(array.nbytes)
        except OSError:
            return None
        numpy.ndarray(array.shape, numpy.uint8, buffer=memory.mapped)[:] = array
        return Frame(memory, array.shape, lambda memory: self._keep(key, memory))

    def close(self) -> None:
        """Give all memory back that is not in use."""
        self._closed = True
        for idle in self._idle.values():
            for memory in idle:
                memory.close()
        self._idle.clear()

    def _keep(self, key: tuple[str, int], memory: _Memory) -> None:
        model, size = key
        for other in [each for each in self._idle if each[0] == model and each != key]:
            for unused in self._idle.pop(other):  # the camera has another size now
                unused.close()
        idle = self._idle.setdefault(key, [])
        if self._closed or (len(idle) + 1) * size > _MAX_IDLE_BYTES:
            memory.close()
        else:
            idle.append(memory)


ImageData: TypeAlias = bytes | OneShot | Frame
"""What an attempt sends: an encoded image, or a frame."""
