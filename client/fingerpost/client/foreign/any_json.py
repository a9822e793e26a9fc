"""Labels and scores in the JSON of a server with a form of its own. Pure.

These forms are read, at most `_DEPTH` levels down:

- `{"daisy": 0.98, "rose": 0.02}`, as TorchServe answers;
- `[["daisy", 0.98], ...]`, as Fingerpost and the article's server answer;
- `{"label": "daisy", "score": 0.98}`, or a list of them; also `class`, `name`, `category`, and
  `probability`, `confidence`, `prob`. Without a score it counts as 1. A class may be a number;
- `{"labels": [...], "scores": [...]}`;
- `[0.98, 0.02]`, with labels from the metadata or `ClientConfig.labels`, else their numbers;
- any of these inside a list of one, or under a key such as `predictions` or `result`. Under another
  key, which may be anything, it must be a label with its score, or a list of them; or the labels
  must be known.

Every key with a meaning has its form, or the answer is not read: `{"scores": "x"}` beside other
members is an error, and not a reason to look for labels elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fingerpost.client.foreign.rows import check_count, labels_of, read_row
from fingerpost.client.foreign.values import NotReadError, is_number, kind_of, number_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.client.foreign.metadata import ForeignModel
    from fingerpost.client.wire import Prediction

__all__ = ["read_any"]

_DEPTH: Final = 6
_LABEL_KEYS: Final = ("label", "class_name", "class", "category", "name")
_SCORE_KEYS: Final = ("score", "probability", "confidence", "prob", "value")
_LISTS: Final = (("labels", "scores"), ("classes", "scores"), ("labels", "probabilities"))
_INSIDE: Final = ("predictions", "results", "result", "prediction", "outputs", "output", "data",
                  "scores", "probabilities")  # fmt: skip
# What answers say of themselves: with a number behind it, it is not a label.
_ABOUT: Final = frozenset({
    *_LABEL_KEYS, *_SCORE_KEYS, *_INSIDE, "labels", "classes", "class_id", "code", "count",
    "duration", "elapsed", "error", "id", "index", "latency", "model_version", "ok", "request_id",
    "status", "status_code", "success", "time", "timestamp", "took", "top", "version",
})  # fmt: skip
_UNKNOWN: Final = "its JSON has no labels and scores in a known form (docs/foreign.md)"


def read_any(value: Any, model: ForeignModel, labels: Sequence[str]) -> list[Prediction]:
    """The labels with their scores, in the order of the answer.

    Args:
        value: JSON.
        model: says whether scores are logits.
        labels: of the scores; empty if they are not known.

    Raises:
        NotReadError: it has none in a known form.
    """
    return _Reader(model, labels).read(value, _DEPTH, "")


class _Single(NamedTuple):
    """One prediction of an object, and the key of its label."""

    key: str
    label: Any
    score: Any


class _Reader:
    def __init__(self, model: ForeignModel, labels: Sequence[str]) -> None:
        self._model = model
        self._labels = labels

    def read(self, value: Any, left: int, under: str) -> list[Prediction]:
        """What a value is; `under` is the key above it, if that has no meaning of its own."""
        if isinstance(value, dict | list):
            check_count(value)
        if left and isinstance(value, dict):
            return self._object(value, left, under)
        if left and isinstance(value, list) and value:
            return self._array(value, left, under)
        raise NotReadError(_UNKNOWN)

    def _object(self, value: dict[str, Any], left: int, under: str) -> list[Prediction]:
        if (error := value.get("error")) and not is_number(error):
            raise NotReadError("it answered an error")
        single = self._single(value, under)
        if single is not None:
            return self._singles([single])
        for first, second in _LISTS:
            if first in value and second in value:
                return self._lists(value, first, second)
        for key in _INSIDE:
            if key in value and not is_number(number_of(value[key])):
                if not isinstance(value[key], dict | list):
                    raise NotReadError(
                        f"{key!r} is {kind_of(value[key])}, not a list or an object of scores"
                    )
                return self.read(value[key], left - 1, under)
        numbers = [number_of(each) for each in value.values()]
        if numbers and all(map(is_number, numbers)):
            return self._named(value, numbers, under)
        inside = [key for key, each in value.items() if isinstance(each, dict | list)]
        if len(inside) != 1:
            raise NotReadError(_UNKNOWN)
        (key,) = inside
        return self.read(value[key], left - 1, key)

    def _lists(self, value: dict[str, Any], first: str, second: str) -> list[Prediction]:
        for key in (first, second):
            if not isinstance(value[key], list):
                raise NotReadError(
                    f"{key!r} is {kind_of(value[key])}, not a list, beside "
                    f"{second if key == first else first!r}"
                )
        check_count(value[first])
        names = labels_of(value[first], self._labels, repr(first))
        return read_row([number_of(each) for each in value[second]], self._model, names, second)

    def _named(self, value: dict[str, Any], numbers: list[Any], under: str) -> list[Prediction]:
        """Scores by their labels."""
        for key in value:
            if key in _ABOUT and key not in self._labels:
                raise NotReadError(f"{key!r} has a number, and is not the name of a label")
        self._check_labels(list(value), under)
        return read_row(numbers, self._model, list(value))

    def _check_labels(self, names: list[str], under: str) -> None:
        """Check the labels of a form that other things than scores could have, too.

        Raises:
            NotReadError: they are none of those that are known; or none are, and the key says
                nothing.
        """
        known = set(self._labels)
        if known:
            for name in names:
                if name not in known:
                    raise NotReadError(f"{name[:80]!r} is not one of the {len(known)} labels")
        elif under:
            self._check_under(under)

    def _check_under(self, under: str) -> None:
        if under and not self._labels:
            raise NotReadError(
                f"{under[:80]!r} is not a key for scores: use predictions or result, or give the "
                "labels (metadata labels, or ClientConfig.labels)"
            )

    def _array(self, value: list[Any], left: int, under: str) -> list[Prediction]:
        if all(map(is_number, value)):
            self._check_under(under)
            return read_row(value, self._model, self._labels)
        pairs = [each for each in value if isinstance(each, list) and len(each) == 2]
        if len(pairs) == len(value) and all(isinstance(each[0], str) for each in pairs):
            scores = [number_of(each[1]) for each in pairs]
            names = labels_of([each[0] for each in pairs], (), "a pair")
            found = read_row(scores, self._model, names)
            if under:
                self._check_labels(names, under)
            return found
        if len(value) == 1:
            return self.read(value[0], left - 1, under)
        singles = [self._single(each, under) for each in value if isinstance(each, dict)]
        good = [each for each in singles if each is not None]
        if len(good) != len(value):
            raise NotReadError(_UNKNOWN)
        return self._singles(good)

    def _singles(self, found: list[_Single]) -> list[Prediction]:
        names = labels_of([each.label for each in found], self._labels, repr(found[0].key))
        return read_row([each.score for each in found], self._model, names)

    def _single(self, value: dict[str, Any], under: str) -> _Single | None:
        """The label and score of an object that is one prediction; None where it is not.

        Raises:
            NotReadError: it has a label or a score, and the other is not one.
        """
        keys = [key for key in _LABEL_KEYS if key in value and _is_label(value[key])]
        scores = [key for key in _SCORE_KEYS if key in value]
        if not keys:
            return None
        key = keys[0]
        if under and not self._labels and (key == "name" or scores[:1] == ["value"]):
            return None  # a setting, for example
        if not scores:
            # A name may be that of the model or of the file, and more may be inside.
            inside = any(isinstance(each, dict | list) for each in value.values())
            if inside or not isinstance(value[key], str) or (key == "name" and len(value) > 1):
                return None
            if under and not self._labels:
                return None
            return _Single(key, value[key], 1.0)
        score = number_of(value[scores[0]])
        if not is_number(score):
            raise NotReadError(f"{scores[0]!r} is {kind_of(score)}, not a number, beside {key!r}")
        return _Single(key, value[key], score)


def _is_label(value: Any) -> bool:
    return (isinstance(value, str) and bool(value)) or type(value) is int
