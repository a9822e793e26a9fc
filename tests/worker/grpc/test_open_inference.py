"""The Open Inference Protocol over gRPC, by the unmodified `tritonclient[grpc]`."""

from __future__ import annotations

import asyncio
import base64
import queue
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from fingerpost.registry import WorkerState
from fingerpost.worker.grpc.orca import LOAD_TRAILER
from fingerpost.worker.grpc.schema.messages import message_class
from tests.support.colours import encoded
from tests.support.optional import not_none
from tests.support.pixel_arrays import RED_AND_BLUE
from tests.support.rig import Rig, float_pixels
from tests.support.waiting import until

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
INFER = "/inference.GRPCInferenceService/ModelInfer"
PB2: Any = service_pb2  # its classes are made when it is imported
T = TypeVar("T")


async def with_triton(rig: Rig, use: Callable[[Any], T]) -> T:
    """Run what blocks in a thread of its own."""

    def run() -> T:
        client = triton.InferenceServerClient(f"127.0.0.1:{rig.grpc_port}")
        try:
            return use(client)
        finally:
            client.close()

    return await asyncio.to_thread(run)


def images(*colours: str, shape: list[int] | None = None) -> triton.InferInput:
    wanted = triton.InferInput("image", shape or [len(colours)], "BYTES")
    data = np.array([encoded(colour) for colour in colours], object).reshape(wanted.shape())
    return wanted.set_data_from_numpy(data)


def array(data: np.ndarray, datatype: str) -> triton.InferInput:
    return triton.InferInput("x", list(data.shape), datatype).set_data_from_numpy(data)


def top(scores: np.ndarray | None) -> list[str]:
    return [("red", "green", "blue")[row] for row in not_none(scores).argmax(axis=1)]


async def test_health_and_metadata(rig: Rig) -> None:
    def use(client: Any) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("colours")
        assert client.is_model_ready("colours", "7")
        assert not client.is_model_ready("flowers")
        assert "classification" in client.get_server_metadata().extensions
        metadata = client.get_model_metadata("colours", "7", as_json=True)
        assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": ["-1", "1"]}]
        assert metadata["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": ["-1", "3"]}]
        assert (metadata["versions"], metadata["platform"]) == (["7"], "python")
        config = client.get_model_config("colours").config
        assert (config.max_batch_size, config.backend) == (32, "python")
        assert config.input[0].data_type == 13
        (entry,) = client.get_model_repository_index().models
        assert (entry.name, entry.version, entry.state) == ("colours", "7", "READY")
        with pytest.raises(
            InferenceServerException, match="'flowers' is not served here"
        ) as caught:
            client.get_model_metadata("flowers")
        assert caught.value.status() == "StatusCode.NOT_FOUND"
        with pytest.raises(InferenceServerException, match="is not a number"):
            client.get_model_metadata("colours", "stable")

    await with_triton(rig, use)
    rig.service.admission.state = WorkerState.DRAINING
    assert not await with_triton(rig, lambda client: client.is_server_ready())


FORMS: dict[str, Callable[[], triton.InferInput]] = {
    "images": lambda: images("red", "blue"),
    "images in a column": lambda: images("red", "blue", shape=[2, 1]),
    **{name: partial(array, *RED_AND_BLUE[name]) for name in ("pixels", "FP32", "FP16")},
}


@pytest.mark.parametrize("name", FORMS)
async def test_inputs(rig: Rig, name: str) -> None:
    def use(client: Any) -> None:
        result = client.infer("colours", [FORMS[name]()], request_id="an id", priority=1)
        assert top(result.as_numpy("scores")) == ["red", "blue"]
        response = result.get_response()
        assert (response.id, response.model_name, response.model_version) == (
            "an id",
            "colours",
            "7",
        )

    await with_triton(rig, use)


TYPED: dict[str, Callable[[], tuple[str, list[int], str, Any]]] = {
    "images": lambda: ("BYTES", [2], "bytes_contents", [encoded("red"), encoded("blue")]),
    "FP32": lambda: ("FP32", [2, 16, 16, 3], "fp32_contents", both().ravel().tolist()),
    "FP64": lambda: ("FP64", [2, 16, 16, 3], "fp64_contents", both().ravel().tolist()),
    "UINT8": lambda: ("UINT8", [2, 16, 16, 3], "uint_contents", both().astype(int).ravel()),
    "INT32": lambda: ("INT32", [2, 16, 16, 3], "int_contents", both().astype(int).ravel()),
    "INT64": lambda: ("INT64", [2, 16, 16, 3], "int64_contents", both().astype(int).ravel()),
}


def both() -> np.ndarray:
    return np.stack([float_pixels("red"), float_pixels("blue")])


@pytest.mark.parametrize("name", TYPED)
async def test_typed_contents(rig: Rig, name: str) -> None:
    datatype, shape, field, values = TYPED[name]()
    request = PB2.ModelInferRequest(model_name="colours")
    wanted = request.inputs.add(name="x", datatype=datatype, shape=shape)
    getattr(wanted.contents, field).extend(values)
    response = PB2.ModelInferResponse.FromString(await call(rig, request.SerializeToString()))
    scores = np.frombuffer(response.raw_output_contents[0], np.float32).reshape(2, 3)
    assert top(scores) == ["red", "blue"]


