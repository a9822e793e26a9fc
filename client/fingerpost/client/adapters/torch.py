"""Datasets of PyTorch with the label of every image from the cluster (extra `torch`)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import torch
from torch.utils.data import Dataset, IterableDataset

from fingerpost.client.adapters.classifier import Classifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Unpack

    from fingerpost.client.adapters.classifier import Options
    from fingerpost.client.sync import SyncClient

__all__ = ["Classified", "ClassifiedDataset", "ClassifiedIterableDataset", "first"]

T = TypeVar("T")


class Classified(NamedTuple, Generic[T]):
    """An item of the wrapped dataset with the label, score (0 to 1) and error of its image.

    For an image that failed the label is `""`, the score NaN and the error `code: message`;
    otherwise the error is `""`. `DataLoader` collates it field by field, as any named tuple: labels
    and errors become tuples, scores a float64 tensor `[N]`.
    """

    item: T
    label: str
    score: float
    error: str


def first(item: Any) -> Any:
    """The image of an item: the item, or its first element if it is a tuple, as in torchvision."""
    return item[0] if isinstance(item, tuple | list) else item


class _Wrapper(Generic[T]):
    """The items of a dataset, classified.

    Args:
        dataset: the dataset with the images.
        client: in each worker process of a `DataLoader` it becomes a client of that process.
        model: `digits`, `digits@3` or `digits@canary`.
        options: `timeout_s`, `concurrency`, `on_error` and `shrink` of `Client.stream`.
        image: returns the image of an item: a tensor `[C, H, W]` or `[H, W]`, uint8 or float from 0
            to 1, or anything else that `Client.classify` takes. With the start method `spawn` it
            must be picklable.

    Raises:
        InvalidName, ConfigurationError: on construction.
    """

    def __init__(
        self,
        dataset: Any,
        client: SyncClient,
        model: str,
        *,
        image: Callable[[T], Any] = first,
        **options: Unpack[Options],
    ) -> None:
        self._dataset = dataset
        self._image = image
        self._classify = Classifier(client, model, options)

    def _classified(self, items: Iterable[T]) -> Iterator[Classified[T]]:
        sent: deque[T] = deque()

        def images() -> Iterator[Any]:
            for item in items:
                sent.append(item)
                yield _sendable(self._image(item))

        for answer in self._classify(images()):
            yield Classified(sent.popleft(), *answer)


class ClassifiedDataset(_Wrapper[T], Dataset[Classified[T]]):  # type: ignore[misc]
    """A map-style dataset; the images of a `DataLoader`'s batch are classified concurrently.

    ::

        photos = ImageFolder("photos", transform)
        dataset = ClassifiedDataset(photos, SyncClient("http://proxy:12480"), "flowers")
        for (pictures, targets), labels, scores, errors in DataLoader(dataset, 64, num_workers=4):
            ...
    """

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Classified[T]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Classified[T]]:
        """The items of a whole batch; called by `DataLoader` (PyTorch 2.0)."""
        return list(self._classified(self._dataset[each] for each in indices))


class ClassifiedIterableDataset(_Wrapper[T], IterableDataset[Classified[T]]):  # type: ignore[misc]
    """An iterable dataset; it keeps the order, and reads ahead as little as `Client.stream`."""

    def __iter__(self) -> Iterator[Classified[T]]:
        return self._classified(self._dataset)


def _sendable(image: Any) -> Any:
    """A tensor as a NumPy array; a float tensor from 0 to 1 is converted to uint8."""
    if not isinstance(image, torch.Tensor):
        return image
    image = image.detach().cpu()
    if image.is_floating_point():
        image = image.float()
        if image.numel() and image.min() >= 0 and image.max() <= 1:
            image = (image * 255).round().to(torch.uint8)
    return (image.movedim(0, -1) if image.ndim == 3 else image).numpy()
