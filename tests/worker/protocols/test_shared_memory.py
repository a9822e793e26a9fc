"""Triton's system shared memory, by the unmodified `tritonclient`, and by hostile clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

from fingerpost.errors import Unauthorized
from fingerpost.worker.config import RequestConfig
from fingerpost.worker.protocols.v2.shared_memory import SharedMemory
from fingerpost.worker.protocols.v2.shared_regions import SharedRegions
from fingerpost.worker.serving.memory import BodyMemory
from tests.support.colours import encoded
from tests.support.optional import not_none
from tests.support.rig import Rig, float_pixels, serving
from tests.support.shape_models import write_shape_model
from tests.support.shared_memory import SHM, place, shared_memory_key
from tests.support.task_rig import serving_folder
from tests.worker.protocols.test_v2 import INFER, images, top, with_triton

pytestmark = pytest.mark.shell

key = shared_memory_key
REGIONS = "/v2/systemsharedmemory"
PIXELS = np.stack([float_pixels("green"), float_pixels("blue")])


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with serving(shared_memory=True, requests=RequestConfig(max_bytes=100_000)) as rig:
        yield rig
        assert rig.rif == 0
        assert rig.service.memory.used == 0


async def test_inputs_and_outputs_by_the_unmodified_client(rig: Rig, key: str) -> None:
    out_bytes = 2 * 3 * 4

    def use(client: triton.InferenceServerClient) -> None:
        region = shm.create_shared_memory_region("both", key, PIXELS.nbytes + out_bytes)
        try:
            shm.set_shared_memory_region(region, [PIXELS])
            client.register_system_shared_memory("both", key, PIXELS.nbytes + out_bytes)
            expected = {"name": "both", "key": key, "offset": 0}
            expected["byte_size"] = PIXELS.nbytes + out_bytes
            assert client.get_system_shared_memory_status() == [expected]
            assert client.get_system_shared_memory_status("both") == [expected]
            given = triton.InferInput("x", list(PIXELS.shape), "FP32")
            given.set_shared_memory("both", PIXELS.nbytes)
            wanted = triton.InferRequestedOutput("scores")
            wanted.set_shared_memory("both", out_bytes, offset=PIXELS.nbytes)
            result = client.infer("colours", [given], outputs=[wanted])
            output = not_none(result.get_output("scores"))
            assert output["parameters"] == {
                "shared_memory_region": "both",
                "shared_memory_byte_size": out_bytes,
                "shared_memory_offset": PIXELS.nbytes,
            }
            assert output["shape"] == [2, 3]
            scores = shm.get_contents_as_numpy(region, np.float32, [2, 3], PIXELS.nbytes)
            assert scores.argmax(axis=1).tolist() == [1, 2]
            assert top(client.infer("colours", [given])) == ["green", "blue"]
            client.unregister_system_shared_memory("both")
            assert client.get_system_shared_memory_status() == []
            with pytest.raises(InferenceServerException, match="register it first"):
                client.infer("colours", [given])
        finally:
            shm.destroy_shared_memory_region(region)

    await with_triton(rig, use)


async def test_a_web_page_has_none(rig: Rig, key: str) -> None:
    """It may send simple requests to any address, also to one of its reader's machine."""
    place(key, bytes(3072))
    order = json.dumps({"key": key, "byte_size": 3072})
    headers = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    async with (
        aiohttp.ClientSession(rig.url, headers=headers) as http,
        http.post(f"{REGIONS}/region/a/register", data=order) as answer,
    ):
        assert (answer.status, "not for web pages" in await answer.text()) == (403, True)
    async with aiohttp.ClientSession(rig.url) as http:
        assert (await register(http, "a", key=key, byte_size=3072))[0] == 200


async def test_encoded_images(rig: Rig, key: str) -> None:
    image = encoded("blue")
    data = np.array([len(image)], "<u4").tobytes() + image

    def use(client: triton.InferenceServerClient) -> None:
        place(key, bytes(10) + data)
        client.register_system_shared_memory("images", key, len(data), offset=10)
        given = triton.InferInput("image", [1], "BYTES")
        given.set_shared_memory("images", len(data))
        assert top(client.infer("colours", [given])) == ["blue"]
        client.unregister_system_shared_memory()

    await with_triton(rig, use)


@pytest.mark.frameworks
async def test_each_input_and_output_of_a_model_of_several(tmp_path: Path, key: str) -> None:
    """Some in a region, some as bytes behind the JSON."""
    write_shape_model(tmp_path / "model", "onnx", "any size")
    pixels = np.random.default_rng(3).integers(0, 255, (2, 13, 29, 3)).astype(np.uint8)
    offset = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    path = place(key, pixels.tobytes() + bytes(24))

    def use(port: int) -> triton.InferResult:
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            client.register_system_shared_memory("x", key, path.stat().st_size)
            image = triton.InferInput("image", list(pixels.shape), "UINT8")
            image.set_shared_memory("x", pixels.nbytes)
            given = triton.InferInput("offset", [2, 3], "FP32").set_data_from_numpy(offset)
            means = triton.InferRequestedOutput("means")
            means.set_shared_memory("x", 24, offset=pixels.nbytes)
            wanted = [triton.InferRequestedOutput("same"), means]
            return client.infer("model", [image, given], outputs=wanted)

    async with serving_folder(tmp_path / "model", shared_memory=True) as rig:
        result = await asyncio.to_thread(use, rig.port)
    same = not_none(result.as_numpy("same"))
    assert np.array_equal(same, pixels.transpose(0, 3, 1, 2))
    found = np.frombuffer(path.read_bytes()[pixels.nbytes :], np.float32).reshape(2, 3)
    assert found == pytest.approx(pixels.mean((1, 2)) + offset, rel=1e-5)