async def call(rig: Rig, body: bytes, path: str = INFER, **options: Any) -> bytes:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.grpc_port}") as channel:
        return await channel.unary_unary(path)(body, timeout=20, **options)


async def test_outputs(rig: Rig) -> None:
    wanted = [
        triton.InferRequestedOutput("scores"),
        triton.InferRequestedOutput("probabilities"),
        triton.InferRequestedOutput("classes", class_count=2),
    ]

    def use(client: Any) -> None:
        result = client.infer("colours", [images("blue", "red")], outputs=wanted)
        for name in ("scores", "probabilities"):
            assert top(result.as_numpy(name)) == ["blue", "red"]
        classes = not_none(result.as_numpy("classes"))
        assert classes.shape == (2, 2)
        value, index, label = classes[0][0].decode().split(":")
        assert (float(value) > 0.99, index, label) == (True, "2", "blue")

    await with_triton(rig, use)


async def test_statistics(rig: Rig) -> None:
    def use(client: Any) -> None:
        client.infer("colours", [images("blue", "red")])
        with pytest.raises(InferenceServerException):
            client.infer("colours", [images("blue", "red", shape=[2, 1, 1])])
        (stats,) = client.get_inference_statistics("colours").model_stats
        assert (stats.name, stats.version, stats.inference_count) == ("colours", "7", 2)
        assert (stats.inference_stats.success.count, stats.inference_stats.fail.count) == (1, 1)
        assert stats.inference_stats.compute_infer.ns > 0

    await with_triton(rig, use)


WRONG: dict[str, tuple[Callable[[Any], object], str]] = {
    "no input": (lambda r: r.ClearField("inputs"), "has 0 inputs, but 1 raw_input_contents"),
    "two raw": (lambda r: r.raw_input_contents.append(b""), "1 inputs, but 2 raw_input_contents"),
    "both": (lambda r: r.inputs[0].contents.fp32_contents.append(1.0), "both contents and raw"),
    "a type": (lambda r: setattr(r.inputs[0], "datatype", "FP8"), "is 'FP8': use BYTES"),
    "a huge shape": (
        lambda r: (
            r.inputs[0].shape.extend([1 << 62, 1 << 62]),
            setattr(r.inputs[0], "datatype", "FP32"),
        ),
        "bytes, but float32",
    ),
    "axes": (lambda r: r.inputs[0].shape.extend([1] * 9), "more than eight axes"),
    "a negative axis": (lambda r: r.inputs[0].shape.__setitem__(0, -1), "unknown length"),
    "a lying length": (
        lambda r: r.raw_input_contents.__setitem__(0, b"\xff\xff\xff\x7fabc"),
        "claims 2,147,483,647 bytes; 3 are left",
    ),
    "fewer images": (lambda r: r.inputs[0].shape.__setitem__(0, 2), "its length takes 4 bytes"),
    "more bytes": (
        lambda r: r.raw_input_contents.__setitem__(0, r.raw_input_contents[0] + b"x"),
        "1 bytes after its 1 images",
    ),
    "many images": (lambda r: r.inputs[0].shape.__setitem__(0, 1 << 40), "at a time at most"),
    "no images": (
        lambda r: (r.inputs[0].shape.__setitem__(0, 0), r.raw_input_contents.__setitem__(0, b"")),
        "is empty: give one image or more",
    ),
    "the same twice": (
        lambda r: (r.inputs.append(r.inputs[0]), r.raw_input_contents.append(b"")),
        "is there twice",
    ),
    "an id": (lambda r: setattr(r, "id", "x" * 300), "the id has more than 255"),
    "a version": (lambda r: setattr(r, "model_version", "stable"), "colours@stable"),
    "a name": (lambda r: setattr(r, "model_name", "../etc"), "etc"),
    "fields": (lambda r: [r.outputs.add() for _ in range(40_000)], "more than 32,768 fields"),
    "outputs": (lambda r: [r.outputs.add() for _ in range(40)], "more than 16 outputs"),
    "numbers": (
        lambda r: (
            r.ClearField("raw_input_contents"),
            r.inputs[0].contents.int64_contents.extend([1] * 9_000_000),
        ),
        "numbers of variable length, over the limit",
    ),
}


def one_image() -> Any:
    request = PB2.ModelInferRequest(model_name="colours")
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    data = encoded("red")
    request.raw_input_contents.append(len(data).to_bytes(4, "little") + data)
    return request


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_request_is_an_invalid_argument(rig: Rig, case: str) -> None:
    request = one_image()
    change, message = WRONG[case]
    change(request)
    with pytest.raises(grpc.aio.AioRpcError, match="INVALID_ARGUMENT") as caught:
        await call(rig, request.SerializeToString())
    assert message in not_none(caught.value.details())
    await call(rig, one_image().SerializeToString())  # nothing else is disturbed


@pytest.mark.parametrize("cut", [1, 5, 40, -1])
async def test_a_message_that_is_cut_short(rig: Rig, cut: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="not a valid inference.ModelInferRequest"):
        await call(rig, one_image().SerializeToString()[:cut])


