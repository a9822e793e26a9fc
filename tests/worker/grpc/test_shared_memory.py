"""Triton's system shared memory over gRPC, by the unmodified `tritonclient`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shm
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from fingerpost.worker.config import RequestConfig
from tests.support.colours import encoded
from tests.support.optional import not_none
from tests.support.rig import Rig, float_pixels, serving
from tests.support.shared_memory import place, shared_memory_key
from tests.worker.grpc.test_open_inference import INFER, top, with_triton

PB2: Any = service_pb2  # its classes are made when it is imported
PIXELS = np.stack([float_pixels("green"), float_pixels("blue")])
key = shared_memory_key


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    limits = RequestConfig(max_bytes=100_000)
    async with serving(grpc=True, shared_memory=True, requests=limits) as rig:
        yield rig
        assert rig.rif == 0
        assert rig.service.memory.used == 0


async def test_inputs_and_outputs_by_the_unmodified_client(rig: Rig, key: str) -> None:
    out_bytes = 2 * 3 * 4
    size = PIXELS.nbytes + out_bytes

    def use(client: Any) -> None:
        region = shm.create_shared_memory_region("both", key, size)
        try:
            shm.set_shared_memory_region(region, [PIXELS])
            client.register_system_shared_memory("both", key, size)
            status = client.get_system_shared_memory_status(as_json=True)["regions"]
            assert status == {"both": {"name": "both", "key": key, "byte_size": str(size)}}
            assert list(client.get_system_shared_memory_status("both").regions) == ["both"]
            given = triton.InferInput("x", list(PIXELS.shape), "FP32")
            given.set_shared_memory("both", PIXELS.nbytes)
            wanted = triton.InferRequestedOutput("scores")
            wanted.set_shared_memory("both", out_bytes, offset=PIXELS.nbytes)
            result = client.infer("colours", [given], outputs=[wanted])
            output = result.get_output("scores")
            assert output.parameters["shared_memory_region"].string_param == "both"
            assert output.parameters["shared_memory_byte_size"].int64_param == out_bytes
            assert list(output.shape) == [2, 3]
            scores = shm.get_contents_as_numpy(region, np.float32, [2, 3], PIXELS.nbytes)
            assert scores.argmax(axis=1).tolist() == [1, 2]
            assert top(client.infer("colours", [given]).as_numpy("scores")) == ["green", "blue"]
            # One in the region, and the one after it in the answer.
            both = client.infer("colours", [given], outputs=[wanted, _output("again")])
            assert top(both.as_numpy("again")) == ["green", "blue"]
            client.unregister_system_shared_memory("both")
            assert not client.get_system_shared_memory_status().regions
            with pytest.raises(InferenceServerException, match="register it first"):
                client.infer("colours", [given])
        finally:
            shm.destroy_shared_memory_region(region)

    await with_triton(rig, use)


def _output(name: str) -> triton.InferRequestedOutput:
    return triton.InferRequestedOutput(name)


async def test_encoded_images_and_a_stream(rig: Rig, key: str) -> None:
    image = encoded("blue")
    data = np.array([len(image)], "<u4").tobytes() + image
    place(key, bytes(10) + data)

    def use(client: Any) -> None:
        client.register_system_shared_memory("images", key, len(data), offset=10)
        given = triton.InferInput("image", [1], "BYTES")
        given.set_shared_memory("images", len(data))
        assert top(client.infer("colours", [given]).as_numpy("scores")) == ["blue"]
        answers: list[Any] = []
        client.start_stream(callback=lambda result, error: answers.append((result, error)))
        client.async_stream_infer("colours", [given])
        client.stop_stream()
        assert [(top(result.as_numpy("scores")), error) for result, error in answers] == [
            (["blue"], None)
        ]
        client.unregister_system_shared_memory()
        assert not client.get_system_shared_memory_status().regions

    await with_triton(rig, use)


async def test_regions_are_those_of_http(rig: Rig, key: str) -> None:
    import tritonclient.http as http

    place(key, bytes(12))

    def use(client: Any) -> None:
        client.register_system_shared_memory("x", key, 12)
        with http.InferenceServerClient(f"127.0.0.1:{rig.port}") as other:
            assert [each["name"] for each in other.get_system_shared_memory_status()] == ["x"]
            other.unregister_system_shared_memory("x")
        assert not client.get_system_shared_memory_status().regions

    await with_triton(rig, use)


async def test_it_is_off_unless_it_is_asked_for(key: str) -> None:
    place(key, bytes(3072))

    def use(client: Any) -> None:
        assert "system_shared_memory" not in client.get_server_metadata().extensions
        given = triton.InferInput("x", [1, 16, 16, 3], "FP32")
        given.set_shared_memory("x", 3072)
        for call in (
            lambda: client.register_system_shared_memory("x", key, 3072),
            lambda: client.get_system_shared_memory_status(),
            lambda: client.unregister_system_shared_memory(),
            lambda: client.infer("colours", [given]),
        ):
            with pytest.raises(InferenceServerException, match="--shared-memory") as caught:
                call()
            assert caught.value.status() == "StatusCode.UNIMPLEMENTED"

    async with serving(grpc=True) as rig:
        await with_triton(rig, use)


@pytest.mark.parametrize(
    ("name", "order", "says"),
    [
        ("", {}, "the name of a region has 1 to 255 characters"),
        ("a", {"key": "/../etc/passwd"}, "is not a valid key"),
        ("a", {"key": "/a/b"}, "is not a valid key"),
        ("a", {"byte_size": 0}, "has byte_size 0"),
        ("a", {"byte_size": 3073}, "ends at byte 3,073"),
        ("a", {"byte_size": 2**64 - 1}, "is not a number of bytes"),
        ("a", {"offset": 2**64 - 1}, "is not a number of bytes"),
        ("a", {"offset": 2**63 - 1, "byte_size": 2**63 - 1}, "ends at byte"),
    ],
)
async def test_a_region_that_is_not_valid(
    rig: Rig, key: str, name: str, order: dict[str, Any], says: str
) -> None:
    place(key, bytes(3072))
    order = {"name": name, "key": key, "byte_size": 3072, **order}
    method = "/inference.GRPCInferenceService/SystemSharedMemoryRegister"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.grpc_port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            data = PB2.SystemSharedMemoryRegisterRequest(**order).SerializeToString()
            await channel.unary_unary(method)(data)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert says in not_none(caught.value.details())


async def test_places_that_are_not_in_a_region(rig: Rig, key: str) -> None:
    path = place(key, float_pixels("red").tobytes() + bytes(12))

    def request(**wrong: Any) -> Any:
        found = PB2.ModelInferRequest(model_name="colours")
        given = found.inputs.add(name="x", datatype="FP32", shape=[1, 16, 16, 3])
        wanted = found.outputs.add(name="scores")
        for tensor, size, offset in ((given, 3072, 0), (wanted, 12, 3072)):
            tensor.parameters["shared_memory_region"].string_param = "x"
            tensor.parameters["shared_memory_byte_size"].int64_param = size
            tensor.parameters["shared_memory_offset"].int64_param = offset
        for name, (kind, value) in wrong.items():
            tensor = wanted if name.startswith("out_") else given
            setattr(tensor.parameters[name.removeprefix("out_")], kind, value)
        return found

    cases: list[tuple[Any, str]] = [
        (request(shared_memory_byte_size=("int64_param", -1)), "-1 is not a number of bytes"),
        (request(shared_memory_offset=("int64_param", 3000)), "are not within region 'x'"),
        (request(shared_memory_offset=("uint64_param", 2**64 - 1)), "is not a number of bytes"),
        (request(shared_memory_offset=("string_param", "7")), "is not a whole number"),
        (request(shared_memory_region=("bool_param", True)), "is not a text (string_param)"),
        (request(shared_memory_region=("string_param", "y")), "no region 'y' is registered"),
        (request(shared_memory_byte_size=("int64_param", 12)), "x"),
        (request(out_shared_memory_byte_size=("int64_param", 4)), "has 12 bytes, and"),
        (request(out_shared_memory_offset=("int64_param", 3080)), "are not within region 'x'"),
        (request(out_classification=("int64_param", 2)), "labels are not written into shared"),
    ]
    both = request()
    both.inputs[0].contents.fp32_contents.extend([0.0] * 768)
    cases.append((both, "or a region of shared memory: send one"))
    raw = request()
    raw.raw_input_contents.append(bytes(3072))
    cases.append((raw, "0 inputs outside shared memory, but 1 raw_input_contents"))
    large = request(shared_memory_byte_size=("int64_param", 100_001))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.grpc_port}") as channel:
        register = channel.unary_unary("/inference.GRPCInferenceService/SystemSharedMemoryRegister")
        order = PB2.SystemSharedMemoryRegisterRequest(name="x", key=key, byte_size=3084)
        await register(order.SerializeToString())

        async def refused(asked: Any) -> tuple[grpc.StatusCode, str]:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(INFER)(asked.SerializeToString())
            return caught.value.code(), not_none(caught.value.details())

        for asked, says in cases:
            code, details = await refused(asked)
            assert code is grpc.StatusCode.INVALID_ARGUMENT, says
            assert says in details
        assert (await refused(large))[1].startswith("the inputs have 100,001 bytes, over the limit")
        answer = await channel.unary_unary(INFER)(request().SerializeToString())
        assert PB2.ModelInferResponse.FromString(answer).outputs[0].shape == [1, 3]
        assert np.frombuffer(path.read_bytes()[3072:], np.float32).argmax() == 0
        path.write_bytes(b"short")  # by the client, at any time
        assert "has 5: create it with that size" in (await refused(request()))[1]


async def test_a_client_of_another_host_has_none(rig: Rig, monkeypatch: Any) -> None:
    """Its address is not one of this machine."""
    monkeypatch.setattr("fingerpost.registry.grpc.call_head.peer_address", lambda _: "203.0.113.7")

    def use(client: Any) -> str:
        with pytest.raises(InferenceServerException, match="for clients on this host") as caught:
            client.get_system_shared_memory_status()
        return str(caught.value.status())

    assert await with_triton(rig, use) == "StatusCode.PERMISSION_DENIED"
