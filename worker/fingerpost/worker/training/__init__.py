"""Train an image classifier on a folder of class folders, and write it as a version to serve.

`train(TrainConfig(images=..., out=...))` scans the images, retrains a network that was trained on
ImageNet (or a small one from scratch), and writes `OUT/VERSION/`: a SavedModel that takes raw
pixels, its labels, and a report of its accuracy. Importing this package does not import TensorFlow.
"""

from fingerpost.worker.training.config import (
    AugmentationConfig,
    FitConfig,
    NetworkConfig,
    TrainConfig,
)
from fingerpost.worker.training.dataset import Dataset, Sample, SkippedFile, scan
from fingerpost.worker.training.progress import Progress, RichProgress, SilentProgress
from fingerpost.worker.training.trainer import TrainResult, train

__all__ = [
    "AugmentationConfig",
    "Dataset",
    "FitConfig",
    "NetworkConfig",
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