@pytest.mark.parametrize("body", [None, b"\xff"], ids=["an answer", "an error"])
async def test_the_load_is_in_the_trailer(rig: Rig, tmp_path: Path, body: bytes | None) -> None:
    """By curl: gRPC's own client keeps the trailer for its balancer."""
    sent, head = tmp_path / "sent", tmp_path / "head"
    data = one_image().SerializeToString() if body is None else body
    sent.write_bytes(b"\0" + len(data).to_bytes(4, "big") + data)
    curl = await asyncio.create_subprocess_exec(
        *("curl", "-s", "--http2-prior-knowledge", "-D", head, "-o", tmp_path / "body"),
        *("-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary"),
        *(f"@{sent}", f"http://127.0.0.1:{rig.grpc_port}{INFER}"),
    )
    assert await curl.wait() == 0
    fields = dict(line.split(": ", 1) for line in head.read_text().splitlines() if ": " in line)
    assert fields["grpc-status"] == ("0" if body is None else "3")
    encoded = fields[LOAD_TRAILER]
    value = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
    report = message_class("xds.data.orca.v3.OrcaLoadReport").FromString(value)
    assert report.application_utilization > 0
    assert report.named_metrics["boot_id"] == 1


class Heard:
    """What came back up a stream."""

    def __init__(self) -> None:
        self.answers: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def __call__(self, result: Any, error: Any) -> None:
        self.answers.put((result, error))

    def take(self) -> tuple[Any, Any]:
        return self.answers.get(timeout=20)


async def test_a_stream_answers_each_request_in_its_order(rig: Rig) -> None:
    def use(client: Any) -> None:
        heard = Heard()
        client.start_stream(heard)
        for number in range(100):
            wrong = number == 50
            given = images("red", shape=[1, 1, 1]) if wrong else images("red")
            client.async_stream_infer("colours", [given], request_id=str(number))
        for number in range(100):
            result, error = heard.take()
            if number == 50:
                assert "encoded images are [N] or [N, 1]" in str(error)
                continue
            assert error is None
            assert result.get_response().id == str(number)
            assert top(result.as_numpy("scores")) == ["red"]
        client.stop_stream()

    await with_triton(rig, use)
    assert rig.service.admission.rif == 0


async def test_a_stream_ends_when_the_worker_drains(rig: Rig) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.grpc_port}") as channel:
        stream = channel.stream_stream(STREAM)()
        await stream.write(one_image().SerializeToString())
        first = PB2.ModelStreamInferResponse.FromString(await stream.read())
        assert first.infer_response.model_name == "colours"
        rig.service.admission.state = WorkerState.DRAINING
        with pytest.raises(grpc.aio.AioRpcError, match="this worker is leaving"):
            await stream.read()
        assert await stream.code() is grpc.StatusCode.UNAVAILABLE
        assert await rig.service.admission.idle(5)


async def test_a_stream_whose_client_leaves_is_forgotten(rig: Rig) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.grpc_port}") as channel:
        stream = channel.stream_stream(STREAM)()
        rig.backend.gate.clear()
        await stream.write(one_image().SerializeToString())
        await until(lambda: rig.rif == 1)
        stream.cancel()
        await until(lambda: rig.rif == 0)
        rig.backend.gate.set()
    assert await rig.service.admission.idle(5)


async def test_load_reports_out_of_band(rig: Rig) -> None:
    report = message_class("xds.data.orca.v3.OrcaLoadReport")
    request = message_class("xds.service.orca.v3.OrcaLoadReportRequest")()
    request.report_interval.FromMilliseconds(100)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.grpc_port}") as channel:
        reports = channel.unary_stream(
            "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics",
            request_serializer=message_class(request.DESCRIPTOR.full_name).SerializeToString,
            response_deserializer=report.FromString,
        )(request)
        first: Any = await reports.read()
        second: Any = await reports.read()
        assert second.named_metrics["seq"] > first.named_metrics["seq"]
        assert 0 < second.application_utilization <= 1 / 32
        reports.cancel()


async def test_nobody_loads_models_without_a_token(rig: Rig) -> None:
    def use(client: Any) -> None:
        with pytest.raises(InferenceServerException, match="--admin-token-file") as caught:
            client.load_model("colours")
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"

    await with_triton(rig, use)


async def test_health_of_grpc_follows_the_state(rig: Rig) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.grpc_port}") as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService")
        watch = health.Watch(request)
        states = aiter(watch)
        assert (await anext(states)).status == health_pb2.HealthCheckResponse.SERVING
        rig.service.admission.state = WorkerState.DRAINING
        assert (await anext(states)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


async def test_reflection_describes_what_is_served(rig: Rig) -> None:
    def use() -> tuple[Any, str]:
        with grpc.insecure_channel(f"127.0.0.1:{rig.grpc_port}") as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            file = database.FindFileContainingSymbol("inference.GRPCInferenceService")
            return database.get_services(), file.name

    services, file = await asyncio.to_thread(use)
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= set(services)
    assert file == "inference.proto"
