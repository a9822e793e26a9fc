"""`fingerpost demo --task detection`, whole, with a short training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from tests.support.command_line import invoke
from tests.support.processes import marked_processes

# The demo as a user starts it, but for a sixth of the training, fewer drawings, and one worker:
# TensorFlow takes seven seconds of processor time to start in each.
_DEMO = """
import dataclasses
from fingerpost.deploy.demo.shapes import detector, show

detector._IMAGES, detector._EPOCHS, show._IMAGES = 400, 5, 20
three = show.cluster_config
show.cluster_config = lambda model: dataclasses.replace(three(model), workers=1)
from fingerpost.deploy.entry import main

main()
"""


@pytest.mark.timeout(360)
def test_boxes_are_found_judged_and_drawn(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _DEMO, "demo", "--task", "detection", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "FINGERPOST_TEST_RUN": str(tmp_path)},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout)
    report = found["report"]
    assert (report["task"], report["answered"], report["failed"]) == ("detection", 20, [])
    assert report["figures"]["map50"] >= 0.25  # 0.53; 1.0 after the whole training
    assert [each["label"] for each in report["figures"]["classes"]] == [
        "circle",
        "square",
        "triangle",
    ]
    assert len(report["workers"]) == 1
    for title in ("1  Train", "2  Start", "3  Find", "4  The boxes"):
        assert title in run.stderr
    assert "data/shapes/boxes.png shows them on data/shapes/images/" in run.stderr
    with (
        Image.open(tmp_path / found["image"]) as before,
        Image.open(tmp_path / found["picture"]) as after,
    ):
        assert ImageChops.difference(before.convert("RGB"), after).getbbox()
    assert (tmp_path / "models" / "shapes" / "1" / "model.toml").is_file()
    assert marked_processes(str(tmp_path)) == []


def test_arguments_that_do_not_fit() -> None:
    done = invoke("demo", "--task", "detection", "--secure", COLUMNS="200", TERM="dumb")
    assert done.exit_code == 2
    assert "--secure is for --task classification" in done.output
