"""A foreign worker's answer to an inference of another task than classification. Pure.

`v2` and `tfserving` answer tensors; what they mean is in the metadata (`task`). Every number is
checked: a server that is not ours may answer anything.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fingerpost.client.foreign.boxes import ImageFrame, sent_boxes
from fingerpost.client.foreign.values import (
    MAX_AXES,
    TOLERANCE,
    NotReadError,
    answered_json,
    flat_items,
    is_number,
    only_output,
)
from fingerpost.client.tasks.arrays import array_of_items
from fingerpost.client.tasks.inference import Inference
from fingerpost.client.tasks.results import (
    Detection,
    Embedding,
    JsonAnswer,
    Regression,
    TaskResult,
    Tensors,
)
from fingerpost.client.tasks.wire import DATATYPES, InferredImage
from fingerpost.errors import BadAnswer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.client.foreign.metadata import ForeignModel

__all__ = ["read_task"]

# As `max_answer_bytes` allows, at two bytes each.
_MAX_ITEMS: Final = 1 << 25


class _Tensor(NamedTuple):
    """An output without the axis of the batch: its numbers are flat."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any]

    @property
    def described(self) -> str:
        return f"output {self.name!r}, {self.datatype} {list(self.shape)}"


def read_task(
    model: ForeignModel,
    body: bytes,
    labels: Sequence[str],
    frame: ImageFrame | None,
    peer: str,
    names: tuple[str, str],
) -> Inference:
    """The typed answer for one item.

    Args:
        model: whose answer it is; its task is not classification.
        body: JSON.
        labels: of classes or numbers; empty if they are not known.
        frame: the image that was sent, for boxes.
        peer: the worker's address, for errors.
        names: of the model and its version.

    Raises:
        BadAnswer: it is not JSON, or has no tensors that the task can read; the message names the
            tensor and its shape.
    """
    value = answered_json(body, peer)
    meta: dict[str, Any] = {"model": names[0], "version": names[1]}
    try:
        if model.task == "json":
            typed: TaskResult = JsonAnswer(value=value, **meta)
        else:
            outputs = _v2(value) if model.protocol == "v2" else _tfserving(value)
            typed = _typed(model, outputs, labels, frame, meta)
    except (NotReadError, ValueError, OverflowError) as why:
        raise BadAnswer(f"{peer}: {why}: {body[:200]!r}") from why
    image = InferredImage(name="data")
    return Inference(model=names[0], version=names[1], results=(image,), typed=typed)


def _typed(
    model: ForeignModel,
    outputs: dict[str, _Tensor],
    labels: Sequence[str],
    frame: ImageFrame | None,
    meta: dict[str, Any],
) -> TaskResult:
    if model.task == "tensors":
        return Tensors(outputs={name: _array(each) for name, each in outputs.items()}, **meta)
    if model.task == "detection":
        return _detection(model, outputs, labels, frame, meta)
    row = outputs[only_output(outputs, model.output)]
    _check_finite(row)
    if math.prod(row.shape) != max(row.shape, default=1) or not row.data:
        raise NotReadError(f"{row.described} is not one row of numbers")
    array = array_of_items("FP32", (len(row.data),), row.data)
    if model.task == "embedding":
        return Embedding(vector=array, **meta)
    if labels and len(labels) != len(row.data):
        raise NotReadError(f"{row.described} has not as many numbers as {len(labels)} labels")
    return Regression(values=array, labels=tuple(labels), **meta)


def _detection(
    model: ForeignModel,
    outputs: dict[str, _Tensor],
    labels: Sequence[str],
    frame: ImageFrame | None,
    meta: dict[str, Any],
) -> TaskResult:
    if frame is None:
        raise NotReadError("boxes need one image, not named inputs")
    boxes, scores, classes = (outputs[only_output(outputs, name)] for name in model.detection)
    count = len(scores.data)
    for each, shape in ((boxes, (count, 4)), (scores, (count,)), (classes, (count,))):
        sides = tuple(side for side in each.shape if side != 1)
        if len(each.data) != math.prod(shape) or sides != tuple(s for s in shape if s != 1):
            raise NotReadError(f"{each.described} is not {list(shape)}")
        _check_finite(each)
    if count and not -TOLERANCE <= min(scores.data) <= max(scores.data) <= 1 + TOLERANCE:
        raise NotReadError(f"{scores.described} has scores that are not from 0 to 1")
    numbers = [int(each) - model.first_class for each in classes.data]
    if any(int(each) != each for each in classes.data):
        raise NotReadError(f"{classes.described} has classes that are not whole numbers")
    highest = len(labels) - 1 if labels else 2**31
    if numbers and not 0 <= min(numbers) <= max(numbers) <= highest:
        raise NotReadError(
            f"{classes.described} has class {max(numbers, key=abs)} (first_class is "
            f"{model.first_class}), but the classes are 0 to {highest}"
        )
    order = sorted(range(count), key=lambda each: -scores.data[each])
    sent = sent_boxes(model, [boxes.data[4 * each : 4 * each + 4] for each in order], frame)
    return Detection(
        boxes=array_of_items("FP32", (count, 4), [edge for box in sent for edge in box]),
        scores=array_of_items("FP32", (count,), [scores.data[each] for each in order]),
        classes=array_of_items("INT64", (count,), [numbers[each] for each in order]),
        labels=tuple(labels[numbers[e]] if labels else str(numbers[e]) for e in order),
        width=frame.width,
        height=frame.height,
        orientation=frame.orientation,
        **meta,
    )


