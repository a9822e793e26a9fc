"""Long lists of numbers in JSON: the same numbers as otherwise, and the loop goes on."""

from __future__ import annotations

import asyncio
import base64
import json

import aiohttp
import msgspec
import numpy as np
import pytest

from fingerpost.errors import ImageTooLarge, InvalidRequest
from fingerpost.worker.config import RequestConfig
from fingerpost.worker.protocols.long_json import (
    SHORT_BYTES,
    read_base64,
    read_json,
    read_numbers,
)
from fingerpost.worker.serving.turns import Turns
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
    read = await read_numbers(memoryview(text), FLOAT, "x", Turns())
    counting.cancel()
    assert np.array_equal(read, values)
    assert turns >= len(text) // SHORT_BYTES > 3


SHAPES = [(12_000,), (1, 12_000), (12_000, 1), (2, 3, 40, 50), (7, 1, 800, 1, 3), (1, 1, 1, 9_999)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("indent", [None, 1])
async def test_nested_lists_have_their_shape(shape: tuple[int, ...], indent: int | None) -> None:
    values = np.random.default_rng(1).normal(0, 1e3, shape).astype(FLOAT)
    text = json.dumps(values.tolist(), indent=indent).encode()
    read = await read_numbers(memoryview(text), FLOAT, "x", Turns())
    assert np.array_equal(read, values)


REFUSED = {
    "a comma at the end": lambda text: text[:-1] + b",]",
    "no comma": lambda text: b"[" + b"1" * len(text) + b"]",
    "words": lambda text: text.replace(b",", b',"x",', 1),
    "empty between commas": lambda text: text.replace(b",", b",,", 1),
    "nothing": lambda text: b"[" + b" " * len(text) + b"]",
}


NESTED = json.dumps(np.ones((200, 100, 3)).tolist()).encode()
MIDDLE = len(NESTED) // 2
REFUSED |= {
    "one row shorter": lambda _: NESTED.replace(b", [1.0, 1.0, 1.0]]", b"]", 1),
    "one pixel shorter": lambda _: NESTED.replace(b"[1.0, 1.0, 1.0]", b"[1.0, 1.0]", 1),
    "one pixel without numbers": lambda _: NESTED.replace(b"[1.0, 1.0, 1.0]", b"[]", 1),
    "a comma before a bracket": lambda _: NESTED.replace(b"1.0]", b"1.0,]", 1),
    "a number after a bracket": lambda _: NESTED.replace(b"]", b"]1", 1),
    "no comma between lists": lambda _: NESTED.replace(b"], [", b"] [", 1),
    "one bracket too many": lambda _: NESTED + b"]",
    "two numbers, one comma": lambda _: NESTED.replace(b"1.0, 1.0", b"1.0 1.0", 1),
    "a number of 100,000 digits": lambda text: text[:-1] + b"," + b"1" * 100_000 + b"]",
    "a number of 400 digits": lambda text: text[:-1] + b"," + b"1" * 400 + b"]",
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused(name: str) -> None:
    _, text = long_list()
    with pytest.raises(InvalidRequest, match="^x "):
        await read_numbers(memoryview(REFUSED[name](text)), FLOAT, "x", Turns())


async def cut(text: bytes) -> tuple[bytes, list[bytes]]:
    """What is left of JSON, and what was cut out of it."""
    read = await read_json(text, Turns(), max_images=512, what="x")
    cut: list[bytes] = []
    while (found := read.long(msgspec.Raw(b'{"":%d}' % len(cut)))) is not None:
        cut.append(bytes(found))
    return bytes(read.text), cut


async def test_lists_of_numbers_and_strings_are_cut_out() -> None:
    _, text = long_list()
    image = b"QUJD" * 30_000
    assert await cut(b'{"inputs":[{"name":"a","data" : ' + text + b',"shape":[1]}]}') == (
        b'{"inputs":[{"name":"a","data" : {"":0},"shape":[1]}]}',
        [text],
    )
    assert await cut(b'{"instances":[' + NESTED + b', {"b64":"' + image + b'"} ]}') == (
        b'{"instances":[{"":0}, {"b64":"{"":1}"} ]}'.replace(b'"{"":1}"', b'{"":1}'),
        [NESTED, image],
    )
    assert await cut(b'{"a":' + NESTED + b"}") == (b'{"a":{"":0}}', [NESTED])
    for other in (
        b'{"data":[1,2,3]}',
        b'{"name":"\\"data\\":' + text[:200_000] + b']"}',
        b'{"data":' + text[:200_000] + b"}",
        b'{"x":"' + b"\xc3\xa9" * 40_000 + b'"}',
    ):
        assert await cut(other) == (other, [])


@pytest.mark.parametrize(
    "text",
    [
        b'{"instances":[' + b"{}," * 200_000 + b"1]}",
        b'{"x":"' + "é".encode() * 200_000 + b'"}',
        b" " * 300_000 + b"{}",
        b"{" + b'"a":1,' * 100_000 + b"}",
        b"[" * 500_000,
    ],
)
async def test_what_is_long_in_other_ways_is_refused(text: bytes) -> None:
    with pytest.raises(ImageTooLarge, match="x has [0-9,]+ bytes beside .* the limit of 262,144"):
        await cut(text)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 49_151, 49_152, 49_153, 300_001])
@pytest.mark.parametrize("escape", [False, True])
async def test_base64_in_pieces(size: int, *, escape: bool) -> None:
    data = np.random.default_rng(2).integers(0, 255, size, np.uint8).tobytes()
    text = base64.b64encode(data)
    if escape:  # as PHP does
        text = text.replace(b"/", b"\\/")
    for given in (text, text.rstrip(b"=")):
        read = await read_base64(memoryview(given), "x", Turns(), limit=size)
        assert bytes(read) == data


async def test_base64_that_is_refused() -> None:
    text = base64.b64encode(bytes(200_000))
    for bad in (text.replace(b"A", b"=", 1), text.replace(b"A", b"-", 1), text + b"===="):
        with pytest.raises(InvalidRequest, match="^x is not base64"):
            await read_base64(memoryview(bad), "x", Turns(), limit=10**6)
    with pytest.raises(ImageTooLarge, match="^x has more than 100,000 bytes"):
        await read_base64(memoryview(text), "x", Turns(), limit=100_000)


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
            assert len(flat) > SHORT_BYTES
            (status, answer), nested = [
                await ask(rig, data)
                for data in (flat, body(datatype, list(array.shape), array.tolist()))
            ]
            assert (status, answer) == (200, nested[1])
            assert answer["id"] == "7"
            scores = np.reshape(answer["outputs"][0]["data"], answer["outputs"][0]["shape"])
            assert scores.argmax(axis=1).tolist() == [0, 1, 2] * 40
        status, answer = await ask(rig, body("FP32", [7, 16, 16, 3], pixels.ravel().tolist()))
        assert (status, "92,160 numbers, but its shape is [7, 16, 16, 3]" in answer["error"]) == (
            400,
            True,
        )


async def test_a_long_list_of_images_is_none_of_numbers() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (300, 400, 3), np.uint8)
    image = base64.b64encode(encoded("red") + noise.tobytes()).decode()  # a tail does no harm
    async with serving(requests=RequestConfig(max_bytes=2_000_000)) as rig:
        data = body("BYTES", [2], [image[:200_000], image])
        assert len(data) > SHORT_BYTES
        status, answer = await ask(rig, data)
    assert (status, "image 1" in answer["error"]) == (413, True)
