"""Reads the answer to one image's inference, as a typed result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fingerpost.client.tasks.arrays import array_of
from fingerpost.client.tasks.results import (
    Classification,
    Detection,
    Embedding,
    Multilabel,
    Regression,
    Segmentation,
    TaskResult,
    Tensors,
)
from fingerpost.client.tasks.wire import InferAnswer, InferredImage
from fingerpost.errors import BadAnswer
from fingerpost.registry.peers.answer import decode_answer

if TYPE_CHECKING:
    from fingerpost.client.wire import Prediction

__all__ = ["Inference", "classification", "read_inference"]

_decoder: Final = msgspec.json.Decoder(InferAnswer)


class Inference(msgspec.Struct, frozen=True, kw_only=True):
    """An `InferAnswer` for one image, and its typed result."""

    model: str
    version: str
    results: tuple[InferredImage, ...]
    typed: TaskResult


def read_inference(header_length: bytes | None, body: bytes, address: str) -> Inference:
    """The inference in an answer with status 200.

    Args:
        header_length: the value of `wire.HEADER_FIELD`; None where the answer is JSON alone.
        body: the JSON, and the arrays behind it.
        address: names the peer in errors.

    Raises:
        BadAnswer: it is not an answer for one image, or of a task that this release does not know.
    """
    length = len(body)
    if header_length is not None:
        if not header_length.isdigit() or int(header_length) > length:
            raise BadAnswer(f"{address}: a JSON part of {header_length!r} bytes, of {length:,}")
        length = int(header_length)
    answer = decode_answer(_decoder, body[:length], address, "answer to an inference")
    if len(answer.results) != 1 or answer.results[0].error is not None:
        raise BadAnswer(f"{address}: not one result for one image: {body[:200]!r}")
    make = _MAKERS.get(answer.task)
    if make is None:
        raise BadAnswer(f"{address}: task {answer.task[:40]!r} is not known: upgrade this client")
    (image,) = answer.results
    try:
        arrays = _arrays(image, memoryview(body)[length:])
        typed = make(
            image,
            arrays,
            {
                "model": answer.model,
                "version": answer.version,
                "timings_ms": image.timings_ms,
            },
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise BadAnswer(f"{address}: not an answer of task {answer.task}: {error}") from error
    return Inference(
        model=answer.model, version=answer.version, results=answer.results, typed=typed
    )


def classification(model: str, version: str, predictions: tuple[Prediction, ...]) -> Inference:
    """The inference of a worker that says labels and scores, and nothing of a task."""
    image = InferredImage(name="data", predictions=predictions)
    typed = Classification(model=model, version=version, predictions=predictions)
    return Inference(model=model, version=version, results=(image,), typed=typed)


def _arrays(image: InferredImage, data: memoryview) -> dict[str, Any]:
    found = {}
    for head in image.outputs:
        size = head.parameters.binary_data_size
        found[head.name] = array_of(head.datatype, head.shape, data[:size])
        data = data[size:]
    if data:
        raise ValueError(f"{len(data):,} bytes behind its arrays")
    return found


def _segmentation(
    image: InferredImage, arrays: dict[str, Any], meta: Mapping[str, Any]
) -> TaskResult:
    return Segmentation(
        png=arrays["png"][0],
        classes=arrays["classes"],
        labels=image.labels,
        width=image.width,
        height=image.height,
        **meta,
    )


def _detection(image: InferredImage, arrays: dict[str, Any], meta: Mapping[str, Any]) -> TaskResult:
    boxes, scores, classes = (arrays[name] for name in ("boxes", "scores", "classes"))
    if not len(boxes) == len(scores) == len(classes) == len(image.labels):
        raise ValueError("its boxes, scores, classes and labels are not as many")
    return Detection(
        boxes=boxes,
        scores=scores,
        classes=classes,
        labels=image.labels,
        width=image.width,
        height=image.height,
        orientation=image.orientation,
        **meta,
    )


def _classification(
    image: InferredImage, arrays: dict[str, Any], meta: Mapping[str, Any]
) -> TaskResult:
    if not image.predictions:
        raise ValueError("no predictions")
    return Classification(predictions=image.predictions, **meta)


_MAKERS: Final[
    dict[str, Callable[[InferredImage, dict[str, Any], Mapping[str, Any]], TaskResult]]
] = {
    "classification": _classification,
    "multilabel": lambda image, _, meta: Multilabel(predictions=image.predictions, **meta),
    "embedding": lambda _, arrays, meta: Embedding(vector=arrays["embedding"], **meta),
    "regression": lambda image, arrays, meta: Regression(
        values=arrays["values"], labels=image.labels, **meta
    ),
    "detection": _detection,
    "segmentation": _segmentation,
    "tensors": lambda _, arrays, meta: Tensors(outputs=arrays, **meta),
}
