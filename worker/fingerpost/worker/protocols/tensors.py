"""What the tensor protocols share: JSON and bytes in, items for the engine, scores out."""

from __future__ import annotations

import asyncio
import binascii
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
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from fingerpost.worker.engine.outcome import Outcome
    from fingerpost.worker.images import ImageConfig
    from fingerpost.worker.repository.manager import ServedVersion

    Scores = NDArray[np.float32]
    Item = bytes | memoryview | NDArray[Any]
    T = TypeVar("T")

__all__ = [
    "classify_all",
    "decode_json",
    "from_base64",
    "numbers",
    "split_batch",
    "tensor",
]

_FLOAT32: Final = np.dtype("<f4")


def decode_json(data: bytes | memoryview | msgspec.Raw, kind: type[T], what: str) -> T:
    """Decode JSON into a type.

    Args:
        what: the name of the JSON in errors.

    Raises:
        InvalidRequest: it is not valid JSON, or not of that type.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{what} is not valid: {error}") from error


def from_base64(text: object, what: str) -> bytes:
    """The bytes of a base64 string, with or without its padding. Raises `InvalidRequest`."""
    if not isinstance(text, str):
        raise InvalidRequest(f"{what} is not a string: an image in JSON is a base64 string")
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError as error:  # other characters among them
        raise InvalidRequest(f"{what} is not base64: {error}") from error


def numbers(values: object, dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    """Numbers of nested JSON lists, as an array.

    Raises:
        InvalidRequest: ragged or too deeply nested lists, an item that is not a number, or a number
            that is too large for the type.
    """
    try:
        with np.errstate(over="raise"):
            return np.asarray(values, dtype=dtype)
    except (ValueError, TypeError, OverflowError, FloatingPointError, RecursionError) as error:
        raise InvalidRequest(f"{what} cannot be read as {dtype.name}: {error}") from error


def split_batch(array: NDArray[Any], config: ImageConfig, what: str) -> list[NDArray[Any]]:
    """The images of a tensor with four axes, `[N, ...]`, or the one image of a tensor with three.

    uint8 is pixels, `[N, height, width, 1 or 3]`; every other type becomes float32, as the model
    itself takes it.

    Raises:
        InvalidRequest: another number of axes, pixels with another last axis, or numbers that are
            not finite as float32.
        ImageTooLarge: more pixels than the limit.
    """
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise InvalidRequest(
            f"{what} has shape {list(array.shape)}: an image has three axes, a batch of them four, "
            "and none is empty"
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
        with np.errstate(over="ignore"):
            array = array.astype(_FLOAT32, copy=False)
        if not np.isfinite(array).all():
            raise InvalidRequest(f"{what} has numbers that are not finite as float32")
    return [array] if array.ndim == 3 else list(array)


def tensor(data: memoryview, dtype: np.dtype[Any], shape: Sequence[int], what: str) -> NDArray[Any]:
    """An array over bytes, not copied. Raises `InvalidRequest` for another number of bytes."""
    expected = prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise InvalidRequest(
            f"{what} has {len(data):,} bytes, but {dtype.name} {list(shape)} has {expected:,}"
        )
    return np.frombuffer(data, dtype).reshape(shape)


async def classify_all(
    served: ServedVersion,
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
    engine = served.engine

    async def one(item: Item) -> Outcome:
        if isinstance(item, np.ndarray):
            return await engine.infer(item, deadline=deadline)
        return await engine.classify(item, deadline=deadline)

    try:
        async with asyncio.timeout_at(deadline):
            if len(items) == 1:
                outcomes: Sequence[Outcome | BaseException] = [await one(items[0])]
            else:
                outcomes = await asyncio.gather(*map(one, items), return_exceptions=True)
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


def _named(error: FingerpostError, name: str) -> FingerpostError:
    return type(error)(f"{name}: {error.message}", retry_after_s=error.retry_after_s)
