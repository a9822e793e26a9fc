"""Label a folder of photos by a cluster: `python torch_pipeline.py PROXY MODEL FOLDER`.

Needs `pip install 'fingerpost[torch]'`. The images go from the `DataLoader`'s processes straight
to the workers of the cluster: here, the labels that a teacher model gives, for a student to learn.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from fingerpost.client import SyncClient
from fingerpost.client.adapters.torch import ClassifiedDataset


class Photos(Dataset[Any]):
    """Pairs of a picture, float `[3, 64, 64]` from 0 to 1, and the path of its file."""

    def __init__(self, folder: str) -> None:
        self._paths = sorted(Path(folder).rglob("*.png"))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str]:
        with Image.open(self._paths[index]) as photo:
            pixels = np.array(photo.convert("RGB").resize((64, 64)))
        return torch.from_numpy(pixels).permute(2, 0, 1) / 255, str(self._paths[index])


def main(proxy: str, model: str, folder: str) -> None:
    """Print the path, label and score of each photo, and the size of each batch."""
    # The whole file is sent, `image`; by default it would be the resized tensor, `item[0]`.
    labelled = ClassifiedDataset(Photos(folder), SyncClient(proxy), model, image=path_of)
    loader = DataLoader(labelled, batch_size=8, num_workers=2)
    for (pictures, paths), labels, scores, errors in loader:
        print(f"a batch {tuple(pictures.shape)}")
        for path, label, score, error in zip(paths, labels, scores, errors, strict=True):
            print(path, label or error, f"{score:.2f}")


def path_of(item: tuple[torch.Tensor, str]) -> str:
    """What is to be classified of an item."""
    return item[1]


if __name__ == "__main__":
    main(*sys.argv[1:])
