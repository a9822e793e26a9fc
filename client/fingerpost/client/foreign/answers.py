"""The labels and scores in a foreign worker's answer. Pure.

`v2` and `tfserving` say what their tensors are. Of other servers any JSON is read that has labels
and scores in one of these forms, at most `_DEPTH` levels down:

- `{"daisy": 0.98, "rose": 0.02}`, as TorchServe answers;
- `[["daisy", 0.98], ...]`, as Fingerpost and the article's server answer;
- `{"label": "daisy", "score": 0.98}`, or a list of them; also `class`, `name`, `category`, and
  `probability`, `confidence`, `prob`. Without a score it counts as 1;
- `{"labels": [...], "scores": [...]}`;
- `[0.98, 0.02]`, with labels from the metadata or `ClientConfig.labels`, else their numbers;
- any of these inside a list of one, or under a key such as `predictions` or `result`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fingerpost.client.wire import Prediction
from fingerpost.errors import BadAnswer

if TYPE_CHECKING:
    from collections.abc import Sequence, Sized

    from fingerpost.client.foreign.metadata import ForeignModel

__all__ = ["read_predictions"]

_DEPTH: Final = 6
# More classes than any classifier's: ImageNet's largest has 21,841, and reading takes 1 us each.
_MAX_SCORES: Final = 200_000
_LABEL_KEYS: Final = ("label", "class_name", "class", "category", "name")
_SCORE_KEYS: Final = ("score", "probability", "confidence", "prob", "value")
_LISTS: Final = (("labels", "scores"), ("classes", "scores"), ("labels", "probabilities"))
_INSIDE: Final = ("predictions", "results", "result", "prediction", "outputs", "output", "data",
                  "scores", "probabilities")  # fmt: skip
# Rounding of float16 and of a sum of many; more is not a probability.
_TOLERANCE: Final = 1e-3


class _NotReadError(Exception):
    """The answer has no labels and scores in a known form."""


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
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadAnswer(f"{peer}: its answer is not JSON: {body[:200]!r}") from error
    try:
        match model.protocol:
            case "v2":
                found = _v2(value, model, labels)
            case "tfserving":
                found = _tfserving(value, model, labels)
            case _:
                found = _any(value, model, labels, _DEPTH)
    except _NotReadError as why:
        raise BadAnswer(f"{peer}: {why}: {body[:200]!r}") from why
    if not found:
        raise BadAnswer(f"{peer}: its answer has no labels: {body[:200]!r}")
    return tuple(sorted(found, key=lambda each: -each.score)[:top])


def _row(
    scores: Any, model: ForeignModel, labels: Sequence[str], name: str = "scores"
) -> list[Prediction]:
    """The labels of one row of scores."""
    if isinstance(scores, list):
        _check_count(scores)
    if not isinstance(scores, list) or not scores or not all(map(_is_number, scores)):
        raise _NotReadError(f"{name} is not a row of numbers")
    numbers = [float(each) for each in scores]
    if not all(map(math.isfinite, numbers)):
        raise _NotReadError(f"{name} has a number that is not finite")
    if labels and len(labels) != len(numbers):
        raise _NotReadError(
            f"{name} has {len(numbers)} scores for {len(labels)} labels (metadata labels, or "
            "ClientConfig.labels)"
        )
    if model.logits:
        most = max(numbers)
        powers = [math.exp(each - most) for each in numbers]
        total = sum(powers)
        numbers = [each / total for each in powers]
    elif min(numbers) < -_TOLERANCE or max(numbers) > 1 + _TOLERANCE:
        raise _NotReadError(
            f"{name} has scores from {min(numbers):g} to {max(numbers):g}, which are not "
            "probabilities: if they are logits, say so in the metadata (scores=logits)"
        )
    names = labels or [str(each) for each in range(len(numbers))]
    return [Prediction(*each) for each in zip(names, numbers, strict=True)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_count(values: Sized) -> None:
    if len(values) > _MAX_SCORES:
        raise _NotReadError(f"it has {len(values)} scores, more than {_MAX_SCORES}")


def _flat(value: Any) -> list[Any]:
    """The items of lists in lists."""
    if not isinstance(value, list):
        return [value]
    if not any(isinstance(each, list) for each in value):
        return value
    return [item for each in value for item in _flat(each)]


# The Open Inference Protocol


def _v2(value: Any, model: ForeignModel, labels: Sequence[str]) -> list[Prediction]:
    outputs = value.get("outputs") if isinstance(value, dict) else None
    named = {
        each["name"]: each
        for each in (outputs if isinstance(outputs, list) else ())
        if isinstance(each, dict) and isinstance(each.get("name"), str)
    }
    if not named:
        raise _NotReadError("its answer has no outputs")
    name = model.output or next(iter(named))
    if name not in named:
        raise _NotReadError(f"it has no output {name!r}, but {', '.join(named)}")
    output = named[name]
    shape, data = output.get("shape"), _flat(output.get("data"))
    if not isinstance(shape, list) or not all(type(each) is int for each in shape):
        raise _NotReadError(f"output {name!r} has the shape {shape!r}")
    _check_count(data)
    count = math.prod(shape)
    if count != len(data):
        raise _NotReadError(f"output {name!r} has the shape {shape} and {len(data)} numbers")
    if not shape or math.prod(shape[:-1]) != 1:
        raise _NotReadError(f"output {name!r} has the shape {shape}, not [1, classes]")
    if output.get("datatype") == "BYTES":
        return [_class_text(str(each), name) for each in data]
    return _row(data, model, labels, f"output {name!r} of shape {shape}")


def _class_text(text: str, name: str) -> Prediction:
    """`value:index[:label]`, of Triton's classification extension."""
    value, _, rest = text.partition(":")
    index, _, label = rest.partition(":")
    try:
        return Prediction(label or index, float(value))
    except ValueError:
        raise _NotReadError(f"output {name!r} has {text[:80]!r}, not value:index:label") from None


