"""Inference by foreign workers: a real worker of other tasks by the other protocols."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from PIL import ExifTags, Image
from tests.client.conftest import Server
from tests.support.row_models import expected, write_row_model
from tests.support.task_rig import serving_folder
from tests.support.vision_models import PAIRS, SIDE, write_vision_model

from fingerpost.client import (
    Client,
    Detection,
    Embedding,
    JsonAnswer,
    Multilabel,
    Regression,
    Tensors,
)
from fingerpost.errors import BadAnswer, InvalidRequest, WrongTask

pytestmark = pytest.mark.frameworks

RNG = np.random.default_rng(8)
PIXELS = RNG.integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)


def url(port: int, **meta: str) -> str:
    return f"static://127.0.0.1:{port}?model=model&" + "&".join(f"{k}={v}" for k, v in meta.items())


def png(pixels: np.ndarray, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", exif=exif)
    return out.getvalue()


async def test_rows_of_a_real_worker(tmp_path: Path) -> None:
    write_row_model(tmp_path / "model", "python", 'task = "embedding"')
    pixels = RNG.integers(0, 255, (16, 16, 3)).astype(np.uint8)
    async with serving_folder(tmp_path / "model") as rig:
        for meta, kind in (
            ({"protocol": "v2", "task": "embedding"}, Embedding),
            ({"protocol": "v2", "task": "embedding", "encoding": "binary"}, Embedding),
            ({"protocol": "v2", "task": "regression"}, Regression),
            ({"protocol": "tfserving", "task": "embedding"}, Embedding),
        ):
            async with Client(url(rig.port, **meta)) as client:
                found: Any = await client.infer(pixels, "model")
                assert isinstance(found, kind)
                row = found.values if isinstance(found, Regression) else found.vector
                assert row == pytest.approx(expected(pixels), abs=1e-5)
                assert found.worker == f"static-127.0.0.1-{rig.port}"
                with pytest.raises(WrongTask, match=r"use client\.infer"):
                    await client.classify(pixels, "model")
                assert client.stats.attempts == 2


async def test_named_inputs_to_a_real_worker(tmp_path: Path) -> None:
    write_vision_model(tmp_path / "model", PAIRS, "python", "tensors")
    inputs = {"left": png(PIXELS), "right": PIXELS[::-1].copy(), "weights": [0.5, 1, 2]}
    means = PIXELS.mean((0, 1))
    async with serving_folder(tmp_path / "model") as rig:
        for meta in (
            {"protocol": "v2"},
            {"protocol": "v2", "encoding": "binary"},
            {"protocol": "tfserving"},
        ):
            if meta["protocol"] == "tfserving":  # its numbers are the model's own
                inputs = {**inputs, "right": PIXELS[::-1].astype(np.float32)}
            async with Client(url(rig.port, task="tensors", **meta)) as client:
                found = await client.infer(inputs, "model")
                assert isinstance(found, Tensors)
                assert np.allclose(found["means"], [means, means], atol=1e-3)
                assert np.shape(found["distance"]) == (1,)
                with pytest.raises(InvalidRequest, match="'weights' is missing"):
                    await client.infer({k: inputs[k] for k in ("left", "right")}, "model")


class Canned:
    """Somebody's own server, which answers what it is told."""

    def __init__(self) -> None:
        self.answer: object = None
        self.body = b""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.body = await request.read()
        return web.json_response(self.answer)


async def test_json_and_boxes_of_somebodys_server() -> None:
    canned = Canned()
    server = Server(canned.serve)
    await server.start()
    try:
        canned.answer = {"caption": "a red square", "tokens": [1, 2]}
        async with Client(url(server.port, protocol="form", task="json", field="photo")) as client:
            found: Any = await client.infer(png(PIXELS), "model")
            assert isinstance(found, JsonAnswer)
            assert found.value == canned.answer
            await client.infer({"photo": png(PIXELS), "words": [1, 2]}, "model")
            assert b'name="photo"; filename="image.png"' in canned.body
            assert b'name="words"\r\n\r\n[1,2]\r\n' in canned.body
        meta = {"protocol": "v2", "task": "detection", "size": "48x24", "labels": "cat,dog"}
        # Left half of the upright image, whose sides are 48 x 24 at the model.
        edges = {"boxes": [[0, 0, 12, 48]], "scores": [0.5], "classes": [1]}
        canned.answer = {
            "outputs": [
                {
                    "name": name,
                    "datatype": "FP32",
                    "shape": [1, *np.shape(value)],
                    "data": np.ravel(value).tolist(),
                }
                for name, value in edges.items()
            ]
        }
        async with Client(url(server.port, **meta)) as client:
            for orientation, left_half in (
                (1, (0, 0, 50, 60)),
                (2, (50, 0, 100, 60)),
                (3, (50, 0, 100, 60)),
                (4, (0, 0, 50, 60)),
                (5, (0, 0, 100, 30)),
                (6, (0, 30, 100, 60)),
                (7, (0, 30, 100, 60)),
                (8, (0, 0, 100, 30)),
            ):
                image = png(np.zeros((60, 100, 3), np.uint8), orientation)
                found = await client.infer(image, "model")
                assert isinstance(found, Detection)
                (box,) = found
                assert tuple(box) == ("dog", 0.5, *left_half)
                assert (found.width, found.height, found.orientation) == (100, 60, orientation)
                assert json.loads(canned.body)["inputs"][0]["shape"] == [1, 48, 24, 3]
            canned.answer = {"outputs": []}
            with pytest.raises(BadAnswer, match="its answer has no outputs"):
                await client.infer(png(PIXELS), "model", timeout_s=5)
    finally:
        await server.stop()


def test_results_of_all_tasks_are_public() -> None:
    from fingerpost import client

    assert all(each.__name__ in client.__all__ for each in (JsonAnswer, Multilabel, Tensors))
