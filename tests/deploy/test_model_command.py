"""`fingerpost model`: each subcommand as a user runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from tests.support.builders.onnx import channels_first, write
from tests.support.colours import SIDE, encoded, write_frozen_graph
from tests.support.processes import FINGERPOST

pytestmark = [pytest.mark.frameworks, pytest.mark.system]


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*FINGERPOST, "model", *(str(each) for each in arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == code, done
    return done


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "colours"
    folder.mkdir()
    channels_first(folder)
    return folder


def test_show_prints_a_model_toml(colours: Path) -> None:
    shown = run("show", colours).stdout
    assert "colours@1: onnxruntime" in shown.splitlines()[0]
    table = tomllib.loads(shown)
    assert table["input"] == {"height": 16, "width": 16, "channels": 3, "layout": "NCHW"}
    written = colours.parent / "written"
    written.mkdir()
    (written / "model.onnx").write_bytes((colours / "model.onnx").read_bytes())
    (written / "model.toml").write_text(shown)
    assert tomllib.loads(run("show", written).stdout) == table


def test_check_says_ok_or_what_is_wrong(colours: Path, tmp_path: Path) -> None:
    assert run("check", colours).stdout.startswith("OK: colours@1, onnxruntime ")
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\n")
    failed = run("check", colours, "--labels", labels, code=1)
    assert failed.stdout == ""
    assert failed.stderr.startswith("fingerpost: model colours gives 3 scores for an image")
    vectors = shutil.copytree(colours, tmp_path / "vectors")
    (vectors / "model.toml").write_text('framework = "onnx"\ntask = "embedding"\n')
    assert "embedding, 3 numbers, batches of 1 to 32" in run("check", vectors).stdout


def test_check_says_what_is_probably_wrong_and_what_to_write(tmp_path: Path) -> None:
    write(tmp_path, ["N", 3, SIDE, SIDE], end="Identity", weight=16.0)
    ok, logits, unscaled, where, *toml = run("check", tmp_path).stdout.splitlines()
    assert ok.startswith("OK: ")
    assert logits.startswith("Note: the scores are not probabilities: they go from ")
    assert unscaled.startswith("Note: pixels probably go in unscaled")
    assert where == f"Write into a new {tmp_path / 'model.toml'}:"
    (tmp_path / "model.toml").write_text("\n".join(toml))
    assert len(run("check", tmp_path).stdout.splitlines()) == 1
    (tmp_path / "model.toml").unlink()
    assert "unscaled" not in run("check", tmp_path, "--input-std", 1).stdout


def test_what_a_message_says_to_write_helps(tmp_path: Path) -> None:
    write(tmp_path, ["N", 3, "H", "W"])
    graph = tmp_path / "keras_model.onnx"
    (tmp_path / "model.onnx").rename(graph)
    assert "choose one with --image-size" in run("check", graph, code=1).stderr
    # Its name is not one that clients could ask for, which nobody does here.
    assert run("check", graph, "--image-size", 16).stdout.startswith("OK: keras_model@1, ")
    assert run("show", graph, "--image-size", 16).stdout.startswith("# keras_model@1: ")
    assert (
        "'Wrong' is not a valid service name"
        in run("check", graph, "--name", "Wrong", code=1).stderr
    )
    quick = ("--seconds", 0.1, "--batch-sizes", 1, "--threads", 1, "--device", "cpu")
    assert "keras_model@1" in run("bench", graph, "--image-size", 16, *quick).stdout


def test_local_commands_need_no_name(tmp_path: Path) -> None:
    write_frozen_graph(tmp_path, encoded_input=False)
    graph = tmp_path / "Output_Graph.pb"
    (tmp_path / "output_graph.pb").rename(graph)
    assert "--output-layer" in run("check", graph, "--output-layer", "nosuch", code=1).stderr
    given = ("--input-layer", "input", "--output-layer", "final_result")
    assert run("check", graph, *given).stdout.startswith("OK: Output_Graph@1, tensorflow")
    image = tmp_path / "red.png"
    image.write_bytes(encoded("red", (SIDE, SIDE)))
    done = subprocess.run(
        [*FINGERPOST, "classify", "--model", graph, image, "--json"],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    answer = json.loads(done.stdout)
    assert (answer["model"], answer["predictions"][0][0]) == ("Output_Graph", "red")
    served = subprocess.run(
        [*FINGERPOST, "worker", "--model", graph],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert "'Output_Graph' is not a valid service name" in served.stderr
    assert "choose one with --name" in served.stderr


def test_export_then_bench(tmp_path: Path) -> None:
    write_frozen_graph(tmp_path / "colours", encoded_input=False)
    out = tmp_path / "models" / "colours" / "2"
    said = run("export", tmp_path / "colours", "--out", out, "--count", 8).stdout
    assert said.startswith(f"wrote {out}: the same best label for 8 of 8 generated images, largest")
    refused = run("export", tmp_path / "colours", "--out", out, code=1)
    assert "exists already" in refused.stderr

    quick = ("--seconds", 0.3, "--batch-sizes", "1,2", "--threads", 1, "--device", "cpu")
    table = run("bench", out.parent, *quick).stdout.splitlines()
    assert table[0].split()[:5] == ["model", "framework", "device", "agreement", "threads"]
    assert [line.split()[0] for line in table[1:5]] == ["colours@2"] * 4
    assert "For throughput: colours@2 (o" in table[-1]
    found = json.loads(run("bench", out.parent, *quick, "--json", "--accuracy", 0.99).stdout)
    assert [each["batch"] for each in found["measurements"]] == [1, 2, 1, 2]
    assert [each["candidate"]["agreement"] for each in found["measurements"]] == [1.0] * 4
    assert found["best_latency"]["batch"] == 1
    assert "--batch-sizes 0,x: give" in run("bench", out, "--batch-sizes", "0,x", code=1).stderr


def test_quantize(tmp_path: Path) -> None:
    first = tmp_path / "models" / "colours" / "1"
    first.mkdir(parents=True)
    channels_first(first)
    (tmp_path / "images" / "red").mkdir(parents=True)
    for number in range(4):
        (tmp_path / "images" / "red" / f"{number}.png").write_bytes(encoded("red", (20, 20)))
    given = (first.parent, "--images", tmp_path / "images")
    said = run("quantize", *given, "--method", "percentile").stdout
    assert said.startswith(
        f"wrote {first.parent / '2'}: 0.0 MB instead of 0.0; the same best label"
    )
    assert said.endswith("accuracy 100.00% instead of 100.00% on 2 images\n")
    assert (
        "report.json: accuracy 100.00% (100.00% before it was" in run("check", first.parent).stdout
    )
    found = json.loads(run("quantize", *given, "--to", tmp_path / "int8", "--json").stdout)
    assert (found["out"], found["images"], found["agreement"]) == (str(tmp_path / "int8"), 2, 1.0)
    assert "exists already" in run("quantize", *given, "--to", tmp_path / "int8", code=1).stderr
