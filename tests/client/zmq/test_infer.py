"""`infer` over ZeroMQ: answers and errors of models of every task as over HTTP."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from msgspec.structs import asdict
from tests.support.bad_images import BAD
from tests.support.row_models import write_row_model
from tests.support.vision_models import PAIRS, SEGMENTERS, SIDE, write_vision_model
from tests.support.zmq_peers import Dealer, connected

from fingerpost.client import Client, ClientConfig, Embedding, Tensors
from fingerpost.errors import FingerpostError, InvalidRequest
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.worker import Worker, WorkerConfig
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.config import DrainConfig, ZmqConfig
from fingerpost.worker.models.files import find_model
from fingerpost.worker.tasks.loading import load_model

ZMQ = ClientConfig(transport="zmq", connect_timeout_s=10.0)
PIXELS = np.random.default_rng(5).integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
PAIR = {"left": PIXELS, "right": PIXELS[::-1].copy(), "weights": [0.5, 1, 2]}


@contextlib.asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[Client, Client, Worker]]:
    """A worker of the model in a folder, and its clients over HTTP and over ZeroMQ."""
    load = partial(load_model, config=LoadConfig(device="cpu"))
    async with EmbeddedRegistry(port=0) as registry:
        config = WorkerConfig(
            registry=registry.url, zmq=ZmqConfig(port=0), drain=DrainConfig(lease_s=0.0)
        )
        async with (
            Worker(find_model(folder), load, config) as worker,
            Client(registry=registry.url) as http,
            Client(registry=registry.url, config=ZMQ) as zmq,
        ):
            await worker.register()
            yield http, zmq, worker


def comparable(found: Any) -> dict[str, Any]:
    """What two answers have in common: all but how long they took."""
    members = asdict(found)
    assert members.pop("timings_ms") is not None
    assert members.pop("elapsed_s") > 0
    return members


def binary(**arrays: np.ndarray) -> tuple[int, bytes]:
    """Inputs in the binary form, and the length of its JSON."""
    inputs = [
        {"name": name, "datatype": "UINT8", "shape": list(each.shape),
         "parameters": {"binary_data_size": each.nbytes}}
        for name, each in arrays.items()
    ]  # fmt: skip
    head = json.dumps({"inputs": inputs}).encode()
    return len(head), head + b"".join(each.tobytes() for each in arrays.values())


async def received(dealer: Dealer, *frames: bytes) -> tuple[dict[str, Any], bytes | None]:
    """The answer to an item, and its arrays."""
    await dealer.send(b"a", *frames)
    key, head, _, *arrays = await dealer.socket.recv_multipart()
    assert key == b"a"
    return json.loads(head), arrays[0] if arrays else None


async def test_several_inputs(tmp_path: Path) -> None:
    write_vision_model(tmp_path / "pairs", PAIRS, "python", "tensors")
    async with served(tmp_path / "pairs") as (http, zmq, worker):
        answers: list[Any] = [await each.infer(PAIR, "pairs") for each in (http, zmq)]
        assert all(isinstance(each, Tensors) for each in answers)
        first, second = (comparable(each) for each in answers)
        outputs = [each.pop("outputs") for each in (first, second)]
        assert first == second
        assert set(outputs[0]) == {"distance", "means"}
        for name, value in outputs[0].items():
            np.testing.assert_array_equal(np.asarray(value), np.asarray(outputs[1][name]))
        for wrong in (
            {name: PAIR[name] for name in ("left", "right")},
            {**PAIR, "weights": [1.0]},
            {**PAIR, "third": 1},
            {**PAIR, "left": b"not an image"},
        ):
            raised = []
            for client in (http, zmq):
                with pytest.raises(FingerpostError) as caught:
                    await client.infer(wrong, "pairs")
                raised.append((type(caught.value), str(caught.value)))
            assert raised[0] == raised[1]
        assert zmq.stats.retries == {}
        with pytest.raises(InvalidRequest, match="json_bytes"):
            await zmq.infer(PIXELS, "pairs")  # one image, as the body of a request
        async with connected(worker.instance.ports["zmq"]) as dealer:
            await dealer.open("pairs", infer=True)
            two, weights = np.stack([PIXELS] * 2), np.ones((2, 3), np.uint8)
            length, body = binary(left=two, right=two, weights=weights)
            for json_bytes, message in (
                (length, "2 items: send each in a message of its own"),
                (len(body) + 1, "Inference-Header-Content-Length is"),
                (3, "the request"),
            ):
                head = json.dumps({"json_bytes": json_bytes}).encode()
                answer, _ = await received(dealer, head, body)
                assert answer["status"] == 400
                assert message in answer["error"]["message"]


async def test_arrays_are_json_or_bytes_as_over_http(tmp_path: Path) -> None:
    write_row_model(tmp_path / "row", "python", 'task = "embedding"')
    async with served(tmp_path / "row") as (http, zmq, worker):
        answers: list[Any] = [await each.infer(PIXELS, "row") for each in (http, zmq)]
        assert isinstance(answers[1], Embedding)
        np.testing.assert_array_equal(answers[0].vector, answers[1].vector)
        for name, (image, kind) in BAD.items():
            with pytest.raises(FingerpostError) as caught:
                await zmq.infer(image, "row")
            assert type(caught.value) is kind, name
        assert isinstance(await zmq.infer(PIXELS, "row"), Embedding)
        length, body = binary(image=PIXELS)
        head = json.dumps({"json_bytes": length}).encode()
        async with (
            connected(worker.instance.ports["zmq"]) as dealer,
            aiohttp.ClientSession(f"http://{worker.instance.address}") as session,
        ):
            for accept, members in (("json", {}), ("octet-stream", {"binary": True})):
                assert (await dealer.open("row", infer=True, **members))["type"] == "opened"
                answer, arrays = await received(dealer, head, body)
                await dealer.order("end")
                assert (await dealer.take())[1]["reason"] == "done"
                fields = {
                    "Accept": f"application/{accept}",
                    "Inference-Header-Content-Length": str(length),
                }
                async with session.post("/v1/infer/row", data=body, headers=fields) as response:
                    data = await response.read()
                    size = int(response.headers.get("Inference-Header-Content-Length", len(data)))
                other = json.loads(data[:size])
                for each in (answer, other):
                    each["results"][0].pop("timings_ms")
                    each["results"][0].pop("name")
                assert answer == other
                assert (arrays or b"") == data[size:]
            for members in ({"binary": True}, {"mask": "rle"}, {"size": "model"}):
                refused = await dealer.open("row", **members)
                assert (refused["type"], refused["status"]) == ("ended", 400)
                assert "a stream with infer" in refused["error"]["message"]


async def test_what_a_segmentation_may_be_asked(tmp_path: Path) -> None:
    write_vision_model(tmp_path / "cut", SEGMENTERS, "python", "segmentation")
    image = np.repeat(PIXELS, 2, axis=0)
    length, body = binary(image=image)
    head = json.dumps({"json_bytes": length}).encode()
    async with served(tmp_path / "cut") as (http, zmq, worker):
        answers: list[Any] = [await each.infer(image, "cut") for each in (http, zmq)]
        assert answers[0].png == answers[1].png
        assert (answers[1].width, answers[1].height) == (SIDE, 2 * SIDE)
        async with (
            connected(worker.instance.ports["zmq"]) as dealer,
            aiohttp.ClientSession(f"http://{worker.instance.address}") as session,
        ):
            await dealer.open("cut", infer=True, mask="rle", size="model")
            answer, _ = await received(dealer, head, body)
            fields = {"Inference-Header-Content-Length": str(length)}
            path = "/v1/infer/cut?mask=rle&size=model"
            async with session.post(path, data=body, headers=fields) as response:
                other = await response.json()
    for each in (answer, other):
        each["results"][0].pop("timings_ms")
        each["results"][0].pop("name")
    assert answer == other