async def post(http: aiohttp.ClientSession, path: str, body: Any) -> tuple[int, str]:
    async with http.post(path, json=body) as response:
        return response.status, (await response.text())


async def register(http: aiohttp.ClientSession, name: str, **order: Any) -> tuple[int, str]:
    return await post(http, f"{REGIONS}/region/{name}/register", order)


WRONG_ORDERS: dict[str, tuple[dict[str, Any], int, str]] = {
    "longer than the file": ({"byte_size": 4097}, 400, "ends at byte 4,097"),
    "beyond the file": ({"byte_size": 10, "offset": 4090}, 400, "has 4,096"),
    "beyond 64 bits": ({"byte_size": 10, "offset": 2**63}, 400, "not valid"),
    "a negative offset": ({"byte_size": 10, "offset": -1}, 400, "not valid"),
    "a negative size": ({"byte_size": -10}, 400, "not valid"),
    "no bytes": ({"byte_size": 0}, 400, "byte_size 0"),
    "no size": ({}, 400, "not valid"),
    "no such key": ({"key": "/fingerpost-nothing", "byte_size": 1}, 400, "No such file"),
    "a path": ({"key": "/a/b", "byte_size": 1}, 400, "without further ones"),
    "a path out": ({"key": "/../../etc/passwd", "byte_size": 1}, 400, "without further ones"),
    "the folder above": ({"key": "/..", "byte_size": 1}, 400, "not a valid key"),
    "the folder": ({"key": "/.", "byte_size": 1}, 400, "not a valid key"),
    "no name": ({"key": "/", "byte_size": 1}, 400, "not a valid key"),
    "a NUL": ({"key": "/a\0b", "byte_size": 1}, 400, "not a valid key"),
    "a long key": ({"key": "/" + "a" * 300, "byte_size": 1}, 400, "not a valid key"),
    "not a text": ({"key": 7, "byte_size": 1}, 400, "not valid"),
    "too long an order": ({"key": "a" * 5000, "byte_size": 1}, 413, "4,096"),
}


@pytest.mark.parametrize("case", WRONG_ORDERS)
async def test_a_wrong_registration_is_refused(
    rig: Rig, http: aiohttp.ClientSession, key: str, case: str
) -> None:
    order, status, why = WRONG_ORDERS[case]
    place(key, bytes(4096))
    answer = await register(http, "x", **{"key": key, **order})
    assert answer[0] == status
    assert why in json.loads(answer[1])["error"]
    async with http.get(f"{REGIONS}/status") as response:
        assert await response.json() == []


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
async def test_what_is_not_a_plain_file_is_not_opened(
    http: aiohttp.ClientSession, key: str, kind: str, tmp_path: Path
) -> None:
    path = SHM / key[1:]
    if kind == "link":
        (tmp_path / "other").write_bytes(bytes(10))
        path.symlink_to(tmp_path / "other")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    try:
        status, text = await register(http, "x", key=key, byte_size=1)
        assert (status, "shared memory" in text) == (400, True)
    finally:
        if kind == "folder":
            path.rmdir()


async def test_a_name_is_registered_once(http: aiohttp.ClientSession, key: str) -> None:
    place(key, bytes(100))
    assert await register(http, "x", key=key, byte_size=10) == (200, "{}")
    status, text = await register(http, "x", key=key, byte_size=20)
    assert (status, "registered already" in text) == (400, True)
    long = "x" * 300
    assert (await register(http, long, key=key, byte_size=10))[0] == 400
    assert (await post(http, f"{REGIONS}/region/never/unregister", {}))[0] == 200
    async with http.get(f"{REGIONS}/region/never/status") as response:
        assert response.status == 400


async def test_there_is_an_end_to_regions(http: aiohttp.ClientSession, key: str) -> None:
    """Each takes a descriptor of the worker's; those that are given back can be taken again."""
    place(key, bytes(100))
    statuses = [(await register(http, str(n), key=key, byte_size=10))[0] for n in range(257)]
    assert statuses == [200] * 256 + [429]
    assert open_files(key) == 256
    assert (await post(http, f"{REGIONS}/unregister", {}))[0] == 200
    assert open_files(key) == 0


