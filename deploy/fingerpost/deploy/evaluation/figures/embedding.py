"""The figures of embeddings: whether the nearest other images are of the same class.

Recall@k as in metric learning (Oh Song et al., 2016, arXiv:1511.06452): the share of images of
which at least one of the k nearest others is of their class. Recall@1 is also the accuracy of a
classifier that takes the class of the nearest neighbour. What is near is measured by the angle
(cosine), which for vectors of length 1 gives the same order as the Euclidean distance.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import msgspec

from fingerpost.errors import BadAnswer

__all__ = ["EmbeddedClass", "EmbeddingFigures", "EmbeddingTally", "Neighbour"]

_MOST: Final = 5
# Rows of similarities at once: of 100,000 images they take 400 MB.
_ROWS: Final = 1000


class EmbeddedClass(msgspec.Struct, frozen=True, kw_only=True):
    """How well images of one class find each other.

    Attributes:
        label: its name.
        images: how many have it.
        recall1, recall5: the share of them of which the nearest, or one of the five nearest, is of
            this class; None where the class has a single image.
    """

    label: str
    images: int
    recall1: float | None
    recall5: float | None


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """An image whose nearest other image is of another class."""

    image: str
    label: str
    nearest: str
    nearest_label: str
    cosine: float


class EmbeddingFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How well a model puts images of a class together.

    Attributes:
        recall1, recall5: of all images whose class has two or more.
        dimensions: of a vector.
        alone: images that are the only ones of their class, so that none could be found.
        classes: sorted by name.
        mistakes: in the order of the images.
    """

    recall1: float
    recall5: float
    dimensions: int
    alone: int
    classes: list[EmbeddedClass]
    mistakes: list[Neighbour]


class EmbeddingTally:
    """Keeps the vector of each image, 4 bytes a number."""

    def __init__(self) -> None:
        self._images: dict[int, tuple[str, str, Any]] = {}
        self._dimensions = 0

    def add(self, place: int, image: str, label: str, vector: Any) -> None:
        """Count an image, which has this place among all.

        Args:
            place: by which the images are sorted.
            image: its path.
            label: its class.
            vector: float32 `[dimensions]`, of any length but 0.

        Raises:
            BadAnswer: it has another number of dimensions, no length, or a NaN or infinity.
        """
        import numpy as np

        row = np.asarray(vector, np.float32)
        length = float(np.linalg.norm(row.astype(np.float64)))
        if row.ndim != 1 or (self._dimensions and row.size != self._dimensions):
            raise BadAnswer(
                f"the model gave a vector of shape {list(row.shape)}, and others have "
                f"{self._dimensions or 'one'} dimensions"
            )
        if not np.isfinite(length) or length == 0:
            raise BadAnswer(f"the model gave a vector of length {length:g}, which has no angle")
        self._dimensions = row.size
        self._images[place] = image, label, (row / length).astype(np.float32)

    def figures(self) -> EmbeddingFigures:
        """The figures; after at least one image. Takes time with the square of their number."""
        import numpy as np

        places = sorted(self._images)
        names = [self._images[place][0] for place in places]
        labels = [self._images[place][1] for place in places]
        vectors = np.stack([self._images[place][2] for place in places])
        sizes = Counter(labels)
        found: dict[str, list[int]] = {each: [0, 0] for each in sizes}
        mistakes = []
        most = min(_MOST, len(places) - 1)
        for start in range(0, len(places) if most else 0, _ROWS):
            block = vectors[start : start + _ROWS] @ vectors.T
            for row, similar in enumerate(block, start):
                similar[row] = -np.inf  # itself
            near = np.argpartition(block, -most, axis=1)[:, -most:]
            for row, some in enumerate(near, start):
                label, similar = labels[row], block[row - start]
                if sizes[label] < 2:
                    continue
                first = max(some.tolist(), key=lambda each: (similar[each], -each))
                found[label][0] += labels[first] == label
                found[label][1] += any(labels[each] == label for each in some)
                if labels[first] != label:
                    mistake = Neighbour(
                        image=names[row],
                        label=label,
                        nearest=names[first],
                        nearest_label=labels[first],
                        cosine=round(float(similar[first]), 6),
                    )
                    mistakes.append(mistake)
        asked = sum(size for size in sizes.values() if size > 1)
        return EmbeddingFigures(
            recall1=sum(each[0] for each in found.values()) / max(asked, 1),
            recall5=sum(each[1] for each in found.values()) / max(asked, 1),
            dimensions=self._dimensions,
            alone=len(places) - asked,
            classes=[
                EmbeddedClass(
                    label=label,
                    images=size,
                    recall1=found[label][0] / size if size > 1 else None,
                    recall5=found[label][1] / size if size > 1 else None,
                )
                for label, size in sorted(sizes.items())
            ],
            mistakes=mistakes,
        )
