"""Serve a Python object: `fingerpost registry &`, then `python serve_object.py`.

Needs `pip install 'fingerpost[python]'`. Ask it with `fingerpost proxy &`, then
`curl --data-binary @cat.jpg "$(curl -s 127.0.0.1:12480)"`.
"""

import sys

import numpy as np
from numpy.typing import NDArray

from fingerpost.worker import serve


class Colours:
    """How much there is of each colour in an image."""

    height = width = 32
    labels = ("red", "green", "blue")

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Scores `[N, 3]` of uint8 `[N, 32, 32, 3]`, RGB."""
        scores: NDArray[np.float64] = batch.mean(axis=(1, 2)) / 255
        return scores


if __name__ == "__main__":
    serve(Colours(), name="colours", registry=sys.argv[1] if len(sys.argv) > 1 else None)
