"""Train an image classifier on a folder of class folders, and leave it ready to be served.

`train(TrainConfig(images=..., out=...))` scans the images, retrains a network that already knows
images (or a small one from scratch), and writes `OUT/VERSION/`: a SavedModel that takes raw pixels,
its labels, and a report of how well it does. Importing this package does not import TensorFlow.
"""

from fingerpost.worker.training.config import TrainConfig
from fingerpost.worker.training.dataset import Dataset, Sample, SkippedFile, scan
from fingerpost.worker.training.progress import Progress, RichProgress, SilentProgress
from fingerpost.worker.training.trainer import TrainResult, train

__all__ = [
    "Dataset",
    "Progress",
    "RichProgress",
    "Sample",
    "SilentProgress",
    "SkippedFile",
    "TrainConfig",
    "TrainResult",
    "scan",
    "train",
]
