"""Multilabel, embedding and regression, of every framework, by a worker's `POST /v1/infer`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image

from fingerpost.client.frames import STREAM_TYPE, FrameDecoder, StreamImage, frame_head
from fingerpost.errors import BadAnswer, ConfigurationError
from tests.support.colours import SIDE
from tests.support.optional import not_none
from tests.support.row_models import ROW_MODELS, expected, write_row_model
from tests.support.task_rig import load, serving_folder

pytestmark = pytest.mark.frameworks

rng = np.random.default_rng(7)
PIXELS = [
    (rng.random((SIDE, SIDE, 3)) * rng.integers(40, 255, 3)).astype(np.uint8) for _ in range(3)
]
ROWS = [expected(each) for each in PIXELS]
JSON = {"Accept": "application/json"}
BINARY = {"Accept": "application/octet-stream"}
LABELS = ("red", "green", "blue")
TASKS = {
    "embedding": "",
    "embedding l2": '[output]\nactivation = "l2"\n',
    "multilabel": '[output]\nactivation = "sigmoid"\nthreshold = 0.6\n',
    "regression": "",
}


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def write(folder: Path, kind: str, task: str) -> None:
    name = task.partition(" ")[0]
    write_row_model(folder, kind, f'task = "{name}"', TASKS[task])
    if name != "embedding":
        (folder / "labels.txt").write_text("\n".join(LABELS))


async def answer(
    http: aiohttp.ClientSession, headers: dict[str, str], *images: bytes, query: str = ""
) -> tuple[dict, bytes]:
    form = aiohttp.FormData()
    for number, image in enumerate(images):
        form.add_field("data", image, filename=f"{number}.png")
    data = images[0] if len(images) == 1 else form
    async with http.post(f"/v1/infer/model{query}", data=data, headers=headers) as response:
        body = await response.read()
        assert response.status == 200, body
        length = int(response.headers.get("Inference-Header-Content-Length", len(body)))
        return json.loads(body[:length]), body[length:]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", sorted(ROW_MODELS))
async def test_answers_are_the_frameworks_own(tmp_path: Path, kind: str, task: str) -> None:
    write(tmp_path / "model", kind, task)
    async with (
        serving_folder(tmp_path / "model") as rig,
        aiohttp.ClientSession(rig.url) as http,
    ):
        assert rig.meta["task"] == task.partition(" ")[0]
        whole, _ = await answer(http, JSON, *map(png, PIXELS), b"not an image")
        assert (whole["model"], whole["version"]) == ("model", "1")
        assert whole["task"] == rig.meta["task"]
        *results, bad = whole["results"]
        assert bad["error"]["code"] == "unsupported_image"
        assert [each["name"] for each in results] == ["0.png", "1.png", "2.png"]
        blob, binary = b"", {}
        if task != "multilabel":
            binary, blob = await answer(http, BINARY, *map(png, PIXELS))
        for number, (result, row) in enumerate(zip(results, ROWS, strict=True)):
            assert result["timings_ms"]["inference"] > 0
            if task == "multilabel":
                scores: dict[str, float] = dict(zip(LABELS, sigmoid(row).tolist(), strict=True))
                ranked = sorted(scores, key=lambda name: -scores[name])
                found = [(label, pytest.approx(scores[label], abs=1e-5)) for label in ranked]
                assert [tuple(each) for each in result["predictions"]] == [
                    each for each in found if scores[each[0]] >= 0.6
                ]
                continue
            if task == "embedding l2":
                row = row / np.linalg.norm(row)
            name = "values" if task == "regression" else "embedding"
            assert result[name] == pytest.approx(row, abs=1e-5)
            assert result.get("labels") == (list(LABELS) if task == "regression" else None)
            (head,) = binary["results"][number]["outputs"]
            assert head == {
                "name": name,
                "datatype": "FP32",
                "shape": [3],
                "parameters": {"binary_data_size": 12},
            }
            part = np.frombuffer(blob[12 * number : 12 * number + 12], "<f4")
            assert part == pytest.approx(row, abs=1e-5)
            assert part.tolist() == np.float32(result[name]).tolist()  # the same numbers


async def test_the_form_is_the_one_that_is_accepted(tmp_path: Path) -> None:
    write(tmp_path / "model", "python", "embedding")
    async with (
        serving_folder(tmp_path / "model") as rig,
        aiohttp.ClientSession(rig.url) as http,
    ):
        for accept, binary in (("*/*", True), ("application/json, */*;q=0.1", False)):
            _, blob = await answer(http, {"Accept": accept}, png(PIXELS[0]))
            assert bool(blob) is binary
        async with http.post(
            "/v1/infer/model", data=png(PIXELS[0]), headers={"Accept": "image/png"}
        ) as response:
            assert response.status == 415
            assert "use application/json" in await response.text()


async def test_other_requests_say_what_to_use(tmp_path: Path) -> None:
    write(tmp_path / "model", "python", "embedding")
    async with (
        serving_folder(tmp_path / "model") as rig,
        aiohttp.ClientSession(rig.url) as http,
    ):
        for path in ("/", "/v1/classify/model", "/v1/models/model:classify"):
            async with http.post(path, data=png(PIXELS[0])) as response:
                assert response.status == 400
                message = await response.text()
                assert "model@1 answers embedding, not classification" in message
                assert "/v1/infer/model" in message
                assert path.startswith("/v1/models") or '"wrong_task"' in message


async def test_tensor_protocols_give_the_whole_row(tmp_path: Path) -> None:
    import asyncio

    write(tmp_path / "model", "onnx", "embedding l2")
    async with serving_folder(tmp_path / "model") as rig:

        def use() -> np.ndarray:
            with triton.InferenceServerClient(f"127.0.0.1:{rig.port}") as client:
                (output,) = client.get_model_metadata("model")["outputs"]
                assert output["shape"] == [-1, 3]
                image = triton.InferInput("image", [1], "BYTES")
                image.set_data_from_numpy(np.array([png(PIXELS[0])], object))
                return not_none(client.infer("model", [image]).as_numpy("scores"))

        found = await asyncio.to_thread(use)
    assert found[0] == pytest.approx(ROWS[0] / np.linalg.norm(ROWS[0]), abs=1e-5)


async def test_a_stream_answers_every_image(tmp_path: Path) -> None:
    write(tmp_path / "model", "python", "embedding")
    frames = [
        frame_head(StreamImage(key=str(number)), len(image)) + image
        for number, image in enumerate([*map(png, PIXELS), b"not an image"])
    ]
    decoder = FrameDecoder(max_body_bytes=0, max_head_bytes=1 << 20, error=BadAnswer)
    async with (
        serving_folder(tmp_path / "model") as rig,
        aiohttp.ClientSession(rig.url) as http,
        http.post(
            "/v1/stream/model", data=b"".join(frames), headers={"Content-Type": STREAM_TYPE}
        ) as response,
    ):
        decoder.feed(await response.read())
    heads = []
    while (frame := decoder.take()) is not None:
        heads.append(json.loads(frame.head))
    assert [each["type"] for each in heads] == ["opened", *["answer"] * 4, "ended"]
    results = {each["result"]["name"]: each["result"] for each in heads[1:-1]}
    for number, row in enumerate(ROWS):
        assert results[str(number)]["embedding"] == pytest.approx(row, abs=1e-5)
        assert results[str(number)]["timings_ms"]["inference"] > 0
    assert results["3"]["error"]["code"] == "unsupported_image"


async def test_a_classifier_answers_the_same_as_by_classify(tmp_path: Path) -> None:
    write_row_model(tmp_path / "model", "python", "", '[output]\nactivation = "softmax"\n')
    async with (
        serving_folder(tmp_path / "model") as rig,
        aiohttp.ClientSession(rig.url) as http,
    ):
        assert "task" not in rig.meta
        whole, _ = await answer(http, {}, png(PIXELS[0]), query="?top=2")
        async with http.post("/v1/classify/model?top=2", data=png(PIXELS[0])) as response:
            classified = await response.json()
    assert whole["task"] == "classification"
    assert whole["results"][0]["predictions"] == classified["results"][0]["predictions"]


async def test_scores_that_are_no_probabilities_are_named(tmp_path: Path) -> None:
    write_row_model(tmp_path / "model", "python", 'task = "multilabel"')
    async with (
        serving_folder(tmp_path / "model") as rig,
        aiohttp.ClientSession(rig.url) as http,
        http.post("/v1/infer/model", data=png(PIXELS[0])) as response,
    ):
        assert response.status == 500
        error = (await response.json())["error"]
    assert error["code"] == "bad_output"
    assert "float32 [3]" in error["message"]
    assert 'activation = "sigmoid"' in error["message"]


def test_labels_must_be_as_many_as_the_numbers(tmp_path: Path) -> None:
    write_row_model(tmp_path / "model", "python", 'task = "regression"')
    (tmp_path / "model" / "labels.txt").write_text("age\n")
    with pytest.raises(ConfigurationError, match="gives 3 scores for an image, but has 1 labels"):
        load(tmp_path / "model")
