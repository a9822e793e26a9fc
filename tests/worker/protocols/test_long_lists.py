"""Long lists of numbers in JSON: the same numbers as otherwise, and the loop goes on."""

from __future__ import annotations

import asyncio
import base64
import json

import aiohttp
import numpy as np
import pytest

from fingerpost.errors import InvalidRequest
from fingerpost.worker.config import RequestConfig
from fingerpost.worker.protocols.long_lists import LONG_BYTES, cut_out, read_flat
from tests.support.colours import encoded
from tests.support.rig import Rig, float_pixels, serving

FLOAT = np.dtype("<f4")


def long_list(*, count: int = 100_000) -> tuple[np.ndarray, bytes]:
    """Numbers, and their JSON, several pieces long."""
    values = np.random.default_rng(5).normal(0, 1000, count).astype(FLOAT)
    return values, json.dumps(values.tolist()).encode()


async def test_pieces_make_the_same_numbers_and_let_others_in_between() -> None:
    values, text = long_list()
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count_turns())
    read = await read_flat(memoryview(text), FLOAT, len(values), "x")
    counting.cancel()
    assert np.array_equal(read, values)
    assert turns >= len(text) // LONG_BYTES > 3


REFUSED = {
    "too few": lambda text: text[: text.rfind(b",")] + b"]",
    "too many": lambda text: text[:-1] + b",1]",
    "a comma at the end": lambda text: text[:-1] + b",]",
    "no comma": lambda text: b"[" + b"1" * len(text) + b"]",
    "words": lambda text: text.replace(b",", b',"x",', 1),
    "empty between commas": lambda text: text.replace(b",", b",,", 1),
    "nothing": lambda text: b"[" + b" " * len(text) + b"]",
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused(name: str) -> None:
    values, text = long_list()
    with pytest.raises(InvalidRequest, match="^x "):
        await read_flat(memoryview(REFUSED[name](text)), FLOAT, len(values), "x")


def test_only_long_flat_lists_are_cut_out() -> None:
    _, text = long_list()
    whole = b'{"inputs":[{"name":"a","data" : ' + text + b',"shape":[1]}]}'
    rest, listed = cut_out(whole)
    assert rest == b'{"inputs":[{"name":"a","data" : [],"shape":[1]}]}'
    assert listed == text
    for other in (
        b'{"data":[1,2,3]}',
        b'{"data":[' + text + b"]}",
        b'{"name":"\\"data\\":' + text + b'"}',
        b'{"other":' + text + b"}",
        b'{"data":' + text[:-1] + b"}",
    ):
        assert cut_out(other) == (other, None)


def body(datatype: str, shape: list[int], data: object) -> bytes:
    entry = {"name": "x", "datatype": datatype, "shape": shape, "data": data}
    return json.dumps({"inputs": [entry], "id": "7"}).encode()


async def ask(rig: Rig, data: bytes) -> tuple[int, dict]:
    async with (
        aiohttp.ClientSession(rig.url) as http,
        http.post("/v2/models/colours/infer", data=data) as response,
    ):
        return response.status, await response.json()


async def test_by_http_flat_and_nested_are_the_same() -> None:
    colours = ("red", "green", "blue") * 40
    pixels = np.stack([float_pixels(colour) for colour in colours])
    async with serving() as rig:
        for datatype in ("FP32", "UINT8"):
            array = pixels if datatype == "FP32" else pixels.astype(np.uint8)
            flat = body(datatype, list(array.shape), array.ravel().tolist())
            assert len(flat) > LONG_BYTES
            (status, answer), nested = [
                await ask(rig, data)
                for data in (flat, body(datatype, list(array.shape), array.tolist()))
            ]
            assert (status, answer) == (200, nested[1])
            assert answer["id"] == "7"
            scores = np.reshape(answer["outputs"][0]["data"], answer["outputs"][0]["shape"])
            assert scores.argmax(axis=1).tolist() == [0, 1, 2] * 40
        status, answer = await ask(rig, body("FP32", [7, 16, 16, 3], pixels.ravel().tolist()))
        assert (status, "'x' does not have the 5,376 numbers" in answer["error"]) == (400, True)


async def test_a_long_list_of_images_is_none_of_numbers() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (300, 400, 3), np.uint8)
    image = base64.b64encode(encoded("red") + noise.tobytes()).decode()  # a tail does no harm
    async with serving(requests=RequestConfig(max_bytes=2_000_000)) as rig:
        data = body("BYTES", [2], [image[:200_000], image])
        assert len(data) > LONG_BYTES
        status, answer = await ask(rig, data)
    assert (status, "image 1" in answer["error"]) == (413, True)
