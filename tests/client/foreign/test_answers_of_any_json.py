"""Whatever JSON a foreign worker answers: a right reading, or its typed error; no wrong label."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from fingerpost.client.foreign.answers import read_predictions
from fingerpost.client.foreign.boxes import ImageFrame
from fingerpost.client.foreign.metadata import TASKS, ForeignModel
from fingerpost.client.foreign.tasks import read_task
from fingerpost.client.wire import Prediction
from fingerpost.errors import BadAnswer

PEER = "10.0.0.7:9000"
PROTOCOLS = ("form", "torchserve", "v2", "tfserving")
RIGHT = {"daisy": 0.25, "rose": 0.75}
LABELS = tuple(RIGHT)
FRAME = ImageFrame(width=100, height=60, orientation=6)

KEYS = st.sampled_from((
    "labels", "scores", "classes", "probabilities", "label", "class", "name", "category", "score",
    "probability", "confidence", "value", "predictions", "results", "result", "prediction",
    "outputs", "output", "data", "shape", "datatype", "boxes", "error", "version", "status",
    "took_ms", "daisy", "rose", "",
))  # fmt: skip
TEXTS = ("daisy", "rose", "x", "0.25", "1", "nan", "inf", "1e999", "1_0", "", "FP32", "INT64",
         "BYTES", "0.75:1:rose", "0.25:0", "a:b", "é")  # fmt: skip
LEAVES = (
    st.sampled_from((None, True, False, 0, 1, 2, -1, 0.25, 0.75, 0.5, 7.5, 1e300, 10**30, *TEXTS))
    | st.floats(0, 1)
    | st.integers(-3, 3)
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=14,
)


def read(
    value: object, protocol: str, labels: tuple[str, ...] = (), **meta: Any
) -> dict[str, float]:
    model = ForeignModel(protocol=protocol, path="/", **meta)
    return dict(read_predictions(model, json.dumps(value).encode(), labels, 9, PEER))


def texts_of(value: object) -> Iterator[str]:
    """All texts and keys in a value."""
    match value:
        case str():
            yield from (value, *value.split(":"))
        case list():
            for each in value:
                yield from texts_of(each)
        case dict():
            for key, each in value.items():
                yield key
                yield from texts_of(each)


# Of an answer's form, not of a class.
NEVER = {
    "labels", "scores", "score", "label", "probability", "confidence", "value", "predictions",
    "error", "results", "result", "output", "outputs", "data", "version", "status", "probabilities",
}  # fmt: skip


@settings(max_examples=examples(400))
@given(value=JSON, protocol=st.sampled_from(PROTOCOLS), known=st.booleans(), logits=st.booleans())
@example({"labels": {"daisy": 0.2, "rose": 0.8}, "scores": "x"}, "form", False, False)
def test_predictions_are_labels_with_scores_or_an_error(
    value: object, protocol: str, known: bool, logits: bool
) -> None:
    labels = LABELS if known else ()
    try:
        found = read(value, protocol, labels, logits=logits)
    except BadAnswer as error:
        assert error.retryable
        assert str(error).startswith(f"{PEER}: ")
        return
    assert found
    said = set(texts_of(value))
    for label, score in found.items():
        assert -0.001 <= score <= 1.001
        assert label in labels or label.isdigit() or label in said
        assert label not in NEVER


@settings(max_examples=examples(150))
@given(
    value=JSON,
    outputs=st.lists(
        st.fixed_dictionaries({
            "name": st.sampled_from(("boxes", "scores", "classes", "x")) | LEAVES,
            "shape": st.lists(st.integers(-1, 4) | LEAVES, max_size=3) | JSON,
            "datatype": st.sampled_from(("FP32", "INT64", "BYTES", "BOOL", "UINT8")) | JSON,
            "data": st.lists(LEAVES, max_size=8) | JSON,
        }),
        max_size=3,
    ),
    task=st.sampled_from(TASKS[1:]),
    tfserving=st.booleans(),
)  # fmt: skip
def test_every_task_is_typed_or_an_error(
    value: object, outputs: list[object], task: str, tfserving: bool
) -> None:
    protocol = "tfserving" if tfserving else "v2"
    model = ForeignModel(protocol=protocol, path="/", task=task)
    for answer in (value, {"outputs": outputs}, {"predictions": [value]}):
        body = json.dumps(answer).encode()
        try:
            found = read_task(model, body, LABELS, FRAME, PEER, ("m", "1")).typed
        except BadAnswer as error:
            assert error.retryable
            assert str(error).startswith(f"{PEER}: ")
        else:
            assert type(found).__name__.lower() == ("jsonanswer" if task == "json" else task)


FORMS: dict[str, tuple[str, Any]] = {
    "object": ("form", RIGHT),
    "texts": ("torchserve", {"daisy": "0.25", "rose": "0.75"}),
    "pairs": ("form", [["daisy", 0.25], ["rose", 0.75]]),
    "objects": ("form", [{"label": "daisy", "score": 0.25}, {"label": "rose", "score": 0.75}]),
    "lists": ("form", {"labels": ["daisy", "rose"], "scores": [0.25, 0.75]}),
    "inside": ("form", {"predictions": [{"class": k, "prob": v} for k, v in RIGHT.items()]}),
    "two inside": ("form", {"result": {"data": RIGHT}, "took_ms": 7}),
    "of its own": ("form", {"flowers": [{"label": k, "score": v} for k, v in RIGHT.items()]}),
    "its own": ("form", {"model": "m", "version": "3", "results": [
        {"name": "a.jpg", "predictions": [["daisy", 0.25], ["rose", 0.75]],
         "timings_ms": {"run": 0.5}}]}),
    "v2": ("v2", {"outputs": [{"name": "classes", "datatype": "BYTES", "shape": [2],
        "data": ["0.25:0:daisy", "0.75:1:rose"]}]}),
    "tfserving": ("tfserving",
        {"predictions": [{"scores": [0.25, 0.75], "classes": ["daisy", "rose"]}]}),
}  # fmt: skip
WRONG = (None, True, {}, [], "high", [[]], {"x": "y"}, 10**9)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a value, itself too."""
    yield path
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(each, dict | list):
            yield from places(each, (*path, key))
        else:
            yield (*path, key)


