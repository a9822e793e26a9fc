"""`fingerpost evaluate` of real models, here and behind a real worker."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.support.colours import encoded
from tests.support.processes import FINGERPOST
from tests.support.row_models import expected, write_row_model
from tests.support.task_rig import serving_folder
from tests.support.vision_models import DETECTORS, LABELS, PAIRS, write_vision_model

pytestmark = pytest.mark.system


async def run(*arguments: object) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *FINGERPOST, "evaluate", *map(str, arguments), stdout=-1, stderr=-1
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def write_boxes(folder: Path) -> tuple[Path, Path]:
    """Images with a red and a blue rectangle; the boxes in the file are right but for one."""
    photos = folder / "photos"
    photos.mkdir()
    said: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    said["categories"] = [{"id": n, "name": name} for n, name in enumerate(LABELS, 1)]
    for number in range(4):
        image = Image.new("RGB", (48, 48))
        image.paste((255, 0, 0), (4, 6, 20, 30))
        image.paste((0, 0, 255), (24, 24, 44, 40))
        image.save(photos / f"{number}.png")
        said["images"].append({"id": number, "file_name": f"{number}.png"})
        blue = [24, 24, 20, 16] if number else [0, 0, 10, 10]
        for category, box in ((1, [4, 6, 16, 24]), (3, blue)):
            said["annotations"].append({"image_id": number, "category_id": category, "bbox": box})
    path = folder / "boxes.json"
    path.write_text(json.dumps(said))
    return photos, path


async def test_a_detector_of_a_cluster(tmp_path: Path) -> None:
    photos, boxes = write_boxes(tmp_path)
    write_vision_model(tmp_path / "model", DETECTORS, "python", "detection")
    plot = tmp_path / "curve.png"
    async with serving_folder(tmp_path / "model") as rig:
        target = ("--model", "model", "--registry", f"static://127.0.0.1:{rig.port}")
        what = ("--images", photos, "--annotations", boxes)
        code, out, err = await run(*target, *what, "--json", "-", "--plot", plot, "--min-map", 0.78)
        assert code == 0, err
        found = json.loads(out)
        assert (found["task"], found["local"], found["answered"]) == ("detection", False, 4)
        # All red ones are right, and 3 of 4 blue ones: the wrong one is the first of equal scores,
        # and recall ends at 3/4.
        classes = {each["label"]: each for each in found["figures"]["classes"]}
        assert classes["red"]["ap"] == pytest.approx(1)
        assert (classes["blue"]["precision"], classes["blue"]["recall"]) == (0.75, 0.75)
        assert classes["blue"]["ap50"] == pytest.approx(0.75 * 76 / 101)
        assert classes["green"]["ap"] is None
        assert found["workers"] == {f"127.0.0.1:{rig.port}": 4}
        assert found["limits"][0]["reached"]
        with Image.open(plot) as drawn:
            assert drawn.size == (800, 700)

        code, out, _ = await run(*target, *what, "--min-map50", 0.99)
        assert code == 3
        assert "NOT REACHED: map50 is 0.78" in out
        assert "blue         4      75.0%   75.0%" in out
        code, _, err = await run(*target, "--images", photos)
        assert code == 1
        assert "has no class folders" in err
        labels = tmp_path / "some.txt"
        labels.write_text("red\ngreen\n")
        code, _, err = await run(*target, *what, "--labels", labels)
        assert code == 1
        assert "the category 'blue' is not a label of model model, which has 'red', 'green'" in err
        code, _, err = await run(*target, *what, "--min-score", 0.1)
        assert code == 1
        assert "--min-score is for a model that is loaded here" in err


async def test_a_classifier_in_this_process(tmp_path: Path) -> None:
    model = tmp_path / "colours"
    write_row_model(model, "python", "", '[output]\nactivation = "softmax"\n')
    (model / "labels.txt").write_text("red\ngreen\nblue\n")
    for name, colour in (("red", "red"), ("green", "green"), ("blue", "green")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "1.png").write_bytes(encoded(colour))
    (tmp_path / "photos" / "red" / "bad.png").write_bytes(b"no image")
    what = ("--model", model, "--images", tmp_path / "photos")
    report, plot = tmp_path / "report.json", tmp_path / "confusion.png"
    code, out, err = await run(*what, "--json", report, "--plot", plot)
    assert code == 1, err
    assert "3 of 4 images answered in this process" in out, out + err
    assert re.search("^top-1 +66.7%$", out, re.MULTILINE)  # as wide as images/s makes it
    assert "Most frequent mistakes: blue taken for green (1)" in out
    assert "1 image failed, and in no figure:" in out
    assert "bad.png: these 8 bytes are not an image" in out
    assert json.loads(report.read_text())["figures"]["confusion"] == [
        [0, 1, 0],
        [0, 1, 0],
        [0, 0, 1],
    ]
    assert plot.read_bytes().startswith(b"\x89PNG")
    code, _, err = await run(*what, "--max-failed", 1, "--min-top1", 0.5)
    assert code == 0, err
    (tmp_path / "photos" / "red").rename(tmp_path / "photos" / "rot")
    code, out, err = await run(*what)
    assert (code, out) == (1, "")
    assert "the class folder 'rot' in " in err
    assert "which has 'red', 'green', 'blue': name each folder after a label" in err


def write_greys(folder: Path) -> dict[str, float]:
    """Plain images in two class folders, and the mean of red that the model says of each."""
    told = {}
    for number, grey in enumerate((20, 30, 200, 210)):
        name = f"{'dark' if number < 2 else 'light'}/{number}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (16, 16), (grey, 255 - grey, 40))
        image.save(folder / name)
        told[name] = float(expected(np.asarray(image))[0])
    return told


async def test_a_regression_of_a_cluster(tmp_path: Path) -> None:
    write_row_model(tmp_path / "model", "python", 'task = "regression"')
    (tmp_path / "model" / "labels.txt").write_text("red\ngreen\nblue\n")
    told = write_greys(tmp_path / "photos")
    targets, plot = tmp_path / "targets.csv", tmp_path / "points.png"
    rows = [f"{name},{value + 0.25 * (number == 0)}" for number, (name, value) in
            enumerate(told.items())]  # fmt: skip
    targets.write_text("\n".join(["file,red", *rows]))
    async with serving_folder(tmp_path / "model") as rig:
        target = ("--model", "model", "--registry", f"static://127.0.0.1:{rig.port}")
        what = ("--images", tmp_path / "photos", "--targets", targets)
        limits = ("--max-mae", 0.1, "--max-rmse", 0.1, "--min-r2", 0.9)
        code, out, err = await run(*target, *what, *limits, "--json", "-", "--plot", plot)
    assert code == 3, err
    found = json.loads(out)
    assert (found["task"], found["local"], found["answered"]) == ("regression", False, 4)
    (red,) = found["figures"]["values"]
    assert (red["label"], red["mae"], red["rmse"]) == (
        "red",
        pytest.approx(0.0625, abs=1e-5),
        pytest.approx(0.125, abs=1e-5),
    )
    assert [each["reached"] for each in found["limits"]] == [True, False, True]
    with Image.open(plot) as drawn:
        assert drawn.size == (700, 600)


async def test_embeddings_in_this_process(tmp_path: Path) -> None:
    model = tmp_path / "greys"
    write_row_model(model, "python", 'task = "embedding"')
    write_greys(tmp_path / "photos")
    code, out, err = await run(
        "--model", model, "--images", tmp_path / "photos", "--min-recall1", 1
    )
    assert code == 0, out + err
    assert re.search("^recall@1 +100.0%$", out, re.MULTILINE)
    assert re.search("^dark +2 +100.0% +100.0%$", out, re.MULTILINE)
    assert "reached: recall1 is 1.0000, --min-recall1 1" in out


async def test_tensors_are_refused_by_their_name(tmp_path: Path) -> None:
    write_vision_model(tmp_path / "pairs", PAIRS, "python", "tensors")
    write_greys(tmp_path / "photos")
    code, out, err = await run("--model", tmp_path / "pairs", "--images", tmp_path / "photos")
    assert (code, out) == (1, "")
    assert "model pairs answers tensors, whose meaning is the model's own" in err
