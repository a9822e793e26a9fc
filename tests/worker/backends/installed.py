"""A model's class that is installed, not in the model's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class Model:
    """Scores are the first pixel's channels."""

    height = width = 1

    def __init__(self, folder: Path) -> None:
        assert folder.is_dir()

    def predict(self, batch: np.ndarray) -> np.ndarray:
        return batch[:, 0, 0]