@pytest.mark.parametrize("form", FORMS)
def test_a_right_answer_with_a_wrong_value_is_right_or_an_error(form: str) -> None:
    protocol, answer = FORMS[form]
    assert read(answer, protocol) == RIGHT
    for path in places(answer):
        for wrong in WRONG:
            changed = copy.deepcopy({"": answer})
            *above, last = ("", *path)
            inner: Any = changed
            for key in above:
                inner = inner[key]
            old, inner[last] = inner[last], wrong
            if isinstance(old, str) and wrong == "high":
                continue  # a label of another name
            try:
                found = read(changed[""], protocol)
            except BadAnswer as error:
                assert str(error).startswith(f"{PEER}: ")
            else:
                assert found == RIGHT, (path, wrong)


@pytest.mark.parametrize(
    ("value", "protocol", "says"),
    [
        ({"labels": {"a": 0.2}, "scores": "x"}, "form", "'labels' is an object, not a list"),
        ({"labels": ["a"], "scores": "x"}, "form", "'scores' is a text, not a list"),
        ({"labels": ["a", None], "scores": [0.5, 0.5]}, "form", "'labels' has null, not a label"),
        ({"label": "a", "score": "high"}, "form", "'score' is a text, not a number"),
        ({"label": "a", "score": None}, "form", "'score' is null, not a number"),
        ({"label": "a", "score": 98.2}, "form", "scores from 98.2 to 98.2"),
        ({"score": 0.9}, "form", "'score' has a number, and is not the name of a label"),
        ({"version": "1"}, "form", "'version' has a number"),
        ({"prediction": "rose"}, "form", "'prediction' is a text, not a list or an object"),
        ({"embedding": [0.1, 0.2]}, "form", "'embedding' is not a key for scores: use predictions"),
        ({"timings": {"decode": 0.2, "run": 0.3}}, "form", "'timings' is not a key for scores"),
        ({"name": "resnet", "version": "x"}, "form", "no labels and scores in a known form"),
        ({"label": "a", "error": "out of memory"}, "form", "it answered an error"),
        ({"outputs": [{"name": "a"}, {"name": "b"}]}, "v2", "outputs a, b: name one"),
        ({"outputs": [{"name": "a"}, {"name": "a"}]}, "v2", "or that of another one"),
        ({"predictions": [{"a": [0.1], "b": [0.2]}]}, "tfserving", "name one in the metadata"),
        ({"predictions": [{"classes": "x", "scores": [1]}]}, "tfserving", "'classes' is a text"),
    ],
    ids=lambda each: str(each)[:50],
)  # fmt: skip
def test_an_error_names_the_key_and_what_is_expected(
    value: object, protocol: str, says: str
) -> None:
    with pytest.raises(BadAnswer) as caught:
        read(value, protocol)
    assert says in str(caught.value)


def test_a_class_may_be_a_number() -> None:
    answer = [{"class": 1, "score": 0.75}, {"class": 0, "score": 0.25}]
    assert read(answer, "form", LABELS) == RIGHT
    assert read(answer, "form") == {"1": 0.75, "0": 0.25}
    with pytest.raises(BadAnswer, match="'class' has class 7, of 2 labels"):
        read({"class": 7, "score": 0.75}, "form", LABELS)
    with pytest.raises(BadAnswer, match="'cpu' is not one of the 2 labels"):
        read({"cpu": 0.2, "gpu": 0.8}, "form", LABELS)


def test_best_first_of_many() -> None:
    model = ForeignModel(protocol="form", path="/")
    body = json.dumps({"data": [{"label": str(n), "score": n / 100} for n in range(9)]}).encode()
    assert read_predictions(model, body, (), 2, PEER) == (
        Prediction("8", 0.08), Prediction("7", 0.07),
    )  # fmt: skip
