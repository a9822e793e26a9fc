"""The layouts of detectors: the same objects in each, and an error for all that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fingerpost.errors import BadOutput
from fingerpost.worker.images.placement import Placement
from fingerpost.worker.models.tasks import DetectionLayout, DetectionSpec
from fingerpost.worker.tasks.detection import DetectionReader
from fingerpost.worker.tasks.items import AnswerOptions, TaskItem

LABELS = ("cat", "dog", "bird")
CANVAS = (40, 80)  # height, width
# x0, y0, x1, y1, score, class; the second one reaches out of the image.
OBJECTS = [(8, 4, 24, 20, 0.9, 2), (60, 10, 90, 44, 0.8, 0), (70, 4, 78, 8, 0.1, 1)]
EXPECTED = [("bird", 0.9, [8, 4, 24, 20]), ("cat", 0.8, [60, 10, 80, 40])]
BOXES = np.array([each[:4] for each in OBJECTS], np.float32)
SCORES = np.array([each[4] for each in OBJECTS], np.float32)
CLASSES = np.array([each[5] for each in OBJECTS])

Outputs = dict[str, np.ndarray]


def centred(boxes: np.ndarray) -> np.ndarray:
    sizes = boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([boxes[:, :2] + sizes / 2, sizes], axis=1)


def one_hot(width: int = 3) -> np.ndarray:
    return np.eye(width, dtype=np.float32)[CLASSES] * SCORES[:, None]


def torchvision() -> Outputs:
    return {"boxes": BOXES, "labels": CLASSES + 1, "scores": SCORES}


def tensorflow() -> Outputs:
    padded = np.concatenate([BOXES, BOXES[:2]])[:, [1, 0, 3, 2]] / [40, 80, 40, 80]
    return {
        "detection_boxes": padded.astype(np.float32),
        "detection_scores": np.append(SCORES, [0.95, 0.95]).astype(np.float32),
        "detection_classes": np.append(CLASSES + 1, [1, 1]).astype(np.float32),
        "num_detections": np.array(3, np.float32),
    }


def yolov5() -> Outputs:
    objectness = np.full((3, 1), 0.5, np.float32)
    rows = np.concatenate([centred(BOXES), objectness, 2 * one_hot()], axis=1)
    return {"output0": np.concatenate([rows, rows * 0.99]).astype(np.float32)}


def yolov8() -> Outputs:
    rows = np.concatenate([centred(BOXES), one_hot()], axis=1)
    return {"output0": np.concatenate([rows, rows * 0.99]).T.astype(np.float32)}


def detr() -> Outputs:
    shares = np.concatenate([one_hot(), 1 - SCORES[:, None]], axis=1) + 1e-9
    boxes = centred(BOXES) / [80, 40, 80, 40]
    return {"logits": np.log(shares) + 3, "pred_boxes": boxes.astype(np.float32)}


LAYOUTS: dict[str, Callable[[], Outputs]] = {
    "torchvision": torchvision,
    "tensorflow": tensorflow,
    "yolov5": yolov5,
    "yolov8": yolov8,
    "yolov11": yolov8,
    "detr": detr,
}


def item(placement: Placement | None = None) -> TaskItem:
    return TaskItem(values={}, placement=placement, options=AnswerOptions())


def read(
    layout: str, outputs: Outputs, labels: tuple[str, ...] = LABELS, **spec: Any
) -> tuple[list[tuple[str, float, list[float]]], dict[str, Any]]:
    reader = DetectionReader(DetectionSpec(layout=DetectionLayout(layout), **spec), labels)
    whole = Placement(
        width=80, height=40, turn=None, box=(0, 0, 80, 40), size=(80, 40), offset=(0, 0)
    )
    answer = reader.read(outputs, item(whole), CANVAS)
    members = answer.to_json()
    found = zip(members["labels"], members["scores"], members["boxes"], strict=True)
    return list(found), members


def alike(found: list[tuple[str, float, list[float]]], expected: list[Any]) -> None:
    assert [each[0] for each in found] == [each[0] for each in expected]
    for (_, score, box), (_, its_score, its_box) in zip(found, expected, strict=True):
        assert score == pytest.approx(its_score, abs=0.02)
        assert box == pytest.approx(its_box, abs=0.01)


def test_every_layout_has_its_objects() -> None:
    assert set(LAYOUTS) == {each.value for each in DetectionLayout}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_objects_in_every_layout(layout: str) -> None:
    found, members = read(layout, LAYOUTS[layout]())
    alike(found, EXPECTED)
    assert members["classes"] == [2, 0]
    assert (members["width"], members["height"], members["orientation"]) == (80, 40, 1)
    found, _ = read(layout, LAYOUTS[layout](), max_boxes=1)
    alike(found, EXPECTED[:1])
    found, _ = read(layout, LAYOUTS[layout](), labels=())
    assert [each[0] for each in found] == ["2", "0"]
    found, _ = read(layout, LAYOUTS[layout](), min_score=0.05)
    assert [each[0] for each in found] == ["bird", "cat", "dog"]


def test_the_first_class_may_be_the_background() -> None:
    found, _ = read("torchvision", torchvision(), ("background", *LABELS), first_class=0)
    alike(found, EXPECTED)


def test_outputs_of_other_names() -> None:
    outputs = {"a": BOXES, "b": CLASSES + 1, "c": SCORES}
    alike(read("torchvision", outputs)[0], EXPECTED)  # by their shapes and types
    alike(read("torchvision", outputs, boxes="a", classes="b", scores="c")[0], EXPECTED)
    both = {"protos": np.zeros((32, 4, 4)), "x": yolov8()["output0"]}
    alike(read("yolov8", both, boxes="x")[0], EXPECTED)


def changed(layout: str, **outputs: Any) -> Outputs:
    return {**LAYOUTS[layout](), **{k: np.asarray(v) for k, v in outputs.items()}}


NAN = np.array([0.9, np.nan, 0.1], np.float32)


@pytest.mark.parametrize(
    ("layout", "outputs", "message"),
    [
        ("torchvision", changed("torchvision", scores=NAN), r"'scores', \[3\], has numbers that"),
        ("torchvision", changed("torchvision", scores=SCORES[:2]), r"'scores' is float32 \[2\]"),
        ("torchvision", changed("torchvision", boxes=BOXES[0]), r"float32 \[4\].* expected \[n, 4"),
        ("torchvision", changed("torchvision", labels=[1, 4, 1]), "class 4, .*classes are 1 to 3"),
        ("torchvision", changed("torchvision", labels=[0, 1, 1]), "class 0, .*classes are 1 to 3"),
        ("torchvision", {"boxes": BOXES, "labels": CLASSES}, r"no output 'scores'.*boxes \[3, 4\]"),
        ("tensorflow", {"x": BOXES}, "no output 'detection_boxes' for boxes: the model gives x"),
        ("tensorflow", changed("tensorflow", num_detections=9), r"is \[9\].* from 0 to 5"),
        ("tensorflow", changed("tensorflow", num_detections=[1, 2]), "expected one number"),
        ("yolov5", {"o": np.zeros((9, 5), np.float32)}, r"\[9, 5\].*expects \[n, 5 \+ classes\]"),
        ("yolov8", {"o": np.zeros((4, 9), np.float32)}, r"\[4, 9\].*expects \[4 \+ classes, n\]"),
        ("yolov8", {"o": np.zeros((1, 7, 9))}, r"float64 \[1, 7, 9\] for an image: expected"),
        ("yolov8", {"o": np.full((7, 9), np.inf)}, "not finite"),
        (
            "yolov8",
            {"o": np.ones((8, 9)) * np.arange(8)[:, None]},
            "class 3, but the classes are",
        ),
        ("detr", changed("detr", pred_boxes=BOXES[:2]), "has 2 boxes .*logits of 3"),
    ],
)
def test_what_cannot_be_read_is_named(layout: str, outputs: Outputs, message: str) -> None:
    with pytest.raises(BadOutput, match=message):
        read(layout, outputs)
