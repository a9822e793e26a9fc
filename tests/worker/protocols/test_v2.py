"""The Open Inference Protocol, by the unmodified `tritonclient[http]` and by hand."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import aiohttp
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from fingerpost.registry import LOAD_HEADER, WorkerState
from tests.support.colours import encoded
from tests.support.optional import not_none
from tests.support.pixel_arrays import RED_AND_BLUE
from tests.support.rig import Rig, float_pixels

INFER = "/v2/models/colours/infer"
T = TypeVar("T")


async def with_triton(rig: Rig, use: Callable[[triton.InferenceServerClient], T]) -> T:
    """Run what blocks in a thread of its own."""

    def run() -> T:
        client = triton.InferenceServerClient(f"127.0.0.1:{rig.port}", network_timeout=20)
        try:
            return use(client)
        finally:
            client.close()

    return await asyncio.to_thread(run)


def images(*colours: str, shape: list[int] | None = None, binary: bool = True) -> triton.InferInput:
    wanted = triton.InferInput("image", shape or [len(colours)], "BYTES")
    data = np.array([encoded(colour) for colour in colours], object).reshape(wanted.shape())
    return wanted.set_data_from_numpy(data, binary_data=binary)


def array(data: np.ndarray, datatype: str, *, binary: bool = True) -> triton.InferInput:
    wanted = triton.InferInput("x", list(data.shape), datatype)
    return wanted.set_data_from_numpy(data, binary_data=binary)


def top(result: triton.InferResult, name: str = "scores") -> list[str]:
    scores = not_none(result.as_numpy(name))
    assert scores.dtype == np.float32
    return [("red", "green", "blue")[row] for row in scores.argmax(axis=1)]


async def test_health_and_metadata(rig: Rig) -> None:
    def use(client: triton.InferenceServerClient) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("colours")
        assert client.is_model_ready("colours", "7")
        assert not client.is_model_ready("flowers")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        metadata = client.get_model_metadata("colours", "7")
        assert (metadata["name"], metadata["versions"]) == ("colours", ["7"])
        assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1, 1]}]
        assert metadata["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}]
        assert metadata["platform"] == "python"
        config = client.get_model_config("colours")
        assert (config["max_batch_size"], config["backend"]) == (32, "python")
        (entry,) = client.get_model_repository_index()
        assert entry == {"name": "colours", "version": "7", "state": "READY", "reason": ""}
        with pytest.raises(InferenceServerException, match="metrics"):
            client.get_inference_statistics("colours")

    await with_triton(rig, use)
    rig.service.admission.state = WorkerState.DRAINING
    assert not await with_triton(rig, lambda client: client.is_server_ready())


FORMS: dict[str, Callable[[], triton.InferInput]] = {
    "images": lambda: images("red", "blue"),
    "images in a column": lambda: images("red", "blue", shape=[2, 1]),
    **{name: partial(array, *given) for name, given in RED_AND_BLUE.items()},
    "FP32 in JSON": partial(array, *RED_AND_BLUE["FP32"], binary=False),
    "UINT8 in JSON": partial(array, *RED_AND_BLUE["pixels"], binary=False),
}


@pytest.mark.parametrize("name", FORMS)
async def test_inputs(rig: Rig, name: str) -> None:
    def use(client: triton.InferenceServerClient) -> None:
        result = client.infer("colours", [FORMS[name]()], request_id="an id", priority=1)
        assert top(result) == ["red", "blue"]
        assert result.get_response()["id"] == "an id"
        assert result.get_response()["model_version"] == "7"

    await with_triton(rig, use)


async def test_one_array_without_a_batch(rig: Rig) -> None:
    for one in (
        array(float_pixels("green"), "FP32"),
        array(np.full((9, 9, 3), 7, np.uint8), "UINT8"),
    ):
        result = await with_triton(rig, lambda client, one=one: client.infer("colours", [one]))
        assert not_none(result.as_numpy("scores")).shape == (1, 3)


@pytest.mark.parametrize("binary", [True, False])
async def test_outputs(rig: Rig, binary: bool) -> None:
    wanted = [
        triton.InferRequestedOutput("scores", binary_data=binary),
        triton.InferRequestedOutput("probabilities", binary_data=binary),
        triton.InferRequestedOutput("classes", binary_data=binary, class_count=2),
    ]

    def use(client: triton.InferenceServerClient) -> None:
        result = client.infer("colours", [images("blue", "red")], outputs=wanted)
        assert top(result) == top(result, "probabilities") == ["blue", "red"]
        classes = not_none(result.as_numpy("classes"))
        assert classes.shape == (2, 2)
        text = classes[0][0] if isinstance(classes[0][0], str) else classes[0][0].decode()
        value, index, label = text.split(":")
        assert (float(value) > 0.99, index, label) == (True, "2", "blue")

    await with_triton(rig, use)


async def test_many_at_once_by_async_infer(rig: Rig) -> None:
    def use(client: triton.InferenceServerClient) -> None:
        wanted = ["red", "green", "blue"] * 5
        calls = [client.async_infer("colours", [images(colour)]) for colour in wanted]
        assert [top(call.get_result()) for call in calls] == [[colour] for colour in wanted]

    await with_triton(rig, use)


async def test_errors_reach_tritonclient_as_messages(rig: Rig) -> None:
    broken = triton.InferInput("image", [2], "BYTES")
    broken.set_data_from_numpy(np.array([encoded("red"), encoded("red")[:60]], object))

    def use(client: triton.InferenceServerClient) -> None:
        with pytest.raises(InferenceServerException, match="image 1") as caught:
            client.infer("colours", [broken])
        assert caught.value.status() == "422"
        with pytest.raises(InferenceServerException, match="flowers") as caught:
            client.infer("flowers", [images("red")])
        assert caught.value.status() == "404"
        with pytest.raises(InferenceServerException, match="gzip"):
            client.infer("colours", [images("red")], request_compression_algorithm="gzip")

    await with_triton(rig, use)


async def test_timeout_is_a_deadline_in_microseconds(rig: Rig) -> None:
    rig.backend.gate.clear()

    def use(client: triton.InferenceServerClient) -> None:
        with pytest.raises(InferenceServerException, match="deadline") as caught:
            client.infer("colours", [images("red")], timeout=50_000)
        assert caught.value.status() == "504"

    await with_triton(rig, use)
    assert rig.rif == 0
    rig.backend.gate.set()


async def test_json_alone(http: aiohttp.ClientSession) -> None:
    for data in (
        [base64.b64encode(encoded("red")).decode(), base64.b64encode(encoded("blue")).decode()],
        [[base64.b64encode(encoded("red")).decode()], [base64.b64encode(encoded("blue")).decode()]],
    ):
        asked = {
            "inputs": [{"name": "image", "datatype": "BYTES", "shape": [2, 1], "data": data}],
            "outputs": [{"name": "scores", "parameters": {"classification": 9}}],
        }
        async with http.post(INFER, json=asked) as response:
            assert response.content_type == "application/json"
            (output,) = (await response.json())["outputs"]
        assert (output["datatype"], output["shape"]) == ("BYTES", [2, 3])
        assert output["data"][0].endswith(":0:red")


def request(**changes: object) -> dict[str, list[dict[str, object]]]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 16, 16, 3]} | changes
    return {"inputs": [{key: value for key, value in tensor.items() if value is not None}]}


PIXELS = float_pixels("red")
LISTED = PIXELS.ravel().tolist()
REFUSED: dict[str, tuple[object, bytes, str | None, int, str]] = {
    "no JSON": (b"x", b"", None, 400, "malformed"),
    "no inputs": ({"inputs": []}, b"", None, 400, "0 inputs"),
    "two inputs": (
        {"inputs": request(data=LISTED)["inputs"] * 2},
        b"",
        None,
        400,
        "2 inputs",
    ),
    "no data": (request(), b"", None, 400, "'data'"),
    "both data": (
        request(data=LISTED, parameters={"binary_data_size": 3072}),
        PIXELS.tobytes(),
        "right",
        400,
        "exactly one",
    ),
    "shared memory": (
        request(parameters={"shared_memory_region": "r", "shared_memory_byte_size": 1}),
        b"",
        None,
        404,
        "shared memory is off here",
    ),
    "wrong count": (request(data=LISTED[1:]), b"", None, 400, "767"),
    "negative shape": (request(shape=[-1, 16, 16, 3], data=LISTED), b"", None, 400, "shape"),
    "huge shape": (request(shape=[2**62] * 4, data=LISTED), b"", None, 400, "shape"),
    "nine axes": (request(shape=[1] * 9, data=[1]), b"", None, 400, "eight axes"),
    "five axes": (request(shape=[1] * 5, data=[1]), b"", None, 400, "a batch of them four"),
    "another shape": (request(shape=[1, 8, 32, 3], data=LISTED), b"", None, 400, "[8, 32, 3]"),
    "an empty batch": (request(shape=[0, 16, 16, 3], data=[]), b"", None, 400, "none is empty"),
    "no images": (request(datatype="BYTES", shape=[0], data=[]), b"", None, 400, "empty"),
    "unknown type": (request(datatype="BF16", data=LISTED), b"", None, 400, "BF16"),
    "no number": (request(data=["a"] * 768), b"", None, 400, "input 'x'"),
    "not uint8": (request(datatype="UINT8", data=[300] * 768), b"", None, 400, "input 'x'"),
    "four channels": (
        request(datatype="UINT8", shape=[1, 16, 12, 4], data=[3] * 768),
        b"",
        None,
        400,
        "uint8 pixels",
    ),
    "huge pixels": (
        request(
            datatype="UINT8", shape=[1, 1, 40_000, 3], parameters={"binary_data_size": 120_000}
        ),
        bytes(120_000),
        "right",
        413,
        "40000",
    ),
    "not finite": (
        request(parameters={"binary_data_size": 3072}),
        np.full(768, np.nan, "<f4").tobytes(),
        "right",
        400,
        "finite",
    ),
    "fewer bytes than said": (
        request(parameters={"binary_data_size": 3072}),
        PIXELS.tobytes()[:-1],
        "right",
        400,
        "3,071",
    ),
    "more bytes than said": (
        request(parameters={"binary_data_size": 3072}),
        PIXELS.tobytes() + b"x",
        "right",
        400,
        "3,073",
    ),
    "size of another shape": (
        request(shape=[1, 16, 16, 1], parameters={"binary_data_size": 3072}),
        PIXELS.tobytes(),
        "right",
        400,
        "1,024",
    ),
    "negative size": (
        request(parameters={"binary_data_size": -1}),
        PIXELS.tobytes(),
        "right",
        400,
        "binary_data_size",
    ),
    "header beyond the body": (request(data=LISTED), b"", "999999", 400, "999,999"),
    "header too short": (request(data=LISTED), b"", "10", 400, "request"),
    "header negative": (request(data=LISTED), b"", "-1", 400, "'-1'"),
    "header no number": (request(data=LISTED), b"", "ten", 400, "'ten'"),
    "header endless": (request(data=LISTED), b"", "9" * 40, 400, "not a length"),
    "element longer than its data": (
        request(datatype="BYTES", shape=[1], parameters={"binary_data_size": 6}),
        b"\xff\xff\xff\xffab",
        "right",
        400,
        "4,294,967,295",
    ),
    "element without its length": (
        request(datatype="BYTES", shape=[1], parameters={"binary_data_size": 2}),
        b"ab",
        "right",
        400,
        "4 bytes",
    ),
    "elements of another shape": (
        request(datatype="BYTES", shape=[1, 2], data=["aGk=", "aGk="]),
        b"",
        None,
        400,
        "[N, 1]",
    ),
    "not base64": (request(datatype="BYTES", shape=[1], data=["?"]), b"", None, 400, "base64"),
    "no image": (request(datatype="BYTES", shape=[1], data=["aGk="]), b"", None, 415, "image 0"),
    "negative classification": (
        request(data=LISTED)
        | {"outputs": [{"name": "scores", "parameters": {"classification": -1}}]},
        b"",
        None,
        400,
        "classification",
    ),
    "endless timeout": (
        request(data=LISTED) | {"parameters": {"timeout": 10**400}},
        b"",
        None,
        400,
        "timeout",
    ),
    "too many outputs": (
        request(data=LISTED) | {"outputs": [{"name": "scores"}] * 17},
        b"",
        None,
        400,
        "outputs",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused(http: aiohttp.ClientSession, name: str) -> None:
    asked, binary, header, status, words = REFUSED[name]
    text = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    headers = {}
    if header is not None:
        value = str(len(text)) if header == "right" else header
        headers["Inference-Header-Content-Length"] = value
    async with http.post(INFER, data=text + binary, headers=headers) as response:
        answer = await response.json()
        assert response.status == status, answer
        assert answer.keys() == {"error"}
        assert words in answer["error"]
        assert LOAD_HEADER in response.headers


async def test_unknown_paths_have_the_protocol_s_errors(http: aiohttp.ClientSession) -> None:
    for method, path, status in (
        ("GET", "/v2/nothing", 404),
        ("GET", INFER, 405),
        ("GET", "/v2/models/flowers", 404),
        ("GET", "/v2/models/colours/versions/8/ready", 404),
        ("GET", "/v2/models/COLOURS", 400),
        ("POST", "/v2/repository/models/colours/load", 404),
    ):
        async with http.request(method, path) as response:
            answer = await response.json()
            assert response.status == status, answer
            assert isinstance(answer["error"], str)
