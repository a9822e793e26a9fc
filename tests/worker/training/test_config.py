"""Every value that cannot work is refused before anything is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.training import train_config

from fingerpost.errors import ConfigurationError
from fingerpost.worker.training import TrainConfig


def _config(**changes: Any) -> TrainConfig:
    return train_config(**{"images": Path("images"), "out": Path("models/flowers")} | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out": Path("models/My Flowers")}, "'My Flowers' is not a valid service name"),
        ({"out": Path("images/flowers")}, "lies inside the images"),
        ({"image_size": 7}, "image_size is 7: give 8 to 2048"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"patience": 0}, "patience is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"validation_split": 0.0}, "validation_split is 0.0"),
        ({"validation_split": 1.0}, "validation_split is 1.0"),
        ({"weights": "no-such-file.h5"}, "'no-such-file.h5', and there is no such file"),
        ({"backbone": "small", "weights": "imagenet"}, "has no imagenet weights"),
        ({"weights": "none", "fine_tune": True}, "fine_tune is for"),
        ({"backbone": "none", "fine_tune": True}, "fine_tune is for"),
    ],
)
def test_a_value_that_cannot_work_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        _config(**changes)
    assert "\n" not in str(caught.value)


def test_weights_default_to_what_the_backbone_has() -> None:
    assert _config().network.starting_weights == "imagenet"
    assert _config(backbone="small").network.starting_weights == "none"
    assert _config().network.weights_file is None


@pytest.mark.shell
def test_importing_the_package_loads_no_framework() -> None:
    code = (
        "import sys, fingerpost.worker.training\n"
        "print([m for m in ('tensorflow', 'keras', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
