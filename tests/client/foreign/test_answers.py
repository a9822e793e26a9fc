from __future__ import annotations

import json
import math

import pytest

from fingerpost.client.foreign.answers import read_predictions
from fingerpost.client.foreign.metadata import ForeignModel
from fingerpost.errors import BadAnswer

LABELS = ("daisy", "rose")


def read(value, protocol="form", labels=(), top=5, **changes):
    model = ForeignModel(protocol=protocol, path="/", **changes)
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return read_predictions(model, body, labels, top, "10.0.0.7:9000")


BEST = [("rose", 0.75), ("daisy", 0.25)]


@pytest.mark.parametrize(
    "value",
    [
        {"daisy": 0.25, "rose": 0.75},
        {"daisy": "0.25", "rose": "0.75"},
        [["daisy", 0.25], ["rose", 0.75]],
        [["daisy", "0.25"], ["rose", "0.75"]],
        [{"label": "daisy", "score": 0.25}, {"label": "rose", "score": 0.75}],
        [{"class": "daisy", "probability": 0.25}, {"class": "rose", "probability": 0.75}],
        {"predictions": [{"name": "rose", "confidence": 0.75}, {"name": "daisy", "prob": 0.25}]},
        {"labels": ["daisy", "rose"], "scores": [0.25, 0.75]},
        {"result": {"data": {"daisy": 0.25, "rose": 0.75}}, "took_ms": 7},
        [{"daisy": 0.25, "rose": 0.75}],
        {"flowers": {"daisy": 0.25, "rose": 0.75}, "model": "x"},
        [0.25, 0.75],
        [[0.25, 0.75]],
        {"predictions": [[0.25, 0.75]]},
    ],
    ids=str,
)
def test_any_json_with_labels_and_scores(value):
    assert list(read(value, labels=LABELS)) == BEST


MANY = [0.0] * 200_001


@pytest.mark.parametrize(
    ("value", "protocol"),
    [
        (MANY, "form"),
        (b"[%s]" % b",".join([b'["x",0]'] * len(MANY)), "form"),
        ({"labels": MANY, "scores": [1]}, "form"),
        ({"predictions": [{"classes": MANY, "scores": [1]}]}, "tfserving"),
        ({"predictions": [MANY]}, "tfserving"),
        ({"outputs": [{"name": "x", "shape": [1, len(MANY)], "data": [MANY]}]}, "v2"),
        (dict.fromkeys(map(str, range(len(MANY))), 0), "form"),
    ],
    ids=["row", "pairs", "labels", "classes", "predictions", "tensor", "object"],
)
def test_more_scores_than_any_classifier_has_are_not_read(value, protocol):
    with pytest.raises(BadAnswer, match="200001 scores, more than 200000"):
        read(value, protocol)


def test_one_label():
    assert read({"label": "rose", "score": 0.75}) == (("rose", 0.75),)
    assert read({"prediction": "x", "class": "rose"}) == (("rose", 1.0),)


def test_scores_without_labels_have_their_numbers():
    assert [each.label for each in read([0.1, 0.7, 0.2])] == ["1", "2", "0"]


def test_the_best_of_many():
    assert read({str(n): n / 100 for n in range(100)}, top=2) == (("99", 0.99), ("98", 0.98))


def v2(data, shape=(1, 2), datatype="FP32", name="probs", **more):
    output = {"name": name, "datatype": datatype, "shape": list(shape), "data": data}
    return {"model_name": "flowers", "outputs": [output, *more.values()]}


def test_v2():
    assert list(read(v2([0.25, 0.75]), "v2", LABELS)) == BEST
    assert list(read(v2([[0.25, 0.75]]), "v2", LABELS)) == BEST
    assert list(read(v2([0.25, 0.75], (2,)), "v2", LABELS)) == BEST
    classes = v2(["0.75:1:rose", "0.25:0:daisy"], datatype="BYTES")
    assert list(read(classes, "v2")) == BEST
    second = {"name": "scores", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]}
    answer = v2([7.0], (1, 1), name="embedding", second=second)
    assert list(read(answer, "v2", LABELS, output="scores")) == BEST


def test_tensorflow_serving():
    for value in (
        [[0.25, 0.75]],
        [{"probs": [0.25, 0.75]}],
        [{"scores": [0.25, 0.75], "classes": ["daisy", "rose"]}],
    ):
        assert list(read({"predictions": value}, "tfserving", LABELS)) == BEST
    named = {"predictions": [{"other": [1.0], "probs": [0.25, 0.75]}]}
    assert list(read(named, "tfserving", LABELS, output="probs")) == BEST


def test_logits():
    found = dict(read([0.0, math.log(3)], labels=LABELS, logits=True))
    assert found == pytest.approx({"daisy": 0.25, "rose": 0.75})
    assert read([1e308, -1e308], labels=LABELS, logits=True)[0] == ("daisy", 1.0)


@pytest.mark.parametrize(
    ("value", "protocol", "says"),
    [
        (b"<html>", "form", "its answer is not JSON"),
        (b"[NaN]", "form", "its answer is not JSON"),
        (b"[" * 5000, "form", "its answer is not JSON"),
        (b"1e999", "form", ""),
        ({}, "form", "no labels"),
        ([], "form", "no labels and scores"),
        ("rose", "form", "no labels and scores"),
        ({"error": "out of memory"}, "form", "it answered an error"),
        ({"boxes": [[1, 2, 3, 4]], "ok": True}, "form", "4 scores for 2 labels"),
        ([[[[[[[[0.5]]]]]]]], "form", "no labels and scores"),
        ([0.2, 7.5], "form", "scores from 0.2 to 7.5, which are not probabilities"),
        ([0.5, 0.2, 0.3], "form", "3 scores for 2 labels"),
        ({"labels": ["a"], "scores": [0.5, 0.5]}, "form", "2 scores for 1 labels"),
        ([["a", 0.5], ["b", "high"]], "form", "not a row of numbers"),
        ({"outputs": []}, "v2", "its answer has no outputs"),
        ([], "v2", "its answer has no outputs"),
        (v2([0.5, 0.5], (1, 3)), "v2", "output 'probs' has the shape [1, 3] and 2 numbers"),
        (v2([0.5] * 4, (2, 2)), "v2", "output 'probs' has the shape [2, 2], not [1, classes]"),
        (v2([0.5, 0.5], ("a",)), "v2", "has the shape ['a']"),
        (v2([0.1] * 3, (1, 3)), "v2", "3 scores for 2 labels"),
        (v2(["daisy"], (1, 1), "BYTES"), "v2", "not value:index:label"),
        ({"predictions": [[0.5], [0.5]]}, "tfserving", "not one prediction for one image"),
        ({"outputs": [0.5]}, "tfserving", "not one prediction for one image"),
        ({"predictions": ["x"]}, "tfserving", "predictions[0] is not a row of numbers"),
        ({"predictions": [{"ok": 1}]}, "tfserving", "its outputs ok are not scores"),
    ],
    ids=lambda each: str(each)[:40],
)
def test_a_wrong_answer_names_what_is_wrong(value, protocol, says):
    with pytest.raises(BadAnswer) as bad:
        read(value, protocol, LABELS)
    assert str(bad.value).startswith("10.0.0.7:9000: ")
    assert says in str(bad.value)


@pytest.mark.parametrize("protocol", ["v2", "tfserving"])
def test_an_output_that_is_not_there(protocol):
    value = {"predictions": [{"a": [1.0]}], **v2([1.0], (1,), name="a")}
    with pytest.raises(BadAnswer, match="no output 'b', but a"):
        read(value, protocol, output="b")