def _check_finite(tensor: _Tensor) -> None:
    if not all(is_number(each) and math.isfinite(each) for each in tensor.data):
        raise NotReadError(f"{tensor.described} has something else than finite numbers")


def _array(tensor: _Tensor) -> Any:
    if tensor.datatype == "BYTES":
        data = [each.encode() if isinstance(each, str) else each for each in tensor.data]
        if not all(isinstance(each, bytes) for each in data):
            raise NotReadError(f"{tensor.described} has something else than texts")
        return array_of_items("BYTES", tensor.shape, data)
    if not all(isinstance(each, int | float) for each in tensor.data):
        raise NotReadError(f"{tensor.described} has something else than numbers")
    if tensor.datatype == "BOOL" and not all(each in (0, 1) for each in tensor.data):
        raise NotReadError(f"{tensor.described} has something else than truth values")
    if "INT" in tensor.datatype and not all(each == int(each) for each in tensor.data):
        raise NotReadError(f"{tensor.described} has something else than whole numbers")
    return array_of_items(tensor.datatype, tensor.shape, tensor.data)


def _v2(value: Any) -> dict[str, _Tensor]:
    listed = value.get("outputs") if isinstance(value, dict) else None
    found: dict[str, _Tensor] = {}
    for each in listed if isinstance(listed, list) else ():
        name = each.get("name") if isinstance(each, dict) else None
        if not isinstance(name, str) or name in found:
            raise NotReadError("an output has no name, or that of another one")
        shape, datatype, data = each.get("shape"), each.get("datatype"), each.get("data")
        if not isinstance(datatype, str) or datatype not in (*DATATYPES, "BYTES"):
            raise NotReadError(f"output {name!r} has the datatype {str(datatype)[:40]!r}")
        if (
            not isinstance(shape, list)
            or len(shape) > MAX_AXES
            or not all(type(side) is int and side >= 0 for side in shape)
        ):
            raise NotReadError(f"output {name!r} has the shape {str(shape)[:80]}")
        if not isinstance(data, list):
            raise NotReadError(f"output {name!r} has no data")
        flat = flat_items(data, f"output {name!r}")
        if math.prod(shape) != len(flat):
            raise NotReadError(f"output {name!r} has the shape {shape} and {len(flat)} numbers")
        if math.prod(side or 1 for side in shape) > _MAX_ITEMS:
            raise NotReadError(f"output {name!r} has the shape {str(shape)[:80]} and no numbers")
        one = len(shape) > 1 and shape[0] == 1
        found[name] = _Tensor(name, datatype, tuple(shape[1:] if one else shape), flat)
    if not found:
        raise NotReadError("its answer has no outputs")
    return found


def _tfserving(value: Any) -> dict[str, _Tensor]:
    rows = value.get("predictions") if isinstance(value, dict) else None
    if not isinstance(rows, list) or len(rows) != 1:
        raise NotReadError("its answer has not one prediction for one item")
    named = rows[0] if isinstance(rows[0], dict) else {"output": rows[0]}
    if not named:
        raise NotReadError("its answer has no outputs")
    return {name: _nested(name, each) for name, each in named.items()}


def _nested(name: str, value: Any) -> _Tensor:
    """A tensor of nested lists, whose type is that of its items."""
    shape: list[int] = []
    flat = [value]
    while flat and isinstance(flat[0], list):
        lengths = {len(each) if isinstance(each, list) else -1 for each in flat}
        if len(lengths) != 1 or len(shape) == MAX_AXES:
            raise NotReadError(f"output {name!r} is ragged")
        shape.append(lengths.pop())
        flat = [item for each in flat for item in each]
    kinds = {type(each) for each in flat}
    datatype = "FP32" if kinds <= {int, float} else "BOOL" if kinds == {bool} else "BYTES"
    if kinds == {int}:
        datatype = "INT64"
    return _Tensor(name, datatype, tuple(shape), flat)
