"""What the terminal shows."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fingerpost.worker.training import RichProgress

pytestmark = pytest.mark.shell


def test_each_stage_gets_a_bar_that_fits_80_columns() -> None:
    out = io.StringIO()
    with RichProgress(Console(file=out, width=80)) as progress:
        progress.advance(1)  # before any stage: nothing to draw
        progress.begin("reading images", 2)
        progress.advance(2)
        progress.begin("loading weights", None)
        progress.begin("training", 1560)
        progress.advance(702)
        progress.epoch(18, loss=0.03, accuracy=0.99, val_accuracy=0.986)
    lines = out.getvalue().splitlines()
    assert "2/2" in lines[0]
    assert "0/?" in lines[1]
    assert "702/1560" in lines[2]
    assert "epoch 18, accuracy 98.6%" in lines[2]
