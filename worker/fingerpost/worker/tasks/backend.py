"""A model of several tensors, or of outputs that are not one row: how its items are run and read.

Items whose tensors have other shapes cannot be in one batch: the queue of a model of free size
chooses its batches by shape (see `BucketBatcher`). Such a model pads its images to a multiple
(`input.multiple`), so that equal shapes are common.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fingerpost.errors import BadOutput, ConfigurationError, FingerpostError
from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.backends.pixels import stack
from fingerpost.worker.backends.raised import is_the_models
from fingerpost.worker.engine.inference import failure_of
from fingerpost.worker.engine.warm_up_times import measure
from fingerpost.worker.models.manifest import Layout
from fingerpost.worker.tasks.items import AnswerOptions, TaskItem
from fingerpost.worker.tasks.tensors import TensorsReader

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fingerpost.worker.backends.tensors.base import TensorModel
    from fingerpost.worker.engine.warm_up_times import Learn
    from fingerpost.worker.models.tasks import Task
    from fingerpost.worker.tasks.answer import TaskAnswer
    from fingerpost.worker.tasks.inputs import ModelInputs

    Outputs = Mapping[str, NDArray[Any]]

__all__ = ["OutputReader", "TaskBackend"]

logger = logging.getLogger(__name__)

# The side of the gray image on which a model of free size is warmed up.
_WARM_SIDE = 224
_RAW = TensorsReader()


class OutputReader(Protocol):
    """Makes the answer for one item of a model's outputs."""

    @property
    def task(self) -> Task:
        """What the model answers."""
        ...

    @property
    def whole_outputs(self) -> bool:
        """Whether the outputs have no axis of the batch, so that items run one at a time."""
        ...

    def read(self, outputs: Outputs, item: TaskItem, canvas: tuple[int, int]) -> TaskAnswer:
        """The answer: see `DetectionReader.read`. Raises `BadOutput`."""
        ...


