"""Models of any size, with a batch fixed to 1, and without a batch, by Triton's own client.

And the batches of a model that gets images of several sizes.
"""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image

from tests.support.optional import not_none
from tests.support.shape_models import SHAPE_MODELS, SHAPES, SIDE, write_shape_model
from tests.support.task_rig import serving_folder
from tests.support.waiting import until

pytestmark = pytest.mark.frameworks


SLOW = """\
import time
from pathlib import Path

import numpy as np


class Slow:
    def __init__(self, folder):
        self.go = folder / "go"

    def predict(self, batch):
        count, height = batch.shape[:2]
        while height < 100 and not self.go.exists():  # not at the warm-up
            time.sleep(0.01)
        return {"size": np.full(count, count), "side": np.full(count, height)}
"""


async def test_images_of_equal_sizes_run_together(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "slow.py").write_text(SLOW)
    (folder / "model.toml").write_text(
        'framework = "python"\nclass = "slow:Slow"\ntask = "tensors"\n[input]\nmultiple = 8\n'
        "[batch]\nmax = 4\n"
    )
    sides = [9, 24, 33] * 8  # filled up to 16, 24 and 40
    form = aiohttp.FormData()
    for side in sides:
        out = io.BytesIO()
        Image.new("RGB", (8, side)).save(out, "PNG")
        form.add_field("data", out.getvalue(), filename="image.png")

    async def ask_for_all(http: aiohttp.ClientSession) -> list[dict[str, Any]]:
        headers = {"Accept": "application/json"}
        async with http.post("/v1/infer/model", data=form, headers=headers) as response:
            assert response.status == 200, await response.text()
            results = (await response.json())["results"]
        return [{each["name"]: each["data"] for each in result["outputs"]} for result in results]

    async with serving_folder(folder) as rig, aiohttp.ClientSession(rig.url) as http:
        engine = rig.served.engine
        answer = asyncio.create_task(ask_for_all(http))
        # All but those of the first run, which waits, are decoded.
        await until(lambda: engine.inside == 24 and engine.queued == engine.ready >= 20)
        (folder / "go").touch()
        found = await answer
    assert [each["side"] for each in found] == [[(side + 7) // 8 * 8] for side in sides]
    runs = sum(1 / each["size"][0] for each in found)
    # Six full ones, and one more for each size if the first run had not four images. Batches in the
    # order of arrival have two images of one size at most, and take 16 to 18.
    assert runs < 9.5


def ask(port: int, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    names = {np.dtype("float32"): "FP32", np.dtype("uint8"): "UINT8"}
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        wanted = [
            triton.InferInput(name, list(value.shape), names[value.dtype]).set_data_from_numpy(
                value
            )
            for name, value in inputs.items()
        ]
        result = client.infer("model", wanted)
        return {name: not_none(result.as_numpy(name)) for name in ("means", "same")}


def described(port: int) -> tuple[dict[str, Any], dict[str, Any]]:
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        return client.get_model_metadata("model"), client.get_model_config("model")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", sorted(SHAPE_MODELS))
async def test_models_of_other_axes(tmp_path: Path, kind: str, shape: str) -> None:
    write_shape_model(tmp_path / "model", kind, shape)
    rng = np.random.default_rng(3)
    sides = (13, 29) if shape == "any size" else (SIDE, SIDE)
    pixels = rng.integers(0, 255, (3, *sides, 3)).astype(np.uint8)
    offset = rng.random((3, 3)).astype(np.float32)
    means = pixels.astype(np.float64).mean((1, 2)) + offset
    own = pixels if kind in ("tensorflow", "litert") else pixels.transpose(0, 3, 1, 2)
    own = np.ascontiguousarray(own).astype(np.float32)
    async with serving_folder(tmp_path / "model") as rig:
        for image in (pixels, own):  # the pixels of an image, and the model's own tensor
            found = await asyncio.to_thread(ask, rig.port, image=image, offset=offset)
            assert found["means"] == pytest.approx(means, rel=1e-5)
            assert np.array_equal(found["same"], own)
        found = await asyncio.to_thread(ask, rig.port, image=own[0], offset=offset[0])
        model, config = await asyncio.to_thread(described, rig.port)
    shapes = {each["name"]: each["shape"] for each in model["inputs"] + model["outputs"]}
    batch = [] if shape == "no batch" else [-1]
    # Without the axis of items it is one item; of a model without a batch, so is the answer.
    assert found["means"] == pytest.approx(means[0] if not batch else means[:1], rel=1e-5)
    assert np.array_equal(found["same"], own[0] if not batch else own[:1])
    assert shapes["offset"] == shapes["means"] == [*batch, 3]
    assert shapes["image"] == [*batch, 1]
    assert (config["max_batch_size"] == 0) == (not batch)
