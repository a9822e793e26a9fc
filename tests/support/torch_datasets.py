"""Datasets of PyTorch, as users have them: of pictures, and of encoded images in a stream."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from tests.support.colours import LABELS, RGB, encoded

__all__ = ["Numbered", "Pictures", "picture"]


def picture(colour: str) -> torch.Tensor:
    """uint8 `[3, 20, 30]`."""
    return torch.tensor(RGB[colour], dtype=torch.uint8).view(3, 1, 1).expand(3, 20, 30)


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Pictures and their targets, as torchvision's datasets have them."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return picture(LABELS[index % 3]), index


class Numbered(IterableDataset[bytes]):
    """Encoded images; each worker process reads its share."""

    def __iter__(self) -> Iterator[bytes]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for index in range(first, 24, step):
            yield encoded(LABELS[index % 3]) if index else b""