class TaskBackend:
    """A model whose items are `TaskItem`s and whose outcomes are `TaskAnswer`s.

    Attributes:
        inputs: what it takes.
        outputs: the types and shapes of what it gives for one item, as its warm-up found them.
        signature: see `Engine.signature`.
        bucket: tells which items can run in one batch; None where all can.
    """

    def __init__(self, model: TensorModel, inputs: ModelInputs, reader: OutputReader) -> None:
        self._model = model
        self._reader = reader
        self.inputs = inputs
        self.outputs: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        self.bucket = _shapes if self._step is None and inputs.any_size else None
        first = next(iter(inputs.images.values()), ImageInput())
        # A batch of other sizes is filled up here, and runs of one item need no filling.
        self.input = replace(first, batch=None)
        self.framework = model.framework
        self.platform = model.platform
        self.device = model.device
        self.signature = str(getattr(model, "signature", ""))

    def predict(self, images: Sequence[Any]) -> NDArray[np.float32]:
        """Not of this backend: its outcomes are not rows."""
        raise TypeError("a model of several tensors has no rows of scores: use run_items")

    def close(self) -> None:
        """Free the model's memory."""
        self._model.close()

    def run_items(
        self, items: list[TaskItem], padded_size: Callable[[int], int]
    ) -> tuple[list[TaskAnswer | FingerpostError], bool]:
        """Run a batch; an outcome for each item, and whether no run had to be repeated."""
        groups: dict[Any, list[int]] = {}
        for place, item in enumerate(items):
            groups.setdefault(item.shapes, []).append(place)
        outcomes: dict[int, TaskAnswer | FingerpostError] = {}
        clean = True
        for places in groups.values():
            step = self._step or len(places)
            for start in range(0, len(places), step):
                part = places[start : start + step]
                found, once = self._run([items[place] for place in part], padded_size)
                outcomes.update(zip(part, found, strict=True))
                clean = clean and once
        return [outcomes[place] for place in range(len(items))], clean

    def warm_up_items(
        self, max_batch: int, sizes: tuple[int, ...], learn: Learn | None = None
    ) -> None:
        """Run real inferences on gray images and zeros, blocking; see `inference.warm_up`.

        Raises:
            ConfigurationError: the model raises, or its outputs are not those of its task.
        """
        item = self._blank()
        parts: list[Outputs] = []
        first_s: list[float] = []
        sizes = sizes or tuple(sorted({1, max_batch if self._step is None else 1}))
        for size in sizes:
            began = time.monotonic()
            try:
                outputs = self._outputs([item] * size, size)
                parts = self._parts(outputs, size)
                self._reader.read(parts[0], item, self._canvas(item))
            except BaseException as error:
                if not is_the_models(error):
                    raise
                raise ConfigurationError(
                    f"the model fails on a gray image (batch of {size}): {error}"
                ) from error
            first_s.append(time.monotonic() - began)
        if learn is not None:
            measure(lambda size: self._outputs([item] * size, size), sizes, first_s, learn)
        self.outputs = {name: (each.dtype, each.shape) for name, each in parts[0].items()}

    def described(self) -> str:
        """Its inputs and outputs for one item, for people; after its warm-up."""
        takes = [
            f"{name} (image, {each.height or 'any'} x {each.width or 'any size'})"
            for name, each in self.inputs.images.items()
        ]
        takes += [f"{name} ({each.dtype})" for name, each in self.inputs.numbers.items()]
        gives = [
            f"{name} ({dtype.name} {list(shape)})" for name, (dtype, shape) in self.outputs.items()
        ]
        return f"takes {', '.join(takes)}; gives {', '.join(gives)} for one item"

    @property
    def _whole(self) -> bool:
        return self._reader.whole_outputs or not self.inputs.batched

    @property
    def _step(self) -> int | None:
        """How many items run at once at most; None for any number."""
        return 1 if self._whole else self.inputs.batch

    def _run(
        self, items: list[TaskItem], padded_size: Callable[[int], int]
    ) -> tuple[list[TaskAnswer | FingerpostError], bool]:
        """Run items of equal shapes; halves by themselves where the model raises."""
        count = len(items)
        try:
            parts = self._parts(self._outputs(items, padded_size(count)), count)
        except BaseException as error:
            if not is_the_models(error):
                raise
            if count == 1:
                return [failure_of(error)], False
        else:
            return [self._answer(*each) for each in zip(parts, items, strict=True)], True
        half = count // 2
        found = [self._run(part, padded_size)[0] for part in (items[:half], items[half:])]
        return [*found[0], *found[1]], False

    def _outputs(self, items: list[TaskItem], size: int) -> dict[str, NDArray[Any]]:
        size = self._step or size
        feeds: dict[str, NDArray[Any]] = {}
        for name, wanted in self.inputs.images.items():
            values = [item.values[name] for item in items]
            feeds[name] = stack(values, _of_size(wanted, values[0]), size=size)
        for name, spec in self.inputs.numbers.items():
            batch = np.stack([item.values[name] for item in items])
            if size > len(items):
                filled = np.broadcast_to(batch[-1:], (size - len(items), *batch.shape[1:]))
                batch = np.concatenate([batch, filled])
            feeds[name] = batch if spec.dtype == "object" else batch.astype(spec.dtype, copy=False)
        if not self.inputs.batched:
            feeds = {name: each[0] for name, each in feeds.items()}
        return self._model.run(feeds)

    def _parts(self, outputs: dict[str, NDArray[Any]], count: int) -> list[Outputs]:
        """The outputs of each item."""
        if self._whole:
            alone = {name: each for name, each in outputs.items() if each.ndim}
            # Of one image, with an axis for it all the same.
            ones = all(len(each) == 1 for each in alone.values())
            if ones and any(each.ndim > 2 for each in alone.values()):
                return [{name: each[0] for name, each in alone.items()}]
            return [outputs]
        for name, each in outputs.items():
            if each.ndim < 1 or len(each) < count:
                raise BadOutput(
                    f"output {name!r} is {each.dtype.name} {list(each.shape)} for {count} items: "
                    "its first axis must be the items (batch.axis = false in model.toml for a "
                    "model without a batch)"
                )
        return [{name: each[i] for name, each in outputs.items()} for i in range(count)]

    def _answer(self, outputs: Outputs, item: TaskItem) -> TaskAnswer | FingerpostError:
        reader: OutputReader = _RAW if item.options.raw else self._reader
        try:
            return reader.read(outputs, item, self._canvas(item))
        except FingerpostError as error:
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)
        except Exception as error:
            logger.exception("the answer of %s", self._reader.task.value)
            return failure_of(error)

    def _canvas(self, item: TaskItem) -> tuple[int, int]:
        """Height and width of the first image in the model."""
        for name, wanted in self.inputs.images.items():
            sized = _of_size(wanted, item.values[name])
            return sized.height, sized.width
        return 0, 0

    def _blank(self) -> TaskItem:
        values: dict[str, NDArray[Any]] = {}
        for name, wanted in self.inputs.images.items():
            height, width = wanted.height or _WARM_SIDE, wanted.width or _WARM_SIDE
            values[name] = np.full((height, width, wanted.channels), 128, np.uint8)
        for name, spec in self.inputs.numbers.items():
            sides = () if spec.shape is None else spec.shape[1:]
            shape = tuple(1 if side is None else side for side in sides)
            values[name] = np.zeros(shape, None if spec.dtype == "object" else spec.dtype)
            if spec.dtype == "object":
                values[name] = np.full(shape, b"", object)
        return TaskItem(values=values, placement=None, options=AnswerOptions())


def _shapes(item: TaskItem) -> Hashable:
    return item.shapes


def _of_size(wanted: ImageInput, value: NDArray[Any]) -> ImageInput:
    """The input for an image of its own size, where the model takes any."""
    if wanted.height:
        return wanted
    first = value.dtype != np.uint8 and wanted.layout is Layout.NCHW
    height, width = value.shape[1:] if first else value.shape[:2]
    return replace(wanted, height=height, width=width)
