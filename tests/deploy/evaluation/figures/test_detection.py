"""mAP of cases whose figures follow by hand, and COCO's own printout for random ones."""

from __future__ import annotations

import contextlib
import io
import random
from typing import Any

import pytest

from fingerpost.deploy.evaluation.figures.detection import (
    DetectedBox,
    DetectionFigures,
    DetectionTally,
)
from fingerpost.deploy.evaluation.truth.coco import DrawnBox


def drawn(
    label: str, left: float, top: float, width: float, height: float, *, crowd: bool = False
) -> DrawnBox:
    return DrawnBox(
        label=label,
        left=left,
        top=top,
        width=width,
        height=height,
        area=width * height,
        crowd=crowd,
    )


def of(*images: tuple[list[DrawnBox], list[DetectedBox]]) -> DetectionFigures:
    tally = DetectionTally(["cat", "ant"])
    for number, image in enumerate(images, 1):
        tally.add(number, *image)
    return tally.figures()


def test_all_found() -> None:
    objects = [drawn("ant", 0, 0, 10, 10), drawn("cat", 20, 20, 10, 30)]
    boxes = [DetectedBox("cat", 0.9, 20, 20, 30, 50), DetectedBox("ant", 0.8, 0, 0, 10, 10)]
    figures = of((objects, boxes))
    shares = [figures.map, figures.map50, figures.map75, figures.mar100]
    assert shares == pytest.approx([1, 1, 1, 1])
    assert (figures.objects, figures.boxes, figures.other_boxes) == (2, 2, 0)
    ant, cat = figures.classes
    assert (ant.label, ant.objects, ant.precision, ant.recall) == ("ant", 1, 1.0, 1.0)
    assert cat.curve50 == pytest.approx([1.0] * 101)


def test_a_box_that_overlaps_by_two_thirds_is_right_for_four_of_ten_overlaps() -> None:
    # 10 x 10 moved by 2 to the right: 80 of 120 pixels are common, 0.667: enough for 0.5 to 0.65.
    figures = of(([drawn("ant", 0, 0, 10, 10)], [DetectedBox("ant", 0.9, 2, 0, 12, 10)]))
    assert figures.map == pytest.approx(0.4)
    assert (figures.map50, figures.map75) == pytest.approx((1, 0))
    assert figures.classes[1].ap is None  # there is no cat


def test_a_wrong_box_before_the_right_one_halves_precision() -> None:
    boxes = [DetectedBox("ant", 0.9, 50, 50, 60, 60), DetectedBox("ant", 0.8, 0, 0, 10, 10)]
    figures = of(([drawn("ant", 0, 0, 10, 10)], boxes))
    assert figures.map50 == pytest.approx(0.5)
    assert figures.classes[0].precision == 0.5
    assert figures.classes[0].recall == 1.0


def test_a_missed_object_ends_the_curve() -> None:
    objects = [drawn("ant", 0, 0, 10, 10), drawn("ant", 50, 50, 10, 10)]
    figures = of((objects, [DetectedBox("ant", 0.9, 0, 0, 10, 10)]))
    assert figures.map50 == pytest.approx(51 / 101)  # recalls 0, 0.01 ... 0.5 of 101
    assert figures.mar100 == 0.5
    assert figures.classes[0].curve50 == pytest.approx([1.0] * 51 + [0.0] * 50)


def test_nothing_found_and_nothing_there() -> None:
    nothing = of(([drawn("ant", 0, 0, 10, 10)], []), ([], []))
    assert (nothing.map, nothing.map50, nothing.mar100, nothing.boxes) == (0, 0, 0, 0)
    assert nothing.classes[0].precision is None
    empty = of(([], []))
    assert (empty.map, empty.objects) == (0, 0)
    alone = of(([], [DetectedBox("ant", 0.9, 0, 0, 10, 10)]), ([drawn("cat", 0, 0, 9, 9)], []))
    assert (alone.classes[0].precision, alone.map) == (0.0, 0.0)


def test_boxes_of_other_classes_and_in_groups_are_not_judged() -> None:
    objects = [drawn("ant", 0, 0, 10, 10), drawn("ant", 50, 50, 40, 40, crowd=True)]
    boxes = [
        DetectedBox("ant", 0.9, 0, 0, 10, 10),
        DetectedBox("ant", 0.95, 55, 55, 65, 65),
        DetectedBox("yak", 0.99, 0, 0, 10, 10),
    ]
    figures = of((objects, boxes))
    assert (figures.map, figures.objects, figures.other_boxes) == pytest.approx((1, 1, 1))
    assert figures.classes[0].precision == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_random_boxes_have_the_figures_that_coco_prints(seed: int) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = random.Random(seed)
    tally = DetectionTally(["ant", "cat"])
    truth, results = [], []
    for image in range(1, 21):
        objects, boxes = [], []
        for _ in range(rng.randint(0, 4)):
            label, side = rng.choice(["ant", "cat"]), rng.uniform(5, 60)
            left, top = rng.uniform(0, 100), rng.uniform(0, 100)
            objects.append(drawn(label, left, top, side, side))
            for _ in range(rng.randint(0, 2)):
                dx, dy = rng.gauss(0, side / 8), rng.gauss(0, side / 8)
                edges = (left + dx, top + dy, left + dx + side, top + dy + side)
                boxes.append(DetectedBox(rng.choice([label, "ant"]), rng.random(), *edges))
        tally.add(image, objects, boxes)
        for each in objects:
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": image,
                    "category_id": 7 if each.label == "ant" else 3,
                    "bbox": [each.left, each.top, each.width, each.height],
                    "area": each.area,
                    "iscrowd": 0,
                }
            )
        for box in boxes:
            size = [box.right - box.left, box.bottom - box.top]
            category = 7 if box.label == "ant" else 3
            results.append(
                {
                    "image_id": image,
                    "category_id": category,
                    "bbox": [box.left, box.top, *size],
                    "score": box.score,
                }
            )
    figures = tally.figures()
    coco: Any = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in range(1, 21)],
        "categories": [{"id": 7, "name": "ant"}, {"id": 3, "name": "cat"}],
        "annotations": truth,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    mine = [figures.map, figures.map50, figures.map75, figures.mar100]
    assert mine == pytest.approx([*judge.stats[:3], judge.stats[8]])
    assert 0 < figures.map < figures.map50 < 1


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    of(([drawn("ant", 0, 0, 10, 10)], []))
    assert capfd.readouterr() == ("", "")


def test_the_order_of_the_answers_does_not_matter() -> None:
    right = ([drawn("ant", 0, 0, 10, 10)], [DetectedBox("ant", 0.5, 0, 0, 10, 10)])
    wrong = ([drawn("ant", 0, 0, 10, 10)], [DetectedBox("ant", 0.5, 20, 20, 30, 30)])
    figures = []
    for order in ((1, 2), (2, 1)):
        tally = DetectionTally(["ant"])
        for number in order:
            tally.add(number, *(wrong if number == 1 else right))
        figures.append(tally.figures())
    assert figures[0] == figures[1]
    assert figures[0].map50 == pytest.approx(0.5 * 51 / 101)
