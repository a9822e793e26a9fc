"""`fingerpost infer` against a real worker."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from tests.support.colours import SIDE, encoded
from tests.support.processes import FINGERPOST
from tests.support.row_models import expected, write_row_model
from tests.support.task_rig import serving_folder
from tests.support.vision_models import PAIRS, write_vision_model
from typer.testing import CliRunner

from fingerpost.deploy.commands.infer import _targets, add_to
from fingerpost.deploy.named_inputs import read_inputs
from fingerpost.errors import ConfigurationError

pytestmark = pytest.mark.system


async def run(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *FINGERPOST, "infer", *arguments, stdout=-1, stderr=-1
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_answers_and_errors(tmp_path: Path) -> None:
    write_row_model(tmp_path / "model", "python", 'task = "regression"')
    (tmp_path / "model" / "labels.txt").write_text("a\nb\nc\n")
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(encoded("red"))
    bad.write_bytes(b"no image")
    row = expected(np.full((SIDE, SIDE, 3), Image.open(good).getpixel((0, 0))))
    async with serving_folder(tmp_path / "model") as rig:
        target = ("--model", "model", "--registry", f"static://127.0.0.1:{rig.port}")
        code, out, err = await run(str(good), str(bad), *target)
        assert code == 1
        assert out == f"{good}: a {row[0]:.6g}  b {row[1]:.6g}  c {row[2]:.6g}\n"
        assert "bad.png" in err
        code, out, _ = await run("--json", str(good), *target)
        assert code == 0
        found = json.loads(out)
        assert found["task"] == "regression"
        assert found["values"] == pytest.approx(row, abs=1e-5)
        assert found["labels"] == ["a", "b", "c"]
        code, _, err = await run("--save", str(tmp_path / "out"), str(good), *target)
        assert code != 0
        assert "model gives a regression; leave it out" in err
        code, _, err = await run("--save", str(tmp_path), str(good), *target)
        assert code == 1
        assert f"would write over {good}: name another folder" in err
        assert good.read_bytes() == encoded("red")


async def test_several_inputs_of_one_item(tmp_path: Path) -> None:
    write_vision_model(tmp_path / "model", PAIRS, "python", "tensors")
    (tmp_path / "a.png").write_bytes(encoded("red"))
    (tmp_path / "weights.json").write_text("[0.5, 1, 2]")
    left, right = (f"--input={side}={tmp_path}/a.png" for side in ("left", "right"))
    async with serving_folder(tmp_path / "model") as rig:
        target = ("--model", "model", "--registry", f"static://127.0.0.1:{rig.port}")
        weights = f"--input=weights={tmp_path}/weights.json"
        code, out, _ = await run(left, right, "--input", "weights=[0.5, 1, 2]", *target)
        assert (code, out) == (0, "left right weights: distance [1]  means [2, 3]\n")
        code, out, _ = await run("--json", left, right, weights, *target)
        found = json.loads(out)
        assert (code, found["inputs"], found["task"]) == (0, "left right weights", "tensors")
        assert found["outputs"]["distance"] == [0.0]
        code, _, err = await run(left, right, *target)
        assert (code, "'weights' is missing" in err) == (1, True), err
        code, _, err = await run(str(tmp_path / "a.png"), *target)
        assert (code, "--input NAME=FILE for each" in err) == (1, True), err


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("left",), "'left' is not NAME=FILE or NAME=NUMBERS"),
        (("=a.png",), "is not NAME=FILE"),
        (("left=1", "left=2"), "left: it is given twice"),
        (("left=nowhere.png",), "nowhere.png is neither a file nor numbers"),
        (("left=true",), "is neither a file nor numbers"),
        (("left=" + "[" * 5000,), "is neither a file nor numbers"),
        (("left=a\0b",), "is neither a file nor numbers"),
    ],
)
def test_inputs_that_are_not_valid(given: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_inputs(given)
    assert says in str(caught.value)


def test_images_or_inputs(tmp_path: Path) -> None:
    assert read_inputs(["a=1", "b=[[0.5], [2]]", f"c={__file__}"]) == {
        "a": 1, "b": [[0.5], [2]], "c": Path(__file__),
    }  # fmt: skip
    app = typer.Typer()
    add_to(app)
    for arguments in ([], ["x.png", "--input", "a=1"], ["--input=a=1", f"--save={tmp_path}"]):
        done = CliRunner().invoke(app, ["--model", "m", *arguments])
        assert isinstance(done.exception, ConfigurationError)
        assert "--input" in str(done.exception)


def test_images_of_one_name_are_saved_under_several(tmp_path: Path) -> None:
    images = [Path("a/0.png"), Path("b/0.jpg"), Path("a/0.png"), Path("1.png"), Path("0-2.png")]
    found = [_targets(images, tmp_path / "new")[image].name for image in images]
    assert found == ["0.png", "0-2.png", "0.png", "1.png", "0-2-2.png"]
