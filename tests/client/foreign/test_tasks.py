"""Answers of foreign workers to other tasks: what is read, and what hostile servers answer."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.client import Detection, Embedding, JsonAnswer, Regression, Tensors
from fingerpost.client.foreign.boxes import ImageFrame
from fingerpost.client.foreign.metadata import ForeignModel
from fingerpost.client.foreign.tasks import read_task
from fingerpost.errors import BadAnswer

FRAME = ImageFrame(width=100, height=60, orientation=1)
NAMES = ("model", "3")


def output(name: str, shape: list[int], data: object, datatype: str = "FP32") -> dict:
    return {"name": name, "shape": shape, "data": data, "datatype": datatype}


def boxes(
    found: Any = ((10, 20, 30, 40), (-5, 0, 500, 90)),
    scores: Any = (0.5, 0.75),
    classes: Any = (1, 0),
) -> dict:
    return {
        "outputs": [
            output("boxes", [1, len(found), 4], [n for box in found for n in box]),
            output("scores", [1, len(scores)], list(scores)),
            output("classes", [1, len(classes)], list(classes), "INT64"),
        ]
    }


def read(answer: object, task: str, labels=(), frame=FRAME, **meta) -> Any:
    protocol = meta.pop("protocol", "v2")
    model = ForeignModel(protocol=protocol, path="/", task=task, **meta)
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return read_task(model, body, labels, frame, "10.0.0.7:80", NAMES).typed


def test_detection():
    found = read(boxes(), "detection", ("cat", "dog"))
    assert isinstance(found, Detection)
    assert (found.model, found.version, found.width, found.height) == ("model", "3", 100, 60)
    assert [tuple(each) for each in found] == [
        ("cat", 0.75, 0, 0, 100, 60),  # clipped to the image
        ("dog", 0.5, 10, 20, 30, 40),
    ]
    assert found.boxes.dtype == np.float32
    assert found.classes.tolist() == [0, 1]
    one = {
        "outputs": [
            output("boxes", [1, 4], [1, 2, 3, 4]),
            output("scores", [1], [0.5]),
            output("classes", [1], [0], "INT64"),
        ]
    }
    assert [tuple(each)[2:] for each in read(one, "detection")] == [(1, 2, 3, 4)]
    none = read(boxes((), (), ()), "detection")
    assert len(none) == 0
    assert none.boxes.shape == (0, 4)


def test_formats_of_boxes():
    shares = boxes([(0.1, 0.5, 0.2, 1.0)], [1], [1])
    (box,) = read(shares, "detection", box_format="yxyx", box_unit="share", first_class=1)
    assert tuple(box)[:2] == ("0", 1.0)
    assert tuple(box)[2:] == pytest.approx((50, 6, 100, 12))
    (box,) = read(boxes([(50, 30, 20, 10)], [1], [0]), "detection", box_format="center")
    assert tuple(box)[2:] == (40, 25, 60, 35)
    named = {"outputs": [{**each, "name": each["name"][:1]} for each in boxes()["outputs"]]}
    assert len(read(named, "detection", detection=("b", "s", "c"))) == 2


def test_rows_and_tensors():
    row = {"outputs": [output("vector", [1, 3], [1, 2, 3.5])]}
    found = read(row, "embedding")
    assert isinstance(found, Embedding)
    assert found.vector.tolist() == [1, 2, 3.5]
    found = read(row, "regression", ("a", "b", "c"))
    assert isinstance(found, Regression)
    assert found["c"] == 3.5
    both = {"outputs": [*row["outputs"], output("names", [1, 2], ["a", "b"], "BYTES")]}
    found = read(both, "tensors")
    assert isinstance(found, Tensors)
    assert found["vector"].shape == (3,)
    assert found["names"] == [b"a", b"b"]
    served = {"predictions": [{"vector": [1.5, 2], "grid": [[1, 2], [3, 4]]}]}
    found = read(served, "tensors", protocol="tfserving")
    assert found["grid"].tolist() == [[1, 2], [3, 4]]
    assert read({"predictions": [[1, 2]]}, "embedding", protocol="tfserving").vector.shape == (2,)


@pytest.mark.parametrize("value", [{"text": "a cat", "n": [1, None]}, [], "yes", None])
def test_json_comes_back_as_it_is(value):
    found = read(value, "json", protocol="form")
    assert isinstance(found, JsonAnswer)
    assert found.value == value


REFUSED = {
    "not JSON": (b"<html>", "detection", "is not JSON"),
    "no outputs": ({"outputs": []}, "tensors", "no outputs"),
    "no such output": ({"outputs": [output("x", [1], [1])]}, "detection", "no output 'boxes'"),
    "no pairs of edges": (boxes([(1, 2, 3)], [1], [0]), "detection", "numbers"),
    "more scores": (boxes(scores=(1, 1, 1)), "detection", "'boxes', FP32 [2, 4] is not [3, 4]"),
    "one class": (boxes(classes=(1,)), "detection", "'classes', INT64 [1] is not [2]"),
    "score of 7": (boxes(scores=(7, 1)), "detection", "'scores', FP32 [2] has scores"),
    "beyond the labels": (boxes(classes=(5, 0)), "detection", "'classes', INT64 [2] has class 5"),
    "negative class": (boxes(classes=(-1, 0)), "detection", "has class -1"),
    "half a class": (boxes(classes=(0.5, 0)), "detection", "not whole numbers"),
    "text as a box": (boxes([("a", 0, 1, 1)], [1], [0]), "detection", "finite numbers"),
    "huge number": (
        b'{"outputs":[{"name":"v","datatype":"FP32","shape":[1],"data":[1e999]}]}',
        "embedding",
        "10.0.0.7:80",
    ),
    "another size": ({"outputs": [output("v", [1, 3], [1])]}, "embedding", "shape [1, 3] and 1"),
    "negative side": ({"outputs": [output("v", [-1], [1])]}, "tensors", "has the shape [-1]"),
    "enormous side": ({"outputs": [output("v", [2**62, 4], [])]}, "tensors", "0 numbers"),
    "no datatype": ({"outputs": [output("v", [1], [1], "FP8")]}, "tensors", "datatype 'FP8'"),
    "a grid": ({"outputs": [output("v", [2, 2], [1, 2, 3, 4])]}, "embedding", "one row"),
    "nothing": ({"outputs": [output("v", [0], [])]}, "embedding", "one row"),
    "too deep": ({"outputs": [output("v", [1], json.loads("[" * 99 + "1" + "]" * 99))]}, "tensors",
                 "deeply nested"),
    "text as a number": ({"outputs": [output("v", [1], ["a"])]}, "tensors", "than numbers"),
    "over int8": ({"outputs": [output("v", [1], [999], "INT8")]}, "tensors", "10.0.0.7:80"),
    "more labels": ({"outputs": [output("v", [1], [1])]}, "regression", "as 2 labels"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    answer, task, words = REFUSED[name]
    with pytest.raises(BadAnswer) as caught:
        read(answer, task, ("a", "b"))
    assert words in str(caught.value)
    assert "10.0.0.7:80" in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False,
        allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["outputs", "predictions", "name", "shape", "data", "datatype", "boxes"]),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
ENTRY = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["boxes", "scores", "classes"]),
        "shape": st.lists(st.integers(-1, 4), max_size=3) | JSON,
        "datatype": st.sampled_from(["FP32", "INT8", "UINT64", "BOOL", "BYTES", "FP8"]),
        "data": st.lists(JSON, max_size=8),
    }
)


@given(
    answer=JSON | st.fixed_dictionaries({"outputs": st.lists(ENTRY, max_size=4)}),
    task=st.sampled_from(["embedding", "regression", "detection", "tensors", "json"]),
    protocol=st.sampled_from(["v2", "tfserving"]),
)
def test_any_json_is_an_answer_or_a_typed_error(answer, task, protocol):
    with contextlib.suppress(BadAnswer):
        read(msgspec.json.encode(answer), task, protocol=protocol)