# TensorFlow Serving


def _tfserving(value: Any, model: ForeignModel, labels: Sequence[str]) -> list[Prediction]:
    rows = value.get("predictions") if isinstance(value, dict) else None
    if not isinstance(rows, list) or len(rows) != 1:
        raise _NotReadError("its answer has not one prediction for one image")
    row = rows[0]
    if isinstance(row, dict):
        return _named_outputs(row, model, labels)
    return _row(row, model, labels, "predictions[0]")


def _named_outputs(
    row: dict[str, Any], model: ForeignModel, labels: Sequence[str]
) -> list[Prediction]:
    if model.output:
        if model.output not in row:
            raise _NotReadError(f"it has no output {model.output!r}, but {', '.join(row)}")
        return _row(row[model.output], model, labels, f"output {model.output!r}")
    scores, classes = row.get("scores"), row.get("classes")
    if isinstance(scores, list) and isinstance(classes, list):
        _check_count(classes)
        names = [str(each) for each in classes]
        return _row(scores, model, names, "output 'scores'")
    for name, each in row.items():
        if isinstance(each, list):
            return _row(each, model, labels, f"output {name!r}")
    raise _NotReadError(f"its outputs {', '.join(row)} are not scores")


# Any JSON


def _any(value: Any, model: ForeignModel, labels: Sequence[str], left: int) -> list[Prediction]:
    if isinstance(value, dict | list):
        _check_count(value)
    if left and isinstance(value, dict):
        return _object(value, model, labels, left)
    if left and isinstance(value, list) and value:
        return _array(value, model, labels, left)
    raise _NotReadError("its JSON has no labels and scores in a known form (docs/foreign.md)")


def _object(
    value: dict[str, Any], model: ForeignModel, labels: Sequence[str], left: int
) -> list[Prediction]:
    single = _single(value)
    if single is not None:
        return [single]
    for first, second in _LISTS:
        if isinstance(value.get(first), list) and isinstance(value.get(second), list):
            _check_count(value[first])
            names = [str(each) for each in value[first]]
            return _row(_numeric(value[second]), model, names, second)
    for key in _INSIDE:
        if isinstance(value.get(key), dict | list):
            return _any(value[key], model, labels, left - 1)
    numbers = _numeric(list(value.values()))
    if numbers and all(map(_is_number, numbers)):
        return _row(numbers, model, list(value))
    if isinstance(value.get("error"), str):
        raise _NotReadError("it answered an error")
    inside = [each for each in value.values() if isinstance(each, dict | list)]
    return _any(inside[0] if len(inside) == 1 else None, model, labels, left - 1)


def _array(
    value: list[Any], model: ForeignModel, labels: Sequence[str], left: int
) -> list[Prediction]:
    if all(map(_is_number, value)):
        return _row(value, model, labels)
    pairs = [each for each in value if isinstance(each, list) and len(each) == 2]
    if len(pairs) == len(value) and all(isinstance(each[0], str) for each in pairs):
        scores = _numeric([each[1] for each in pairs])
        return _row(scores, model, [each[0] for each in pairs])
    if len(value) == 1:
        return _any(value[0], model, labels, left - 1)
    singles = [_single(each) for each in value]
    found = [each for each in singles if each is not None]
    if len(found) != len(value):
        return _any(None, model, labels, left)
    return _row([each.score for each in found], model, [each.label for each in found])


def _single(value: Any) -> Prediction | None:
    """The label and score of an object that is one prediction; None where it is not."""
    if not isinstance(value, dict):
        return None
    label = next((value[key] for key in _LABEL_KEYS if isinstance(value.get(key), str)), None)
    if label is None:
        return None
    scores = _numeric([value[key] for key in _SCORE_KEYS if key in value])
    score = next((float(each) for each in scores if _is_number(each)), 1.0)
    return Prediction(label, score) if math.isfinite(score) else None


def _numeric(values: list[Any]) -> list[Any]:
    """Numbers that are written as text, as numbers; everything else as it is."""
    found: list[Any] = []
    for each in values:
        try:
            found.append(float(each) if isinstance(each, str) else each)
        except ValueError:
            found.append(each)
    return found
