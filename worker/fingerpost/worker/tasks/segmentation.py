"""Reads the output of a segmenter: a class for each pixel of the image as it was sent."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fingerpost.errors import BadOutput
from fingerpost.worker.models.tasks import SegmentationSpec, Task
from fingerpost.worker.tasks.answer import TaskAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from fingerpost.worker.tasks.items import TaskItem

__all__ = ["SegmentationReader", "runs_of"]


class SegmentationReader:
    """Makes the answer for an image of a segmenter's output.

    Args:
        spec: how the output is read.
        output: the output's name; None where the model has only one.
        labels: the model's; without any, classes are named by their numbers.
    """

    task = Task.SEGMENTATION
    whole_outputs = False

    def __init__(
        self, spec: SegmentationSpec | None, output: str | None, labels: tuple[str, ...]
    ) -> None:
        self._spec = spec or SegmentationSpec()
        self._output = output
        self._labels = labels

    def read(
        self, outputs: Mapping[str, NDArray[Any]], item: TaskItem, canvas: tuple[int, int]
    ) -> TaskAnswer:
        """The answer; see `DetectionReader.read`.

        Raises:
            BadOutput: the output is missing, of another shape, not finite, or has a class that the
                model has no label for.
        """
        name, output = self._chosen(outputs)
        classes = self._classes(name, output)
        known = len(self._labels)
        highest = int(classes.max())
        if int(classes.min()) < 0 or highest > 65535 or (known and highest >= known):
            raise BadOutput(
                f"output {name!r}, {list(output.shape)}, has class {highest} or a negative one, "
                f"but the classes are 0 to {known - 1 if known else 65535}: give as many labels as "
                "the model has classes"
            )
        wide = max(highest, self._spec.outside) > 255
        mask = Image.fromarray(classes.astype(np.uint16 if wide else np.uint8))
        placement = item.placement
        if placement is not None and not item.options.model_size:
            mask = mask.crop(placement.seen(classes.shape, canvas))
            mask = placement.map_to_sent(mask, self._spec.outside)
        found = np.asarray(mask)
        present = np.unique(found).astype(np.int64)
        fields: dict[str, Any] = {
            "width": mask.width,
            "height": mask.height,
            "labels": [self._labels[i] if known > i else str(i) for i in present.tolist()],
        }
        if item.options.mask == "rle":
            return TaskAnswer(
                fields={**fields, "runs": runs_of(found)}, arrays={"classes": present}
            )
        return TaskAnswer(fields=fields, arrays={"classes": present, "png": _png(mask)})

    def _chosen(self, outputs: Mapping[str, NDArray[Any]]) -> tuple[str, NDArray[Any]]:
        if self._output is not None and self._output in outputs:
            return self._output, outputs[self._output]
        if self._output is None and len(outputs) == 1:
            return next(iter(outputs.items()))
        # As torchvision and Hugging Face name theirs, which may have a second output.
        for name in ("out", "logits"):
            if self._output is None and name in outputs:
                return name, outputs[name]
        have = ", ".join(f"{name} {list(each.shape)}" for name, each in outputs.items())
        raise BadOutput(
            f"the model gives {have}: name the one with the classes as output.name in model.toml"
        )

    def _classes(self, name: str, output: NDArray[Any]) -> NDArray[np.int64]:
        """Class numbers `[height, width]` of scores or of class numbers."""
        if output.ndim == 3 and 1 in (output.shape[0], output.shape[-1]):
            axis = 0 if output.shape[0] == 1 else 2
            output = output.squeeze(axis)
        if output.dtype.kind == "f" and not np.isfinite(output).all():
            raise BadOutput(
                f"output {name!r}, {list(output.shape)}, has numbers that are not finite"
            )
        if output.ndim == 2 and output.size:
            numbers = output.astype(np.int64)
            if np.array_equal(numbers, output):
                return numbers
        elif output.ndim == 3 and output.size:
            best: NDArray[np.int64] = output.argmax(axis=2 if self._spec.channels_last else 0)
            return best
        last = self._spec.channels_last
        raise BadOutput(
            f"output {name!r} is {output.dtype.name} {list(output.shape)} for an image: expected "
            f"scores {'[height, width, classes]' if last else '[classes, height, width]'} or whole "
            "numbers [height, width]"
        )


def runs_of(mask: NDArray[Any]) -> list[list[int]]:
    """`[class, length]` of each run of equal pixels, row by row from the top left corner."""
    flat = mask.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    lengths = np.diff(np.append(starts, len(flat)))
    runs: list[list[int]] = np.stack([flat[starts].astype(np.int64), lengths], axis=1).tolist()
    return runs


def _png(mask: Image.Image) -> bytes:
    out = io.BytesIO()
    mask.save(out, "PNG", compress_level=1)
    return out.getvalue()
