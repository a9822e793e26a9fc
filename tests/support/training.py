"""The settings of a training run from flat arguments."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from fingerpost.worker.training import AugmentationConfig, FitConfig, NetworkConfig, TrainConfig

__all__ = ["train_config"]

_GROUPS = {"network": NetworkConfig, "fit": FitConfig, "augmentation": AugmentationConfig}


def train_config(**settings: Any) -> TrainConfig:
    """`TrainConfig`, with each setting in the group that has a field of its name."""
    grouped: dict[str, Any] = {}
    for name, group in _GROUPS.items():
        own = {each.name for each in fields(group)} & settings.keys()
        grouped[name] = group(**{key: settings.pop(key) for key in own})
    return TrainConfig(**grouped, **settings)
