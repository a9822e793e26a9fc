"""Judges, runs and limits around answers that are known."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image
from tests.support.evaluations import Answering, folders, report_of, targets

from fingerpost.client.tasks.results import (
    Classification,
    Detection,
    Embedding,
    JsonAnswer,
    Multilabel,
    Regression,
    Segmentation,
    TaskResult,
    Tensors,
)
from fingerpost.client.wire import Prediction
from fingerpost.deploy.console import out
from fingerpost.deploy.evaluation.evaluation import EvaluationConfig, evaluate
from fingerpost.deploy.evaluation.show import show
from fingerpost.deploy.evaluation.truth.class_folders import ClassFolders
from fingerpost.deploy.evaluation.truth.coco import CocoFile, DrawnBox, DrawnImage
from fingerpost.deploy.evaluation.truth.masks import MaskedImage, MaskFolder
from fingerpost.errors import (
    BrokenImage,
    ConfigurationError,
    FingerpostError,
    InvalidRequest,
    ModelFailed,
    NoWorker,
    Unreachable,
    WrongTask,
)


def classified(label: str, *others: str, version: str = "3") -> Classification:
    scores = [Prediction(label, 0.9), *(Prediction(each, 0.1 / len(others)) for each in others)]
    return Classification(
        model="m",
        version=version,
        predictions=tuple(scores),
        elapsed_s=0.25,
        address="10.0.0.1:80",
    )


async def test_a_classifier() -> None:
    truth = folders("ant", "ant", "bee", "bee")
    target = Answering(lambda path: classified("ant", "bee"))
    done: list[int] = []
    report = await evaluate(
        target, truth, EvaluationConfig(concurrency=2), model="m", progress=done.append
    )
    # The first image is asked for once more, with all labels, before the run.
    assert target.asked[0] == ("ant/0.png", 999_999)
    assert sorted(target.asked[1:]) == [(each.path, 5) for each in truth.images]
    assert target.most == 2
    assert done == [1, 2, 3, 4]
    assert (report.task, report.versions, report.workers) == (
        "classification",
        {"3": 4},
        {"10.0.0.1:80": 4},
    )
    assert (report.images, report.answered, report.failed) == (4, 4, [])
    assert report.latency_ms.p50 == pytest.approx(250, rel=1e-3)
    assert report.figures.top1 == 0.5  # type: ignore[union-attr]
    assert msgspec.json.decode(msgspec.json.encode(report))["figures"]["confusion"] == [
        [2, 0],
        [2, 0],
    ]


async def test_failed_images_are_listed_and_in_no_figure() -> None:
    def answer(path: str) -> TaskResult:
        if path == "ant/0.png":
            raise BrokenImage("it is cut off")
        if path == "bee/2.png":
            raise ModelFailed("it divides by zero")
        return classified("ant", "bee")

    report = await report_of(folders("ant", "ant", "bee"), answer)
    assert [(each.image, each.code, each.message) for each in report.failed] == [
        ("ant/0.png", "broken_image", "it is cut off"),
        ("bee/2.png", "model_failed", "it divides by zero"),
    ]
    assert (report.images, report.answered) == (3, 1)
    assert report.figures.top1 == 1.0  # type: ignore[union-attr]


async def test_no_answer_at_all_is_an_error() -> None:
    def broken(path: str) -> TaskResult:
        raise BrokenImage("it is cut off")

    with pytest.raises(InvalidRequest, match=r"no image of the first 2 .* bee/1.png: it is cut"):
        await report_of(folders("ant", "bee"), broken)

    answers = iter([classified("ant", "bee")])

    def once(path: str) -> TaskResult:
        for each in answers:
            return each
        raise BrokenImage("it is cut off")

    with pytest.raises(InvalidRequest, match="none of 2 images has an answer that counts"):
        await report_of(folders("ant", "bee"), once)


@pytest.mark.parametrize(
    ("error", "sent"), [(NoWorker("all are gone"), 1), (Unreachable("no route"), 20)]
)
async def test_a_fault_of_the_cluster_ends_the_run(error: FingerpostError, sent: int) -> None:
    count = 0

    def answer(path: str) -> TaskResult:
        nonlocal count
        count += 1
        if count == 1:
            return classified("ant", "bee")
        raise error

    with pytest.raises(type(error) if sent == 1 else FingerpostError, match=error.message):
        await report_of(folders(*["ant"] * 50), answer, concurrency=1)
    assert count == sent + 1


async def test_a_class_that_the_model_lacks() -> None:
    with pytest.raises(ConfigurationError, match=r"class folder 'tulpe' in 'photos' is not"):
        await report_of(folders("ant", "tulpe"), lambda _: classified("ant", "bee"))
    # The best five of a server that does not say all: the scores are not the whole.
    five = tuple(Prediction(label, 0.1) for label in "abcde")
    some = Classification(model="m", version="1", predictions=five)
    report = await report_of(folders("a", "tulpe"), lambda _: some)
    assert report.notes == [
        "no answer has 'tulpe': if the model does not know it, its labels have another name for it"
    ]
    with pytest.raises(ConfigurationError, match="'tulpe'"):
        await report_of(folders("a", "tulpe"), lambda _: some, labels=("a", "b"))


async def test_several_versions_are_noted() -> None:
    report = await report_of(
        folders("ant", "ant"),
        lambda path: classified("ant", "bee", version="3" if "0" in path else "4"),
    )
    assert report.versions == {"3": 1, "4": 1}
    assert "several versions answered" in report.notes[0]


async def test_several_labels(tmp_path: Path) -> None:
    for name, content in (("ant/1.png", b"1"), ("bee/1.png", b"1"), ("bee/2.png", b"2")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    answer = Multilabel(
        model="m", version="1", predictions=(Prediction("ant", 0.9), Prediction("bee", 0.7))
    )
    report = await report_of(ClassFolders.read(tmp_path), lambda _: answer)
    assert (report.task, report.images) == ("multilabel", 2)
    assert report.figures.exact == 0.5  # type: ignore[union-attr]


def drawn(path: str, *labels: str) -> DrawnImage:
    boxes = tuple(
        DrawnBox(label=label, left=2, top=1, width=4, height=3, area=12, crowd=False)
        for label in labels
    )
    return DrawnImage(path=path, boxes=boxes)


@pytest.mark.parametrize("upright", [False, True])
async def test_a_detector(upright: bool) -> None:
    truth = CocoFile(
        path=Path("boxes.json"),
        images=[drawn("1.png", "ant"), drawn("2.png")],
        labels=("ant", "bee"),
    )
    # Turned by 90 degrees: what is at x = 2 to 6 and y = 1 to 4 as it is shown.
    boxes = [[1.0, 4.0, 4.0, 8.0]] if upright else [[2.0, 1.0, 6.0, 4.0]]

    def answer(path: str) -> TaskResult:
        found = path == "1.png"
        return Detection(
            model="m",
            version="1",
            boxes=np.array(boxes if found else [], np.float32).reshape(-1, 4),
            scores=np.array([0.9] if found else [], np.float32),
            classes=np.array([0] if found else [], np.int64),
            labels=("ant",) if found else (),
            width=20,
            height=10,
            orientation=6 if upright else 1,
        )

    if upright:
        boxes = [[1.0, 4.0, 4.0, 8.0]]  # sent (x, y) is shown at (10 - y, x)
    report = await report_of(truth, answer, upright=upright, limits={"map": 1.0})
    assert report.figures.map == pytest.approx(1)  # type: ignore[union-attr]
    assert report.reached


async def test_a_segmenter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = tmp_path / "mask.png"
    Image.fromarray(np.array([[0, 1]], np.uint8)).save(mask)
    large = tmp_path / "large.png"
    Image.new("L", (5, 5)).save(large)
    answer = Segmentation(
        model="m",
        version="1",
        png=mask.read_bytes(),
        classes=np.array([0, 1]),
        labels=("ground", "ant"),
        width=2,
        height=1,
    )
    images = [MaskedImage(path="1.png", mask=mask), MaskedImage(path="2.png", mask=large)]
    threads: set[int] = set()
    read = MaskedImage.classes

    def classes(image: MaskedImage) -> Any:
        threads.add(threading.get_ident())
        return read(image)

    monkeypatch.setattr(MaskedImage, "classes", classes)
    report = await report_of(MaskFolder(images=images), lambda _: answer)
    # Other answers do not wait while a mask is read.
    assert threads
    assert threading.get_ident() not in threads
    assert report.figures.iou == 1.0  # type: ignore[union-attr]
    classes_of: Any = report.figures
    assert [each.label for each in classes_of.classes] == ["ground", "ant"]
    (failed,) = report.failed
    assert (failed.image, failed.code) == ("2.png", "invalid_request")
    assert "its mask is 5 x 5, but the image is 2 x 1" in failed.message


async def test_another_task_than_the_truth_is_for() -> None:
    vector = Embedding(model="m", version="1", vector=[1.0])
    number = Regression(model="m", version="1", values=[1.0])
    with pytest.raises(WrongTask, match="answers regression, .*: give --targets FILE"):
        await report_of(folders("ant"), lambda _: number)
    with pytest.raises(WrongTask, match="answers embedding, and --targets FILE is for regression"):
        await report_of(targets(("1.png", (1.0,))), lambda _: vector)
    for answer, name in (
        (Tensors(model="m", version="1", outputs={"a": [1.0]}), "tensors"),
        (JsonAnswer(model="m", version="1", value=1), "JSON"),
    ):
        with pytest.raises(WrongTask, match=f"answers {name}, whose meaning is the model's own"):
            await report_of(folders("ant"), lambda _, answer=answer: answer)
    coco = CocoFile(path=Path("b.json"), images=[drawn("1.png", "ant")], labels=("ant",))
    with pytest.raises(
        WrongTask,
        match="answers classification, and --annotations FILE is for detection: give a folder of",
    ):
        await report_of(coco, lambda _: classified("ant", "bee"))
    answers = iter([classified("ant", "bee"), classified("ant", "bee")])
    report = await report_of(folders("ant", "ant"), lambda _: next(answers, vector))
    assert "another task than the first answer" in report.failed[0].message


async def test_limits() -> None:
    truth = folders("ant", "bee")
    report = await report_of(
        truth, lambda _: classified("ant", "bee"), limits={"top1": 0.5, "top5": 1.0, "f1": 0.9}
    )
    assert [(each.figure, each.reached) for each in report.limits] == [
        ("top1", True),
        ("top5", True),
        ("f1", False),
    ]
    assert not report.reached
    with pytest.raises(
        ConfigurationError, match="--min-map is not for classification: use --min-top1 or"
    ):
        await report_of(truth, lambda _: classified("ant", "bee"), limits={"map": 0.5})
    with pytest.raises(ConfigurationError, match=r"--min-top1 90: it must be 0 to 1, such as 0.9"):
        EvaluationConfig(limits={"top1": 90})
    for figure, limit, message in (
        ("mae", -1.0, "--max-mae -1: it must be 0 or more, in the unit"),
        ("rmse", float("nan"), "--max-rmse nan: it must be 0 or more"),
        ("r2", 1.5, "--min-r2 1.5: it must be 0 to 1"),
        ("r2", float("-inf"), "--min-r2 -inf"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            EvaluationConfig(limits={figure: limit})
    with pytest.raises(ConfigurationError, match="concurrency is 0"):
        EvaluationConfig(concurrency=0)


async def test_of_many_classes_the_worst_are_shown() -> None:
    labels = [f"c{number:02}" for number in range(40)]

    def answer(path: str) -> TaskResult:
        label = path.partition("/")[0]
        return classified("c00" if label in ("c07", "c31") else label, *labels)

    report = await report_of(folders(*labels), answer)
    with out.capture() as shown:
        show(report)
    text = shown.get()
    assert "The 30 worst of 40 classes; all are in --json FILE." in text
    rows = [
        line.split()[0] for line in text.splitlines() if line.startswith(("c0", "c1", "c2", "c3"))
    ]
    assert rows[:3] == ["c07", "c31", "c00"]
    assert len(rows) == 30
    assert "Most frequent mistakes: c07 taken for c00 (1), c31 taken for c00 (1)" in text
    assert "m@3, classification: 40 of 40 images answered by 1 worker in" in text
