"""Models of several inputs and outputs by the v2 protocol: each tensor by its name."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fingerpost.errors import DeadlineExceeded, FingerpostError, ImageTooLarge, InvalidRequest
from fingerpost.worker.tasks.answer import lists_of, tensor_entry
from fingerpost.worker.tasks.items import AnswerOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from fingerpost.worker.serving.routes import Admitted
    from fingerpost.worker.tasks.answer import TaskAnswer
    from fingerpost.worker.tasks.engine import TaskEngine

    Part = bytes | memoryview | NDArray[Any]

__all__ = ["items_of", "run_items", "run_tensors", "stacked", "write_tensors"]

_RAW: Final = AnswerOptions(raw=True)
# From here on numbers are written as JSON in a thread: a millisecond.
_MANY: Final = 1 << 14


async def run_tensors(
    admitted: Admitted,
    engine: TaskEngine,
    inputs: Mapping[str, Sequence[Part]],
    *,
    deadline: float,
    most: int,
) -> dict[str, NDArray[Any]]:
    """Run the items of a request together; return each output of the model, `[N, ...]`.

    Args:
        inputs: for each of the model's inputs its items, as many of each.
        deadline: by the loop's clock.
        most: how many items a request may have.

    Raises:
        InvalidRequest: not as many items of each input, or outputs of other shapes for each item.
        ImageTooLarge: more items than `most`.
        FingerpostError: that of the first item that fails.
    """
    found = await run_items(admitted, engine, items_of(inputs, most=most), deadline=deadline)
    return {name: stacked(name, found) for name in found[0].arrays}


async def run_items(
    admitted: Admitted,
    engine: TaskEngine,
    items: Sequence[Mapping[str, Part]],
    *,
    deadline: float,
) -> list[TaskAnswer]:
    """Run the items of a request together; return the outputs of each.

    Raises:
        FingerpostError: that of the first item that fails.
    """
    admitted.images = len(items)
    try:
        async with asyncio.timeout_at(deadline):
            answers: list[Any] = await asyncio.gather(
                *(
                    engine.answer(item, _RAW, deadline=deadline, flow=admitted.flow)
                    for item in items
                ),
                return_exceptions=True,
            )
    except TimeoutError:
        raise DeadlineExceeded("the deadline passed before the request was answered") from None
    found: list[TaskAnswer] = []
    for place, each in enumerate(answers):
        if isinstance(each, FingerpostError):
            named = f"item {place}: {each.message}"
            raise type(each)(named, retry_after_s=each.retry_after_s) from None
        if isinstance(each, BaseException):
            raise each
        found.append(each[0])
    return found


def items_of(inputs: Mapping[str, Sequence[Part]], *, most: int) -> list[dict[str, Part]]:
    """The items of a request, each with its part of every input.

    Raises:
        InvalidRequest: not as many items of each input, or none.
        ImageTooLarge: more items than `most`.
    """
    counts = {name: len(each) for name, each in inputs.items()}
    count = max(counts.values(), default=0)
    if len(set(counts.values())) != 1 or not count:
        raise InvalidRequest(
            f"the inputs need as many items each, one or more; they have {counts}: the first axis "
            "of each is the items"
        )
    if count > most:
        raise ImageTooLarge(f"the request has {count:,} items: send {most} at a time at most")
    return [{name: each[place] for name, each in inputs.items()} for place in range(count)]


async def write_tensors(
    outputs: Mapping[str, NDArray[Any]], wishes: Sequence[tuple[str, bool]]
) -> tuple[list[dict[str, object]], list[bytes]]:
    """The entries of outputs, and the bytes of those that are wanted as bytes.

    Args:
        outputs: all of the model.
        wishes: names, and whether as bytes.

    Raises:
        InvalidRequest: the model has no such output.
    """
    entries: list[dict[str, object]] = []
    payloads = []
    for name, binary in wishes:
        value = outputs.get(name)
        if value is None:
            raise InvalidRequest(
                f"the model has no output {name[:255]!r}; it has {', '.join(outputs)}"
            )
        entry, blob = tensor_entry(name, value)
        if binary:
            entry["parameters"] = {"binary_data_size": len(blob)}
            payloads.append(blob)
        elif value.size > _MANY:
            entry["data"] = await asyncio.to_thread(value.ravel().tolist)
        else:
            entry["data"] = lists_of(value.ravel())
        entries.append(entry)
    return entries, payloads


def stacked(name: str, answers: Sequence[TaskAnswer]) -> NDArray[Any]:
    """An output of all items, `[N, ...]`. Raises `InvalidRequest` where the shapes differ."""
    values = [np.asarray(each.arrays[name]) for each in answers]
    shapes = {each.shape for each in values}
    if len(shapes) != 1:
        raise InvalidRequest(
            f"output {name!r} has the shapes {', '.join(str(list(s)) for s in sorted(shapes))} for "
            "the items of this request: send one item at a time"
        )
    return np.stack(values)
