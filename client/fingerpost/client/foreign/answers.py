"""The labels and scores in a foreign worker's answer. Pure.

`v2` and `tfserving` say what their tensors are; of other servers any JSON is read that `any_json`
knows. A wrong label is worse than none: what could mean two things is an error that names the key.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fingerpost.client.foreign.any_json import read_any
from fingerpost.client.foreign.rows import check_count, labels_of, read_row
from fingerpost.client.foreign.values import (
    NotReadError,
    answered_json,
    flat_items,
    kind_of,
    number_of,
    only_output,
)
from fingerpost.errors import BadAnswer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.client.foreign.metadata import ForeignModel
    from fingerpost.client.wire import Prediction

__all__ = ["read_predictions"]


def read_predictions(
    model: ForeignModel, body: bytes, labels: Sequence[str], top: int, peer: str
) -> tuple[Prediction, ...]:
    """The best `top` labels with their scores, best first.

    Args:
        model: whose answer it is.
        body: JSON.
        labels: of the scores, where the answer has none; empty if they are not known.
        top: how many.
        peer: the worker's address, for errors.

    Raises:
        BadAnswer: it is not JSON, an error, or has no labels and scores; or a tensor has another
            shape than its data or the labels, or is not of probabilities.
    """
    value = answered_json(body, peer)
    try:
        match model.protocol:
            case "v2":
                found = _v2(value, model, labels)
            case "tfserving":
                found = _tfserving(value, model, labels)
            case _:
                found = read_any(value, model, labels)
    except NotReadError as why:
        raise BadAnswer(f"{peer}: {why}: {body[:200]!r}") from why
    if not found:
        raise BadAnswer(f"{peer}: its answer has no labels: {body[:200]!r}")
    return tuple(sorted(found, key=lambda each: -each.score)[:top])


# The Open Inference Protocol


def _v2(value: Any, model: ForeignModel, labels: Sequence[str]) -> list[Prediction]:
    outputs = value.get("outputs") if isinstance(value, dict) else None
    named: dict[str, dict[str, Any]] = {}
    for each in outputs if isinstance(outputs, list) else ():
        name = each.get("name") if isinstance(each, dict) else None
        if not isinstance(name, str) or name in named:
            raise NotReadError("an output has no name, or that of another one")
        named[name] = each
    if not named:
        raise NotReadError("its answer has no outputs")
    name = only_output(named, model.output)
    output = named[name]
    shape, data = output.get("shape"), output.get("data")
    if not isinstance(data, list):
        raise NotReadError(f"output {name!r}: its data is {kind_of(data)}, not a list")
    data = flat_items(data, f"output {name!r}")
    if not isinstance(shape, list) or not all(type(each) is int and each >= 0 for each in shape):
        raise NotReadError(f"output {name!r} has the shape {str(shape)[:80]}")
    check_count(data)
    count = math.prod(shape)
    if count != len(data):
        raise NotReadError(f"output {name!r} has the shape {shape} and {len(data)} numbers")
    if not shape or math.prod(shape[:-1]) != 1:
        raise NotReadError(f"output {name!r} has the shape {shape}, not [1, classes]")
    if output.get("datatype") == "BYTES":
        return _class_texts(data, model, labels, name)
    return read_row(data, model, labels, f"output {name!r} of shape {shape}")


def _class_texts(
    texts: list[Any], model: ForeignModel, labels: Sequence[str], name: str
) -> list[Prediction]:
    """`value:index[:label]` of each class, of Triton's classification extension."""
    scores: list[float] = []
    found: list[str] = []
    for text in texts:
        value, _, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
        index, _, label = rest.partition(":")
        score = number_of(value)
        if not isinstance(score, float) or not (index.isascii() and index.isdigit()):
            raise NotReadError(f"output {name!r} has {str(text)[:80]!r}, not value:index:label")
        scores.append(score)
        found += [label] if label else labels_of([int(index[:9])], labels, f"output {name!r}")
    if model.logits:
        raise NotReadError(
            f"output {name!r} has classes, not logits: leave scores=logits out of the metadata"
        )
    return read_row(scores, model, found, f"output {name!r}")


# TensorFlow Serving


def _tfserving(value: Any, model: ForeignModel, labels: Sequence[str]) -> list[Prediction]:
    rows = value.get("predictions") if isinstance(value, dict) else None
    if not isinstance(rows, list) or len(rows) != 1:
        raise NotReadError("its answer has not one prediction for one image")
    row = rows[0]
    if not isinstance(row, dict):
        return read_row(row, model, labels, "predictions[0]")
    if not model.output and "scores" in row and "classes" in row:
        classes = row["classes"]
        if not isinstance(classes, list):
            raise NotReadError(f"output 'classes' is {kind_of(classes)}, not a list")
        check_count(classes)
        names = labels_of(classes, labels, "output 'classes'")
        return read_row(row["scores"], model, names, "output 'scores'")
    lists = {name: each for name, each in row.items() if isinstance(each, list)}
    if not lists and not model.output:
        raise NotReadError(f"its outputs {', '.join(row)[:80]} are not scores")
    name = only_output(row if model.output else lists, model.output)
    return read_row(row[name], model, labels, f"output {name!r}")
