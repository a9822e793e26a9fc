"""What a worker answers to an inference, read as a typed result, or refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fingerpost.client import Classification, Detection, Embedding, Multilabel, Regression, Tensors
from fingerpost.client.tasks.inference import read_inference
from fingerpost.errors import BadAnswer


def answer(task: str, result: dict[str, Any], blob: bytes = b"") -> tuple[bytes, bytes]:
    whole = {
        "model": "m",
        "version": "2",
        "task": task,
        "results": [{"name": "data", **result}],
    }
    text = json.dumps(whole).encode()
    return str(len(text)).encode(), text + blob


def tensor(name: str, array: np.ndarray, datatype: str) -> dict[str, Any]:
    return {
        "name": name,
        "datatype": datatype,
        "shape": list(array.shape),
        "parameters": {"binary_data_size": array.nbytes},
    }


BOXES = np.array([[1, 2, 3, 4], [5, 6, 7, 8.5]], np.float32)
SCORES = np.array([0.75, 0.5], np.float32)
CLASSES = np.array([1, 0], np.int64)
FOUND = {
    "labels": ["cat", "dog"],
    "width": 30,
    "height": 20,
    "orientation": 6,
    "outputs": [
        tensor("boxes", BOXES, "FP32"),
        tensor("scores", SCORES, "FP32"),
        tensor("classes", CLASSES, "INT64"),
    ],
}
BLOB = BOXES.tobytes() + SCORES.tobytes() + CLASSES.tobytes()


def test_a_detection() -> None:
    found = read_inference(*answer("detection", FOUND, BLOB), "w").typed
    assert isinstance(found, Detection)
    assert (found.width, found.height, found.orientation) == (30, 20, 6)
    assert len(found) == 2
    assert [tuple(each) for each in found] == [
        ("cat", 0.75, 1, 2, 3, 4),
        ("dog", 0.5, 5, 6, 7, 8.5),
    ]
    assert found.classes.tolist() == [1, 0]


def test_the_tasks_of_one_row() -> None:
    predictions = {"predictions": [["cat", 0.75], ["dog", 0.5]]}
    one = read_inference(*answer("classification", predictions), "w").typed
    assert isinstance(one, Classification)
    assert (one.label, one.score, one.model, one.version) == ("cat", 0.75, "m", "2")
    many = read_inference(*answer("multilabel", predictions), "w").typed
    assert isinstance(many, Multilabel)
    assert many.labels == ("cat", "dog")
    none = read_inference(*answer("multilabel", {}), "w").typed
    assert isinstance(none, Multilabel)
    assert none.labels == ()
    outputs = {"outputs": [tensor("embedding", SCORES, "FP32")]}
    vector = read_inference(*answer("embedding", outputs, SCORES.tobytes()), "w").typed
    assert isinstance(vector, Embedding)
    assert vector.vector.tolist() == [0.75, 0.5]
    outputs = {"outputs": [tensor("values", SCORES, "FP32")], "labels": ["age", "height"]}
    values = read_inference(*answer("regression", outputs, SCORES.tobytes()), "w").typed
    assert isinstance(values, Regression)
    assert (values["age"], values["height"]) == (0.75, 0.5)
    with pytest.raises(KeyError, match="width"):
        values["width"]
    with pytest.raises(ValueError, match="gives 2 values"):
        _ = values.value
    outputs = {"outputs": [tensor("a", BOXES, "FP32")]}
    raw = read_inference(*answer("tensors", outputs, BOXES.tobytes()), "w").typed
    assert isinstance(raw, Tensors)
    assert np.array_equal(raw["a"], BOXES)


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        (b"99999", answer("embedding", {})[1], "a JSON part of b'99999' bytes"),
        (b"x", answer("embedding", {})[1], "a JSON part of b'x' bytes"),
        (*answer("reading", {}), "task 'reading' is not known: upgrade this client"),
        (*answer("embedding", {}), "not an answer of task embedding: 'embedding'"),
        (*answer("classification", {}), "no predictions"),
        (*answer("detection", FOUND, BLOB + b"1"), "1 bytes behind its arrays"),
        (*answer("detection", FOUND, BLOB[:-1]), "15 bytes for INT64 [2], which has 16"),
        (*answer("detection", {**FOUND, "labels": ["cat"]}, BLOB), "are not as many"),
        (
            *answer("embedding", {"error": {"code": "c", "message": "m", "retryable": False}}),
            "not one result for one image",
        ),
        (None, b"[]", "w: "),
    ],
)
def test_what_is_not_an_answer(header: bytes | None, body: bytes, message: str) -> None:
    with pytest.raises(BadAnswer) as caught:
        read_inference(header, body, "w")
    assert message in caught.value.message