def open_files(key: str) -> int:
    """How many descriptors of this process, in which the worker is, are of shared memory."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of this listing
            found += each.readlink().as_posix() == str(SHM / key[1:])
    return found


def infer(byte_size: int, offset: int = 0, region: str = "x", **more: Any) -> dict[str, Any]:
    parameters = {"shared_memory_region": region, "shared_memory_byte_size": byte_size}
    parameters["shared_memory_offset"] = offset
    given = {"name": "x", "datatype": "FP32", "shape": [1, 16, 16, 3], "parameters": parameters}
    return {"inputs": [{**given, **more}]}


def into(byte_size: int, offset: int = 0, region: str = "x", **more: int) -> dict[str, Any]:
    body = infer(3072)
    parameters = {"shared_memory_region": region, "shared_memory_byte_size": byte_size, **more}
    parameters["shared_memory_offset"] = offset
    return {**body, "outputs": [{"name": "scores", "parameters": parameters}]}


WRONG_USES: dict[str, tuple[dict[str, Any], int, str]] = {
    "beyond the region": (infer(3072, 2000), 400, "not within region 'x'"),
    "a negative offset": (infer(3072, -1), 400, "not valid"),
    "an offset of 63 bits": (infer(3072, 2**63 - 1), 400, "not within"),
    "another size": (infer(3000), 400, "3,000 bytes"),
    "more than a request may have": (infer(200_000), 413, "100,000"),
    "no region": (infer(3072, region="y"), 400, "register it first"),
    "data too": (infer(3072, data=[0] * 768), 400, "send one"),
    "an output beyond": (into(12, 4090), 400, "not within region 'x'"),
    "an output of too few bytes": (into(11, 3072), 400, "give it more"),
    "labels": (
        into(12, 3072, classification=1),
        400,
        "labels are not written into shared memory",
    ),
    "an output into no region": (into(12, region="y"), 400, "register it first"),
}


@pytest.mark.parametrize("case", WRONG_USES)
async def test_a_wrong_use_is_refused(
    rig: Rig, http: aiohttp.ClientSession, key: str, case: str
) -> None:
    body, status, why = WRONG_USES[case]
    place(key, PIXELS[0].tobytes() + bytes(1024))
    await register(http, "x", key=key, byte_size=4096)
    answer = await post(http, INFER, body)
    assert answer[0] == status
    assert why in json.loads(answer[1])["error"]
    assert (await post(http, INFER, into(12, 3072)))[0] == 200


@pytest.mark.parametrize("what", ["input", "output"])
async def test_shared_memory_that_shrinks_harms_nobody(
    rig: Rig, http: aiohttp.ClientSession, key: str, what: str
) -> None:
    """A page that is gone would end a process that has mapped it."""
    path = place(key, PIXELS[0].tobytes() + bytes(1024))
    await register(http, "x", key=key, byte_size=4096)
    os.truncate(path, 3072 if what == "output" else 100)
    body = into(12, 3072) if what == "output" else infer(3072)
    status, text = await post(http, INFER, body)
    assert (status, "do not shrink it" in text) == (400, True)
    assert path.stat().st_size == (3072 if what == "output" else 100)
    assert (await post(http, "/v1/classify/colours", None))[0] == 400  # it goes on


async def test_a_region_in_use_may_be_unregistered(
    rig: Rig, http: aiohttp.ClientSession, key: str
) -> None:
    path = place(key, PIXELS[0].tobytes() + bytes(1024))
    await register(http, "x", key=key, byte_size=4096)
    rig.backend.gate.clear()
    running = asyncio.create_task(post(http, INFER, into(12, 3072)))
    while not rig.engine.running_s():
        await asyncio.sleep(0.001)
    assert (await post(http, f"{REGIONS}/region/x/unregister", {}))[0] == 200
    path.unlink()
    rig.backend.gate.set()
    assert (await running)[0] == 200
    assert (await post(http, INFER, into(12, 3072)))[0] == 400


async def test_it_is_off_by_default(key: str) -> None:
    place(key, bytes(100))
    async with serving() as rig, aiohttp.ClientSession(rig.url) as http:
        for answer in (
            await register(http, "x", key=key, byte_size=10),
            await post(http, f"{REGIONS}/unregister", {}),
            await post(http, INFER, infer(3072)),
        ):
            assert answer[0] == 404
            assert "--shared-memory" in answer[1]
        async with http.get("/v2") as response:
            assert "system_shared_memory" not in (await response.json())["extensions"]


async def test_the_server_says_that_it_has_it(rig: Rig) -> None:
    found = await with_triton(rig, lambda client: client.get_server_metadata())
    assert "system_shared_memory" in found["extensions"]
    result = await with_triton(rig, lambda client: client.infer("colours", [images("red")]))
    assert top(result) == ["red"]


@pytest.mark.parametrize("remote", ["192.0.2.7", "2001:db8::7", "", None])
def test_a_client_on_another_host_has_none(remote: str | None) -> None:
    """The worker would read the memory of its own machine for it."""
    regions = SharedRegions(enabled=True)
    memory = SharedMemory(regions, BodyMemory(RequestConfig()), max_bytes=10)
    request: Any = SimpleNamespace(headers={}, remote=remote)
    with pytest.raises(Unauthorized, match="for clients on this host"):
        memory._check(request)
