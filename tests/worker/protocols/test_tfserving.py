"""TensorFlow Serving's REST API: requests and answers as its documentation shows them."""

from __future__ import annotations

import base64
import json
from typing import Any

import aiohttp
import numpy as np
import pytest

from fingerpost.registry import LOAD_HEADER
from tests.support.colours import encoded
from tests.support.rig import Rig, float_pixels

MODEL = "/v1/models/colours"


def b64(colour: str) -> dict[str, str]:
    return {"b64": base64.b64encode(encoded(colour)).decode()}


def numbers(colour: str) -> list[object]:
    return float_pixels(colour).tolist()


async def post(http: aiohttp.ClientSession, path: str, body: object) -> dict[str, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with http.post(path, data=data) as response:
        answer = await response.json()
        assert response.status == 200, answer
        assert LOAD_HEADER in response.headers
        return answer


def colours(rows: Any) -> list[str]:
    assert np.shape(rows)[1] == 3
    return [("red", "green", "blue")[row] for row in np.argmax(rows, axis=1)]


ROWS = {
    "bare images": [b64("red"), b64("blue")],
    "images under a name": [{"image": b64("red")}, {"image": b64("blue")}],
    "numbers": [numbers("red"), numbers("blue")],
    "numbers under a name": [{"input_1": numbers("red")}, {"input_1": numbers("blue")}],
    "both kinds": [numbers("red"), b64("blue")],
}


@pytest.mark.parametrize("name", ROWS)
async def test_rows(http: aiohttp.ClientSession, name: str) -> None:
    for path in (f"{MODEL}:predict", f"{MODEL}/versions/7:predict"):
        answer = await post(http, path, {"instances": ROWS[name]})
        assert answer.keys() == {"predictions"}
        assert colours(answer["predictions"]) == ["red", "blue"]


COLUMNS = {
    "bare images": [b64("red"), b64("blue")],
    "images under a name": {"image": [b64("red"), b64("blue")]},
    "numbers": [numbers("red"), numbers("blue")],
    "numbers under a name": {"input_1": [numbers("red"), numbers("blue")]},
}


@pytest.mark.parametrize("name", COLUMNS)
async def test_columns(http: aiohttp.ClientSession, name: str) -> None:
    asked = {"signature_name": "serving_default", "inputs": COLUMNS[name]}
    answer = await post(http, f"{MODEL}:predict", asked)
    assert answer.keys() == {"outputs"}
    assert colours(answer["outputs"]) == ["red", "blue"]


@pytest.mark.parametrize("inputs", [b64("green"), {"image": b64("green")}])
async def test_one_image_as_a_column(http: aiohttp.ClientSession, inputs: object) -> None:
    answer = await post(http, f"{MODEL}:predict", {"inputs": inputs})
    assert colours(answer["outputs"]) == ["green"]


async def test_classify(http: aiohttp.ClientSession) -> None:
    examples = [{"image": b64("red")}, {"image": b64("green")}]
    answer = await post(http, f"{MODEL}:classify", {"examples": examples})
    first, second = answer["result"]
    assert [first[0][0], second[0][0]] == ["red", "green"]
    assert first[0][1] > 0.99
    assert len(first) == 3


async def test_status(http: aiohttp.ClientSession) -> None:
    for path in (MODEL, f"{MODEL}/versions/7"):
        async with http.get(path) as response:
            assert await response.json() == {
                "model_version_status": [
                    {
                        "version": "7",
                        "state": "AVAILABLE",
                        "status": {"error_code": "OK", "error_message": ""},
                    }
                ]
            }


async def test_metadata(http: aiohttp.ClientSession) -> None:
    async with http.get(f"{MODEL}/versions/7/metadata") as response:
        answer = await response.json()
    assert answer["model_spec"] == {"name": "colours", "signature_name": "", "version": "7"}
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    (output,) = signature["outputs"].values()
    assert output["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in output["tensor_shape"]["dim"]] == ["-1", "3"]


BAD = b64("red") | {"b64": base64.b64encode(encoded("red")[:60]).decode()}
REFUSED = {
    "no JSON": (b"instances", 400, "malformed"),
    "nothing asked": ({}, 400, "exactly one"),
    "both asked": ({"instances": [b64("red")], "inputs": [b64("red")]}, 400, "exactly one"),
    "no rows": ({"instances": []}, 400, "empty"),
    "no list": ({"instances": b64("red")}, 400, "array"),
    "inputs of a wrong kind": ({"inputs": 3}, 400, "inputs"),
    "two inputs": ({"inputs": {"a": [b64("red")], "b": [b64("red")]}}, 400, "2 inputs"),
    "another signature": ({"signature_name": "x", "instances": [b64("red")]}, 400, "'x'"),
    "text": ({"instances": ["hello"]}, 400, "instances[0]"),
    "not base64": ({"instances": [b64("red"), {"b64": "*"}]}, 400, "instances[1]"),
    "a broken image": ({"instances": [b64("red"), BAD]}, 422, "instances[1]"),
    "no image": ({"instances": [{"b64": "aGVsbG8="}]}, 415, "instances[0]"),
    "an empty image": ({"instances": [{"b64": ""}]}, 400, "instances[0]"),
    "ragged": ({"instances": [[[1], [1, 2]]]}, 400, "instances[0]"),
    "another shape": ({"instances": [[[[1.0, 2.0, 3.0]]]]}, 400, "[1, 1, 3]"),
    "two axes": ({"instances": [[[1.0, 2.0]]]}, 400, "three axes"),
    "no numbers": ({"instances": [[[["red"]]]]}, 400, "instances[0]"),
    "beyond float32": ({"instances": [[[[1e300]]]]}, 400, "instances[0]"),
    # How deep lists may be nested depends on Python's version: 1,000 or 10,000 of them.
    "too deep": (b'{"instances": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}", 400, "body"),
    "too deep for an array": (b'{"instances": [' + b"[" * 500 + b"]" * 500 + b"]}", 400, "[0]"),
    "not UTF-8": (b'{"instances": [{"\xff": 1}]}', 400, "instances[0]"),
    "too many rows": ({"instances": [[]] * 600}, 413, "600"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused(http: aiohttp.ClientSession, name: str) -> None:
    body, status, words = REFUSED[name]
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with http.post(f"{MODEL}:predict", data=data) as response:
        answer = await response.json()
        assert response.status == status, answer
        assert answer.keys() == {"error"}
        assert words in answer["error"]
        assert LOAD_HEADER in response.headers


PATHS = {
    "unknown model": ("POST", "/v1/models/flowers:predict", 404),
    "unknown version": ("POST", f"{MODEL}/versions/8:predict", 404),
    "unknown alias": ("POST", f"{MODEL}/labels/stable:predict", 404),
    "a version that is none": ("POST", f"{MODEL}/versions/x:predict", 400),
    "an alias that is a number": ("POST", f"{MODEL}/labels/7:predict", 400),
    "unknown verb": ("POST", f"{MODEL}:regress", 405),
    "status of an unknown model": ("GET", "/v1/models/flowers", 404),
    "status of an unknown version": ("GET", f"{MODEL}/versions/8", 404),
    "status of an unknown alias": ("GET", f"{MODEL}/labels/stable", 404),
    "metadata of an unknown model": ("GET", "/v1/models/flowers/metadata", 404),
    "wrong method": ("DELETE", MODEL, 405),
    "nothing there": ("GET", "/v1/models", 404),
}


@pytest.mark.parametrize("name", PATHS)
async def test_paths(http: aiohttp.ClientSession, name: str) -> None:
    method, path, status = PATHS[name]
    async with http.request(method, path, data=b"{}") as response:
        answer = await response.json()
        assert response.status == status, answer
        assert answer.keys() == {"error"}
        assert isinstance(answer["error"], str)
        assert LOAD_HEADER in response.headers


async def test_compressed_bodies_are_refused(http: aiohttp.ClientSession) -> None:
    headers = {"Content-Encoding": "gzip"}
    async with http.post(f"{MODEL}:predict", data=b"{}", headers=headers) as response:
        assert response.status == 415
        assert "gzip" in (await response.json())["error"]


async def test_one_image_without_scores_fails_the_request(
    http: aiohttp.ClientSession, rig: Rig
) -> None:
    rows = [numbers("red"), numbers("blue"), [[[float("1e38")] * 3] * 16] * 16]
    body = json.dumps({"instances": rows}).encode()
    async with http.post(f"{MODEL}:predict", data=body) as response:
        assert response.status == 500
        assert "instances[2]" in (await response.json())["error"]
