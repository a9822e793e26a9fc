"""Python classes: of pixels, of scaled tensors with channels first, and of encoded images."""

from __future__ import annotations

from pathlib import Path

from tests.support.colours import write_labels

_PIXELS = """\
import numpy as np

class Colours:
    height = width = 16

    def __init__(self, folder):
        self.labels = (folder / "labels.txt").read_text().split()

    def predict(self, batch):
        assert batch.dtype == np.uint8 and batch.shape[1:] == (16, 16, 3)
        scores = np.exp(batch.mean(axis=(1, 2)) / 16)
        return scores / scores.sum(axis=1, keepdims=True)
"""

_CHANNELS_FIRST = """\
class Colours:
    def __init__(self, folder, device):
        self.device = device

    def predict(self, batch):
        assert batch.shape[1:] == (3, 16, 16)
        return batch.mean(axis=(2, 3), keepdims=True) * (255 / 16)
"""

_ENCODED = """\
import io
import numpy as np
from PIL import Image

class Colours:
    encoded = True

    def __init__(self, folder):
        pass

    def predict(self, batch):
        images = [Image.open(io.BytesIO(each)).convert("RGB") for each in batch]
        scores = np.exp(np.stack([np.asarray(image).mean((0, 1)) for image in images]) / 16)
        return (scores / scores.sum(axis=1, keepdims=True)).tolist()
"""


def write_class(folder: Path, code: str, more: str = "") -> None:
    """A class in `colours.py` of the folder, and its manifest."""
    (folder / "colours.py").write_text(code)
    (folder / "model.toml").write_text(
        f'framework = "python"\nclass = "colours:Colours"\n{more}', encoding="utf-8"
    )
    write_labels(folder)


def channels_first(folder: Path) -> None:
    more = """
        [input]
        height = 16
        width = 16
        layout = "NCHW"
        [preprocessing]
        std = 255
        [output]
        activation = "softmax"
    """
    write_class(folder, _CHANNELS_FIRST, more)


BUILDERS = {
    "python-pixels": lambda folder: write_class(folder, _PIXELS),
    "python-channels-first": channels_first,
    "python-encoded": lambda folder: write_class(folder, _ENCODED),
}
