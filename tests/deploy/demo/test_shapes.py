"""Drawn shapes, and what a detector of them is trained on."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from fingerpost.deploy.demo.shapes.detector import _PREPROCESSING, _SIDE, _example
from fingerpost.deploy.demo.shapes.drawings import SHAPES, draw, write_drawings
from fingerpost.deploy.evaluation.truth.coco import CocoFile
from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.images.preprocess import fit_placed
from fingerpost.worker.models.tasks import DetectionLayout, DetectionSpec
from fingerpost.worker.tasks.detection import DetectionReader
from fingerpost.worker.tasks.items import AnswerOptions, TaskItem


@pytest.mark.parametrize("half", [False, True])
def test_shapes_fill_their_boxes_and_do_not_touch(half: bool) -> None:
    rng = random.Random(3)
    names = set()
    for _ in range(40):
        drawing = draw(rng, half=half)
        assert 1 <= len(drawing.shapes) <= 3
        bright = np.asarray(drawing.image).min(axis=2) >= 130
        inside = np.zeros_like(bright)
        for name, (left, top, right, bottom) in drawing.shapes:
            names.add(name)
            part = bright[top:bottom, left:right]
            assert part.any(axis=0).mean() > 0.9
            assert part.any(axis=1).all()
            inside[top:bottom, left:right] += True
        assert not (bright & ~inside).any()
    assert names == set(SHAPES)


def test_the_annotations_are_coco_s(tmp_path: Path) -> None:
    found = CocoFile.read(write_drawings(tmp_path, 9, 5), tmp_path / "images")
    assert found.labels == SHAPES
    assert len(found.images) == 9
    assert all(each.boxes for each in found.images)
    again = write_drawings(tmp_path / "again", 9, 5)
    assert again.read_text() == (tmp_path / "boxes.json").read_text()
    for path in (tmp_path / "images").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / "images" / path.name).read_bytes()


def test_a_perfect_detector_would_answer_the_drawn_boxes() -> None:
    spec = DetectionSpec(layout=DetectionLayout.YOLOV5, min_score=0.05)
    reader = DetectionReader(spec, SHAPES)
    rng = random.Random(7)
    for _ in range(60):
        drawing = draw(rng)
        pixels, target = _example(drawing)
        assert (pixels.shape, target.shape) == ((_SIDE, _SIDE, 3), (64, 5 + len(SHAPES)))
        wanted = ImageInput(height=_SIDE, width=_SIDE, preprocessing=_PREPROCESSING)
        _, placement = fit_placed(np.asarray(drawing.image), wanted)
        item = TaskItem(values={}, placement=placement, options=AnswerOptions())
        answer = reader.read({"output": target}, item, (_SIDE, _SIDE))
        boxes = np.asarray(answer.arrays["boxes"])
        found = sorted(zip(answer.fields["labels"], boxes.tolist(), strict=True))
        for (label, box), (name, edges) in zip(found, sorted(drawing.shapes), strict=True):
            assert label == name
            assert box == pytest.approx(edges, abs=0.01)
