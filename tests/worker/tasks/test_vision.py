"""Detection, segmentation and tensors on every framework, through a worker."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import tritonclient.http as triton
from PIL import ExifTags, Image

from fingerpost.client import Client, Detection, Segmentation, Tensors
from fingerpost.errors import InvalidRequest
from tests.support.optional import not_none
from tests.support.task_rig import TaskRig, serving_folder
from tests.support.vision_models import (
    DETECTORS,
    LABELS,
    PAD,
    PAIRS,
    SEGMENTERS,
    SIDE,
    write_vision_model,
)

pytestmark = pytest.mark.frameworks

KINDS = sorted(DETECTORS)
CHANNELS_FIRST = ("onnx", "openvino", "torch")
# left, top, right, bottom of the red and the green object, in an image of 96 x 60.
RED, GREEN = [4, 10, 24, 30], [40, 2, 90, 50]
WIDTH, HEIGHT = 96, 60


def png(pixels: np.ndarray, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", exif=exif)
    return out.getvalue()


def objects() -> np.ndarray:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for channel, (left, top, right, bottom) in enumerate((RED, GREEN)):
        pixels[top:bottom, left:right, channel] = 255
    return pixels


@pytest.mark.parametrize("kind", KINDS)
async def test_boxes_are_in_pixels_of_the_image_as_it_was_sent(tmp_path: Path, kind: str) -> None:
    write_vision_model(tmp_path / "model", DETECTORS, kind, "detection", PAD)
    async with (
        serving_folder(tmp_path / "model") as rig,
        Client(f"static://127.0.0.1:{rig.port}") as client,
        aiohttp.ClientSession(rig.url) as http,
    ):
        for orientation in range(1, 9):
            found = await client.infer(png(objects(), orientation), "model", timeout_s=30)
            assert isinstance(found, Detection)
            assert (found.width, found.height) == (WIDTH, HEIGHT)
            assert found.orientation == orientation
            boxes = {each.label: each for each in found}
            assert set(boxes) == {"red", "green"}  # blue has no pixel, and so no score
            for label, expected in (("red", RED), ("green", GREEN)):
                assert boxes[label].score == 1
                # The image is halved: each edge is even.
                assert list(boxes[label][2:]) == pytest.approx(expected, abs=1e-4)
            assert sorted(found.classes.tolist()) == [0, 1]
        async with http.post("/v1/infer/model", data=png(objects())) as response:
            (result,) = (await response.json())["results"]
        assert sorted(zip(result["labels"], result["boxes"], strict=True)) == [
            ("green", pytest.approx(GREEN)),
            ("red", pytest.approx(RED)),
        ]
        form = aiohttp.FormData()
        for number in range(3):
            form.add_field("data", png(objects()) if number else b"no", filename=f"{number}")
        async with http.post("/v1/infer/model", data=form) as response:
            bad, *good = (await response.json())["results"]
        assert bad["error"]["code"] == "unsupported_image"
        assert all(sorted(each["labels"]) == ["green", "red"] for each in good)


def scene(height: int, width: int) -> np.ndarray:
    """A pixel of one channel each."""
    classes = np.random.default_rng(3).integers(0, 3, (height // 6, width // 6))
    classes = classes.repeat(6, axis=0).repeat(6, axis=1)
    return (np.eye(3, dtype=np.uint8) * 200)[classes]


@pytest.mark.parametrize("kind", KINDS)
async def test_masks_are_those_of_the_image_as_it_was_sent(tmp_path: Path, kind: str) -> None:
    write_vision_model(tmp_path / "model", SEGMENTERS, kind, "segmentation", PAD)
    pixels = scene(36, SIDE)
    classes = pixels.argmax(axis=2)
    async with (
        serving_folder(tmp_path / "model") as rig,
        Client(f"static://127.0.0.1:{rig.port}") as client,
        aiohttp.ClientSession(rig.url) as http,
    ):
        for orientation in (1, 3, 6):
            found = await client.infer(png(pixels, orientation), "model", timeout_s=30)
            assert isinstance(found, Segmentation)
            assert (found.width, found.height) == (SIDE, 36)
            assert np.array_equal(found.mask, classes)
            assert found.labels == LABELS
        data = png(pixels)
        async with http.post("/v1/infer/model?mask=rle", data=data) as response:
            (result,) = (await response.json())["results"]
        runs = np.array(result["runs"])
        assert np.array_equal(np.repeat(runs[:, 0], runs[:, 1]), classes.ravel())
        async with http.post("/v1/infer/model?size=model", data=data) as response:
            (result,) = (await response.json())["results"]
        mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(result["png"]))))
        # Of the models of any size that is the image, filled up to a multiple of 16.
        assert mask.shape == (SIDE, SIDE)
        async with http.post("/v1/infer/model?mask=svg", data=data) as response:
            assert response.status == 400
        # Images of several sizes in one batch.
        form = aiohttp.FormData()
        for number in range(6):
            form.add_field("data", png(scene(36 + 12 * (number % 3), SIDE)), filename=f"{number}")
        async with http.post("/v1/infer/model", data=form) as response:
            results = (await response.json())["results"]
        assert [each["height"] for each in results] == [36, 48, 60] * 2
        for number, each in enumerate(results):
            mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(each["png"]))))
            if each["height"] <= SIDE or kind in CHANNELS_FIRST:
                assert np.array_equal(mask, scene(36 + 12 * (number % 3), SIDE).argmax(axis=2))


Arrays = tuple[np.ndarray, ...]


async def by_infer(
    rig: TaskRig, http: aiohttp.ClientSession, inputs: Arrays, outputs: Arrays
) -> None:
    """All forms of `POST /v1/infer`: the client's, JSON by rows and by columns, multipart."""
    left, right, weights = inputs
    distance, means = outputs
    async with Client(f"static://127.0.0.1:{rig.port}") as client:
        for one in (
            {"left": png(left[0]), "right": right[0], "weights": weights[0]},
            {"weights": weights[0].tolist(), "right": png(right[0]), "left": left[0]},
            {"left": Image.fromarray(left[0]), "right": png(right[0]), "weights": weights[0]},
        ):
            found = await client.infer(one, "model", timeout_s=30)
            assert isinstance(found, Tensors)
            assert found["distance"] == pytest.approx(distance[0], rel=1e-5)
            assert found["means"] == pytest.approx(means[0], rel=1e-5)
        with pytest.raises(InvalidRequest, match=r"'right' is missing; the request has left \("):
            await client.infer({"left": left[0], "weights": weights[0]}, "model")
        with pytest.raises(InvalidRequest, match=r"'top' \(int64 \[\]\) is not one of the model"):
            await client.infer({"left": left[0], "top": 1}, "model")
        with pytest.raises(InvalidRequest, match=r"'weights' is int64 \[2\].* float32 \[3\]"):
            await client.infer({"left": left[0], "right": right[0], "weights": [1, 2]}, "model")
    rows = [
        {
            "left": {"b64": base64.b64encode(png(left[place])).decode()},
            "right": {"b64": base64.b64encode(png(right[place])).decode()},
            "weights": weights[place].tolist(),
        }
        for place in range(2)
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    form = aiohttp.FormData()
    for place in range(2):
        form.add_field("left", png(left[place]), filename="left.png")
        form.add_field("right", png(right[place]), filename="right.png")
        form.add_field("weights", json.dumps(weights[place].tolist()))
    headers = {"Accept": "application/json"}
    bodies: tuple[dict[str, Any], ...] = (
        {"json": {"instances": rows}},
        {"json": {"inputs": columns}},
        {"data": form},
    )
    for body in bodies:
        async with http.post("/v1/infer/model", headers=headers, **body) as response:
            assert response.status == 200, await response.text()
            results = (await response.json())["results"]
        for place, each in enumerate(results):
            named = {output["name"]: output["data"] for output in each["outputs"]}
            assert named["distance"] == pytest.approx(distance[place], rel=1e-5)
            assert named["means"] == pytest.approx(means[place].ravel(), rel=1e-5)
    for change, status, what in (
        ({"weights": [1, None, 2]}, 400, "input 'weights' cannot be read as float32: null is not"),
        ({"right": {"b64": "aGVsbG8="}}, 415, "input 'right': these 5 bytes are not an image"),
    ):
        body = {"instances": [rows[0] | change]}
        async with http.post("/v1/infer/model", headers=headers, json=body) as response:
            assert response.status == status
            assert what in (await response.json())["error"]["message"]
    rows[1]["weights"] = [1, 2, 3, 4]
    async with http.post("/v1/infer/model", headers=headers, json={"instances": rows}) as response:
        good, bad = (await response.json())["results"]
    assert "outputs" in good
    assert "'weights' is float32 [4] for an item" in bad["error"]["message"]


async def by_tfserving(
    http: aiohttp.ClientSession, kind: str, inputs: Arrays, outputs: Arrays
) -> None:
    """Rows and columns of numbers by their names, with a signature of its own."""
    left, right, weights = inputs
    distance, means = outputs
    if kind in CHANNELS_FIRST:  # numbers go into the model as they are
        left, right = left.transpose(0, 3, 1, 2), right.transpose(0, 3, 1, 2)
    named = {"left": left.tolist(), "right": right.tolist(), "weights": weights.tolist()}
    rows = [{name: each[place] for name, each in named.items()} for place in range(2)]
    signature = "compare" if kind in ("tensorflow", "litert") else "serving_default"
    path = "/v1/models/model"
    body: dict[str, Any] = {"signature_name": signature, "instances": rows}
    async with http.post(f"{path}:predict", json=body) as response:
        assert response.status == 200, await response.text()
        predictions = (await response.json())["predictions"]
    for place, each in enumerate(predictions):
        assert each["distance"] == pytest.approx(distance[place], rel=1e-5)
        assert np.allclose(each["means"], means[place], rtol=1e-5)
    async with http.post(f"{path}:predict", json={"inputs": named}) as response:
        found = (await response.json())["outputs"]
    assert np.allclose(found["distance"], distance, rtol=1e-5)
    assert np.allclose(found["means"], means, rtol=1e-5)
    async with http.get(f"{path}/metadata") as response:
        signatures = (await response.json())["metadata"]["signature_def"]["signature_def"]
    (known,) = signatures.values()
    assert list(signatures) == [signature]
    assert known["inputs"]["weights"]["dtype"] == "DT_FLOAT"
    assert known["outputs"]["means"]["tensor_shape"]["dim"][1]["size"] == "2"
    for bad, what in (
        ({"signature_name": "nothing", "instances": rows}, "signature_name 'nothing'"),
        ({"instances": [{"left": rows[0]["left"]}]}, "'right' is missing"),
        ({"instances": [rows[0]["left"]]}, "names no input: this model takes left"),
        ({"inputs": {**named, "weights": named["weights"][:1]}}, "not as many items"),
        ({"inputs": {**named, "weights": [["a"], ["b"]]}}, "input 'weights'"),
    ):
        async with http.post(f"{path}:predict", json=bad) as response:
            assert response.status == 400
            assert what in (await response.json())["error"]


@pytest.mark.parametrize("kind", KINDS)
async def test_every_input_and_output_by_its_name(tmp_path: Path, kind: str) -> None:
    """By the unmodified client of Triton: a pair of images with numbers beside them."""
    write_vision_model(tmp_path / "model", PAIRS, kind, "tensors")
    rng = np.random.default_rng(5)
    left, right = rng.integers(0, 255, (2, 2, SIDE, SIDE, 3)).astype(np.uint8)
    weights = rng.random((2, 3)).astype(np.float64)  # converted to the model's own type
    means = np.stack([left.mean((1, 2)), right.mean((1, 2))], 1)
    distance = (np.abs(means[:, 0] - means[:, 1]) * weights).sum(1, keepdims=True)

    def infer(port: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            inputs = []
            encoded = np.array([png(each) for each in right], object)
            for name, value, datatype in (
                ("weights", weights, "FP64"),
                ("left", left, "UINT8"),
                ("right", encoded, "BYTES"),
            ):
                one = triton.InferInput(name, list(value.shape), datatype)
                inputs.append(one.set_data_from_numpy(value))
            result = client.infer("model", inputs)
            two = client.infer(
                "model", inputs, outputs=[triton.InferRequestedOutput("means", binary_data=False)]
            )
            assert np.allclose(not_none(two.as_numpy("means")), means, atol=1e-3)
            assert two.as_numpy("distance") is None
            metadata = client.get_model_metadata("model")
            found = not_none(result.as_numpy("distance")), not_none(result.as_numpy("means"))
            return metadata, found[0], found[1]

    async with (
        serving_folder(tmp_path / "model") as rig,
        aiohttp.ClientSession(rig.url) as http,
    ):
        metadata, got_distance, got_means = await asyncio.to_thread(infer, rig.port)
        assert got_distance == pytest.approx(distance, rel=1e-5)
        assert got_means == pytest.approx(means, rel=1e-5)
        assert {each["name"]: each["datatype"] for each in metadata["inputs"]} == {
            "left": "BYTES",
            "right": "BYTES",
            "weights": "FP32",
        }
        assert {each["name"]: each["shape"] for each in metadata["outputs"]} == {
            "distance": [-1, 1],
            "means": [-1, 2, 3],
        }
        await by_infer(rig, http, (left, right, weights), (distance, means))
        await by_tfserving(http, kind, (left, right, weights), (distance, means))
        for path, what in (
            ("/v1/infer/model", "takes left (image [48, 48, 3]), right (image [48, 48, 3]), weig"),
            ("/v1/classify/model", "answers tensors, not classification"),
        ):
            async with http.post(path, data=png(left[0])) as response:
                assert response.status == 400
                assert what in await response.text()
        for inputs, what in (
            ([("left", [2, 3])], "input 'right' is missing; the request has left (float32 [3])"),
            ([("left", [2, 3]), ("right", [2, 3]), ("weights", [1, 3])], "as many items"),
            (
                [("left", [1, 3]), ("right", [1, 3]), ("weights", [1, 4])],
                "input 'left' is float32 [3] for an item",
            ),
        ):
            body = {
                "inputs": [
                    {"name": n, "datatype": "FP32", "shape": s, "data": [0] * int(np.prod(s))}
                    for n, s in inputs
                ]
            }
            async with http.post("/v2/models/model/infer", json=body) as response:
                assert response.status == 400
                assert what in await response.text()
