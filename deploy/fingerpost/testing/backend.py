"""The worker's side of a fake model: a backend, its labels, and where it is loaded from."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from fingerpost.errors import Draining
from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.engine.outcome import OpenLabels
from fingerpost.worker.images import prepare
from fingerpost.worker.models.files import ModelFiles
from fingerpost.worker.models.manifest import Framework, Manifest
from fingerpost.worker.repository.sources import FoundModel
from fingerpost.worker.repository.versions.policy import VersionPolicy, VersionSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fingerpost.testing.behaviour import Behaviour
    from fingerpost.testing.models import FakeModels
    from fingerpost.worker.backends.base import Item
    from fingerpost.worker.images import ImageConfig

__all__ = ["FakeBackend", "FakeLabels", "FakeSource"]

_Answers: TypeAlias = "tuple[tuple[str, float], ...]"

# The score of a label that an answer does not name. It counts as 0 wherever numbers are compared,
# and its sign tells it from a 0 that was given.
_ABSENT: Final = -0.0


class FakeLabels(OpenLabels):
    """All labels that a version has answered with so far; it gives each answer only its own."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._places: dict[str, int] = {}

    def row(self, answer: _Answers) -> dict[int, float]:
        """Scores by the label's place; a label that is new gets the next one."""
        row = {}
        for label, score in answer:
            place = self._places.setdefault(label, len(self._names))
            if place == len(self._names):
                self._names.append(label)
            row[place] = score + 0.0  # which makes 0.0 of -0.0
        return row

    def __len__(self) -> int:
        return max(1, len(self._names))

    def __getitem__(self, place: int) -> str:
        return self._names[place] if self._names else ""

    def top(self, scores: NDArray[np.float32], top: int) -> _Answers:
        """See `OpenLabels`."""
        given = np.flatnonzero((scores != 0) | ~np.signbit(scores))
        best = sorted(given.tolist(), key=scores.__getitem__, reverse=True)
        return tuple((self._names[i], round(float(scores[i]), 6)) for i in best[: top or None])


class FakeBackend:
    """A version of a fake model, behind the interface of all backends.

    The engine runs a batch that fails again in halves, so that only the bad image fails. A test's
    function is called once an image all the same: the outcomes of a batch that fails are kept for
    its halves.

    Args:
        model, version: for what is received.
        limits: images are decoded once, and refused, within these; None takes any bytes.
    """

    framework = "python"
    platform = "python"
    device = "cpu"

    def __init__(
        self, model: str, version: int, behaviour: Behaviour, limits: ImageConfig | None
    ) -> None:
        self._model = model
        self._version = version
        self._behaviour = behaviour
        self._closed = threading.Event()
        # By the identity of an image that is held in the value, so that it is not given away.
        self._kept: defaultdict[int, deque[tuple[bytes, _Answers | BaseException]]]
        self._kept = defaultdict(deque)
        self._limits = limits
        self.input = ImageInput(encoded=True, check_encoded=False)
        self.labels = FakeLabels()

    def predict(self, images: Sequence[Item]) -> NDArray[np.float32]:
        """See `Backend.predict`; raises the first error of the batch."""
        batch = [bytes(image) for image in images]  # the same objects, where they are bytes
        if not all(self._kept.get(id(image)) for image in batch):
            self._behaviour.begin_run(self._closed)
        if self._closed.is_set():
            raise Draining("this worker has ended")
        outcomes = [self._outcome(image) for image in batch]
        errors = [each for each in outcomes if isinstance(each, BaseException)]
        if errors:
            if len(batch) > 1:
                for image, outcome in zip(batch, outcomes, strict=True):
                    self._kept[id(image)].append((image, outcome))
            raise errors[0]
        rows = [self.labels.row(each) for each in outcomes if not isinstance(each, BaseException)]
        scores = np.full((len(rows), len(self.labels)), _ABSENT, np.float32)
        for line, row in zip(scores, rows, strict=True):
            for place, score in row.items():
                line[place] = score
        return scores

    def end(self) -> None:
        """Let the run in hand fail now."""
        self._closed.set()

    def close(self) -> None:
        """See `Backend.close`."""

    def _outcome(self, image: bytes) -> _Answers | BaseException:
        kept = self._kept.get(id(image))
        if kept:
            outcome = kept.popleft()[1]
            if not kept:
                del self._kept[id(image)]
            return outcome
        try:
            if self._limits is not None:
                prepare(image, self.input, self._limits)
            return self._behaviour.answer(self._model, self._version, image)
        except Exception as error:
            return error


class FakeSource:
    """Fake models as the worker's model repository finds them: a `ModelSource`."""

    single_model = False
    place = None

    def __init__(self, models: FakeModels) -> None:
        self._models = models

    def scan(self) -> dict[str, FoundModel]:
        """All models; every version is wanted."""
        return {
            name: FoundModel(
                versions=dict.fromkeys(self._models.versions(name), ""),
                settings=VersionSettings(
                    policy=VersionPolicy(), aliases=self._models.aliases(name)
                ),
            )
            for name in self._models.names
        }

    def files(self, model: str, version: int) -> ModelFiles:
        """Names the version; there are no files."""
        manifest = Manifest(framework=Framework.PYTHON, python_class="fake:Model")
        nowhere = Path()
        return ModelFiles(
            name=model,
            version=str(version),
            folder=nowhere,
            path=nowhere,
            manifest=manifest,
            labels=(),
        )

    def fingerprint(self, model: str, version: int) -> str:
        """Always the same."""
        return ""
