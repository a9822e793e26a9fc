"""What the tensor protocols share: JSON and bytes in, items for the engine, scores out."""

from __future__ import annotations

import asyncio
from math import prod
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import numpy as np

from fingerpost.errors import (
    DeadlineExceeded,
    FingerpostError,
    ImageTooLarge,
    InvalidRequest,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from numpy.typing import NDArray

    from fingerpost.worker.engine.outcome import Outcome
    from fingerpost.worker.images import ImageConfig
    from fingerpost.worker.serving.routes import Admitted
    from fingerpost.worker.serving.turns import Turns

    Scores = NDArray[np.float32]
    Item = bytes | memoryview | NDArray[Any]
    T = TypeVar("T")

__all__ = ["classify_all", "each_row", "scores_json", "split_batch", "split_items", "tensor"]

_FLOAT32: Final = np.dtype("<f4")
# From here on the numbers of a request are checked in a thread: 1 ms.
_MANY_NUMBERS: Final = 1 << 20
# Numbers or labels that are written as JSON at a time: some 2 ms.
_AT_A_TIME: Final = 1 << 14


async def split_batch(
    array: NDArray[Any], config: ImageConfig, what: str, *, max_images: int
) -> list[NDArray[Any]]:
    """The images of a tensor with four axes, `[N, ...]`, or the one image of a tensor with three.

    uint8 is pixels, `[N, height, width, 1 or 3]`; every other type becomes float32, as the model
    itself takes it.

    Raises:
        InvalidRequest: another number of axes, pixels with another last axis, or numbers that are
            not finite as float32.
        ImageTooLarge: more images or pixels than the limits.
    """
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise InvalidRequest(
            f"{what} has shape {list(array.shape)}: an image has three axes, a batch of them four, "
            "and none is empty"
        )
    if array.ndim == 4 and len(array) > max_images:
        raise ImageTooLarge(
            f"{what} has {len(array):,} images: send {max_images} at a time at most"
        )
    if array.dtype == np.uint8:
        height, width, channels = array.shape[-3:]
        if channels not in (1, 3):
            raise InvalidRequest(
                f"{what} has shape {list(array.shape)}: uint8 pixels are [N, height, width, 3], "
                "or 1 for gray"
            )
        if height * width > config.max_pixels or max(height, width) > config.max_side:
            raise ImageTooLarge(
                f"{what} has images of {width} x {height}, over the limit of "
                f"{config.max_pixels / 1e6:.0f} megapixels or {config.max_side} a side"
            )
    else:
        many = array.size > _MANY_NUMBERS
        array, finite = await asyncio.to_thread(_floats, array) if many else _floats(array)
        if not finite:
            raise InvalidRequest(f"{what} has numbers that are not finite as float32")
    return [array] if array.ndim == 3 else list(array)


def split_items(array: NDArray[Any]) -> list[NDArray[Any]]:
    """The items along the first axis, also where they are single numbers."""
    return list(array) if array.ndim > 1 else [array[at, ...] for at in range(len(array))]


def _floats(array: NDArray[Any]) -> tuple[NDArray[np.float32], bool]:
    """The numbers as float32, and whether all are finite; NumPy frees Python's lock meanwhile."""
    with np.errstate(over="ignore"):
        floats = array.astype(_FLOAT32, copy=False)
    return floats, bool(np.isfinite(floats).all())


def tensor(data: memoryview, dtype: np.dtype[Any], shape: Sequence[int], what: str) -> NDArray[Any]:
    """An array over bytes, not copied. Raises `InvalidRequest` for another number of bytes."""
    expected = prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise InvalidRequest(
            f"{what} has {len(data):,} bytes, but {dtype.name} {list(shape)} has {expected:,}"
        )
    return np.frombuffer(data, dtype).reshape(shape)


async def classify_all(
    admitted: Admitted,
    items: Sequence[Item],
    *,
    deadline: float,
    name: Callable[[int], str],
) -> Scores:
    """Run encoded images and arrays together; return float32 scores `[len(items), classes]`.

    These protocols have no outcome for a single item: the first item that fails, in their order,
    fails the request.

    Args:
        deadline: by the loop's clock.
        name: makes an item's name in errors from its number.

    Raises:
        FingerpostError: the engine's error, with the item's name before its message.
    """
    engine, flow = admitted.served.engine, admitted.flow
    admitted.images = len(items)
    timed = deadline >= admitted.deadline  # by the timer of the route

    def one(item: Item) -> Awaitable[Outcome]:
        if isinstance(item, np.ndarray):
            return engine.infer(item, deadline=deadline, flow=flow)
        return engine.classify(item, deadline=deadline, flow=flow)

    async def run() -> Sequence[Outcome | BaseException]:
        if len(items) == 1:
            return [await one(items[0])]
        return await asyncio.gather(*map(one, items), return_exceptions=True)

    try:
        if timed and len(items) == 1:
            return (await one(items[0])).scores[None]
        if timed:
            outcomes = await run()
        else:
            async with asyncio.timeout_at(deadline):
                outcomes = await run()
    except TimeoutError:
        raise DeadlineExceeded("the deadline passed before the request was answered") from None
    except FingerpostError as error:
        raise _named(error, name(0)) from None
    rows = []
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome, FingerpostError):
            raise _named(outcome, name(number)) from None
        if isinstance(outcome, BaseException):
            raise outcome
        rows.append(outcome.scores)
    return np.stack(rows)


async def scores_json(scores: Scores, turns: Turns) -> bytes:
    """The rows of scores as JSON, `[[0.1, ...], ...]`, or the numbers of one axis, `[0.1, ...]`."""
    rows = max(1, _AT_A_TIME * len(scores) // max(1, scores.size))
    pieces = []
    for start in range(0, len(scores), rows):
        if start:
            await turns.next()
        pieces.append(msgspec.json.encode(scores[start : start + rows].tolist())[1:-1])
    return b"[%b]" % b",".join(pieces)


async def each_row(
    scores: Scores, make: Callable[[NDArray[np.float32]], T], labels: int, turns: Turns
) -> list[T]:
    """What `make` makes of each row, which takes the longer the more `labels` it writes."""
    rows = max(1, _AT_A_TIME // 8 // max(1, labels))
    made: list[T] = []
    for start in range(0, len(scores), rows):
        if start:
            await turns.next()
        made += map(make, scores[start : start + rows])
    return made


def _named(error: FingerpostError, name: str) -> FingerpostError:
    return type(error)(f"{name}: {error.message}", retry_after_s=error.retry_after_s)
