"""Judges: each compares a task's answers with what is true of the images."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

from fingerpost.client.tasks.arrays import rows_of
from fingerpost.client.tasks.results import (
    Classification,
    Detection,
    Embedding,
    Multilabel,
    Regression,
    Segmentation,
)
from fingerpost.deploy.evaluation.figures.labels import ClassificationTally, MultilabelTally
from fingerpost.deploy.evaluation.truth.class_folders import ClassFolders
from fingerpost.deploy.evaluation.truth.coco import CocoFile
from fingerpost.deploy.evaluation.truth.masks import MaskFolder
from fingerpost.deploy.evaluation.truth.targets import TargetFile
from fingerpost.deploy.evaluation.truth.upright import upright_box
from fingerpost.deploy.file_names import printable_name
from fingerpost.errors import BadAnswer, ConfigurationError, WrongTask

if TYPE_CHECKING:
    from collections.abc import Collection

    from fingerpost.client.tasks.results import TaskResult

__all__ = ["ALL_LABELS", "Judge", "Truth", "judge_for", "labels_of", "no_figures"]

Truth: TypeAlias = ClassFolders | CocoFile | MaskFolder | TargetFile

ALL_LABELS: Final = 999_999
"""What asks a worker for all labels: the largest number that it takes."""

_TOP: Final = 5
# A softmax sums up to 1, but for rounding to six digits.
_WHOLE: Final = 0.01
_TASKS: Final[dict[type[Any], tuple[str, str]]] = {
    ClassFolders: ("classification, multilabel or embedding", "a folder of class folders"),
    CocoFile: ("detection", "--annotations FILE"),
    MaskFolder: ("segmentation", "--masks DIR"),
    TargetFile: ("regression", "--targets FILE"),
}
_TRUTHS: Final[dict[str, type[Any]]] = {
    "classification": ClassFolders,
    "multilabel": ClassFolders,
    "embedding": ClassFolders,
    "detection": CocoFile,
    "segmentation": MaskFolder,
    "regression": TargetFile,
}


class Judge(Protocol):
    """Counts the answers of one task.

    Attributes:
        task: as `model.toml` names it.
        paths: the images.
        top: most labels that an answer needs.
        slow: whether `count` takes milliseconds, because it reads files.
    """

    task: str
    paths: list[str]
    top: int
    slow: bool

    def count(self, place: int, answer: TaskResult) -> None:
        """Count the answer for the image at this place. Raises `FingerpostError`."""
        ...

    def figures(self) -> Any:
        """The figures; after at least one answer."""
        ...

    def unseen(self) -> list[str]:
        """Classes of the truth that no answer has named."""
        ...


def labels_of(answer: TaskResult) -> tuple[str, ...] | None:
    """All labels of a classifier, from an answer that was asked for them; None if unsure.

    A server that is not Fingerpost may give its best five, whatever is asked.
    """
    if not isinstance(answer, Classification):
        return None
    scores = [each.score for each in answer.predictions]
    complete = len(scores) > _TOP or abs(sum(scores) - 1) < _WHOLE
    return tuple(each.label for each in answer.predictions) if complete else None


def judge_for(
    truth: Truth, answer: TaskResult, labels: Collection[str] | None, *, upright: bool = False
) -> Judge:
    """The judge of a model's task.

    Args:
        truth: what is true of the images.
        answer: the model's for one of them.
        labels: the model's, where they are known.
        upright: see `CocoFile.read`.

    Raises:
        WrongTask: the answer is of another task than the truth is for.
        ConfigurationError: a class that the model lacks.
    """
    if isinstance(truth, ClassFolders) and isinstance(answer, Classification | Multilabel):
        if labels is not None:
            truth.check_labels(answer.model, labels)
        if isinstance(answer, Classification):
            return _Classification(truth)
        return _Multilabel(truth.merged())
    if isinstance(truth, CocoFile) and isinstance(answer, Detection):
        if labels is not None:
            truth.check_labels(answer.model, labels)
        return _Detection(truth, upright=upright)
    if isinstance(truth, MaskFolder) and isinstance(answer, Segmentation):
        return _Segmentation(truth, labels)
    if isinstance(truth, ClassFolders) and isinstance(answer, Embedding):
        return _Embedding(truth)
    if isinstance(truth, TargetFile) and isinstance(answer, Regression):
        return _Regression(truth, answer)
    task = type(answer).__name__.lower()
    if (wanted := _TRUTHS.get(task)) is None:
        raise no_figures(answer.model, "JSON" if task == "jsonanswer" else task)
    tasks, given = _TASKS[type(truth)]
    raise WrongTask(
        f"model {answer.model} answers {task}, and {given} is for {tasks}: give {_TASKS[wanted][1]}"
    )


def no_figures(model: str, task: str) -> WrongTask:
    """The error for a model whose answers have a meaning that only the model knows."""
    return WrongTask(
        f"model {model} answers {task}, whose meaning is the model's own: no figure fits all of "
        "them, so it cannot be evaluated here. Compare the answers of client.infer in a program of "
        "your own"
    )


class _Classification:
    task = "classification"
    top = _TOP
    slow = False

    def __init__(self, truth: ClassFolders) -> None:
        self.paths = [each.path for each in truth.images]
        self._truth = truth
        self._tally = ClassificationTally()
        self._seen: set[str] = set()
        self.figures = self._tally.figures

    def count(self, place: int, answer: TaskResult) -> None:
        predictions = _expected(answer, Classification).predictions
        image = self._truth.images[place]
        self._seen.update(each.label for each in predictions)
        self._tally.add(printable_name(image.path), image.label, predictions)

    def unseen(self) -> list[str]:
        return [each for each in self._truth.classes if each not in self._seen]


class _Multilabel:
    task = "multilabel"
    top = ALL_LABELS
    slow = False

    def __init__(self, truth: ClassFolders) -> None:
        self.paths = [each.path for each in truth.images]
        self._truth = truth
        self._tally = MultilabelTally()
        self._seen: set[str] = set()
        self.figures = self._tally.figures

    def count(self, place: int, answer: TaskResult) -> None:
        labels = _expected(answer, Multilabel).labels
        self._seen.update(labels)
        self._tally.add(self._truth.images[place].labels, labels)

    def unseen(self) -> list[str]:
        return [each for each in self._truth.classes if each not in self._seen]


class _Detection:
    task = "detection"
    top = _TOP
    slow = False

    def __init__(self, truth: CocoFile, *, upright: bool) -> None:
        from fingerpost.deploy.evaluation.figures.detection import DetectionTally

        self.paths = [each.path for each in truth.images]
        self._truth = truth
        self._upright = upright
        self._tally = DetectionTally(truth.labels)
        self._seen: set[str] = set()
        self.figures = self._tally.figures

    def count(self, place: int, answer: TaskResult) -> None:
        from fingerpost.deploy.evaluation.figures.detection import DetectedBox

        found = _expected(answer, Detection)
        self._seen.update(found.labels)
        size = (found.width, found.height, found.orientation)
        boxes = []
        for label, score, *edges in found:
            left, top, right, bottom = (float(each) for each in edges)
            box = (left, top, right, bottom)
            if self._upright:
                box = upright_box(box, *size)
            boxes.append(DetectedBox(label, float(score), *box))
        self._tally.add(place + 1, self._truth.images[place].boxes, boxes)

    def unseen(self) -> list[str]:
        used = {box.label for each in self._truth.images for box in each.boxes}
        return [each for each in self._truth.labels if each in used - self._seen]


class _Segmentation:
    task = "segmentation"
    top = _TOP
    slow = True

    def __init__(self, truth: MaskFolder, labels: Collection[str] | None) -> None:
        from fingerpost.deploy.evaluation.figures.segmentation import SegmentationTally

        self.paths = [each.path for each in truth.images]
        self._truth = truth
        self._tally = SegmentationTally(dict(enumerate(labels or ())))
        self.figures = self._tally.figures

    def count(self, place: int, answer: TaskResult) -> None:
        found = _expected(answer, Segmentation)
        names = dict(zip((int(each) for each in found.classes), found.labels, strict=True))
        self._tally.add(self._truth.images[place].classes(), found.mask, names)

    def unseen(self) -> list[str]:
        return []


class _Embedding:
    task = "embedding"
    top = 1
    slow = False

    def __init__(self, truth: ClassFolders) -> None:
        from fingerpost.deploy.evaluation.figures.embedding import EmbeddingTally

        sizes = Counter(each.label for each in truth.images)
        if max(sizes.values()) < 2:
            raise ConfigurationError(
                f"no class folder in {str(truth.folder)!r} has two images, so that none can be "
                "found by another one: give two or more of each class"
            )
        self.paths = [each.path for each in truth.images]
        self._truth = truth
        self._tally = EmbeddingTally()
        self.figures = self._tally.figures

    def count(self, place: int, answer: TaskResult) -> None:
        image = self._truth.images[place]
        vector = _expected(answer, Embedding).vector
        self._tally.add(place, printable_name(image.path), image.label, vector)

    def unseen(self) -> list[str]:
        return []


class _Regression:
    task = "regression"
    top = 1
    slow = False

    def __init__(self, truth: TargetFile, first: Regression) -> None:
        from fingerpost.deploy.evaluation.figures.regression import RegressionTally

        self.paths = [each.path for each in truth.images]
        self._truth = truth
        self._all = len(first.values)
        self._places = truth.places(first.model, first.labels, self._all)
        names = truth.labels or first.labels or [str(place) for place in self._places]
        self._tally = RegressionTally(names)
        self.figures = self._tally.figures

    def count(self, place: int, answer: TaskResult) -> None:
        values = rows_of(_expected(answer, Regression).values)
        if len(values) != self._all:
            raise BadAnswer(
                f"the model gave {len(values)} numbers, and {self._all} for the first image"
            )
        image = self._truth.images[place]
        chosen = [values[each] for each in self._places]
        self._tally.add(place, printable_name(image.path), image.values, chosen)

    def unseen(self) -> list[str]:
        return []


_Kind = TypeVar("_Kind")


def _expected(answer: TaskResult, kind: type[_Kind]) -> _Kind:
    """The answer, checked to be of the task of the first one.

    Raises:
        WrongTask: another version of the model has another task.
    """
    if isinstance(answer, kind):
        return answer
    raise WrongTask(
        f"version {answer.version} of model {answer.model} answers "
        f"{type(answer).__name__.lower()}, another task than the first answer: name a version, "
        f"{answer.model}@N"
    )
