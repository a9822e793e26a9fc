"""Hostile calls of gRPC at random, each from a seed, and what every one must be answered with."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np

from fingerpost.worker.grpc.schema.messages import message_class
from tests.support.rig import float_pixels
from tests.worker.protocols.fuzz_parts import HANG_S, Wrong, image, mutated
from tests.worker.protocols.fuzz_same_host import KEY
from tests.worker.protocols.fuzz_same_host import shared_memory as http_shared_memory

__all__ = ["GrpcRequests"]

_INFERENCE = "/inference.GRPCInferenceService"
_SERVING = "/tensorflow.serving"
_RegisterRequest = message_class("inference.SystemSharedMemoryRegisterRequest")
_StatusRequest = message_class("inference.SystemSharedMemoryStatusRequest")
_InferRequest = message_class("inference.ModelInferRequest")
_PredictRequest = message_class("tensorflow.serving.PredictRequest")
_ClassificationRequest = message_class("tensorflow.serving.ClassificationRequest")
# What a hostile call may be told: never that the server has failed, or not known what to do.
_ALLOWED = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
_SHAPES: tuple[list[int], ...] = ([], [0], [1], [-1], [1, 1], [2**40] * 3, [1] * 300, [2**62])
_NAMES = ("colours", "colours", "colours", "colours@7", "colours@x", "", "x", "\x00", "é" * 500)
_TYPES = ("BYTES", "FP32", "UINT8", "FP16", "INT64", "BOOL", "fp32", "")

Call = tuple[str, list[bytes]]


def infer_request(rng: random.Random) -> Any:
    """Of the Open Inference Protocol: an image, pixels, or one that says what it is not."""
    request = _InferRequest(model_name=rng.choice(_NAMES), id=rng.choice(("", "7", "é" * 99)))
    pixels, one = float_pixels("red"), image(rng)
    known = (
        ("BYTES", [1], len(one).to_bytes(4, "little") + one),
        ("FP32", [1, 16, 16, 3], pixels.tobytes()),
        ("UINT8", [1, 16, 16, 3], pixels.astype(np.uint8).tobytes()),
        ("BYTES", [2], rng.randbytes(rng.randrange(100))),
    )
    for _ in range(rng.choice((1, 1, 1, 1, 0, 2, 40))):
        datatype, shape, data = rng.choice(known)
        if rng.random() < 0.15:
            datatype = rng.choice(_TYPES)
        if rng.random() < 0.15:
            shape = rng.choice(_SHAPES)
        tensor = request.inputs.add(name=rng.choice(("x", "image", "")), datatype=datatype)
        tensor.shape.extend(shape)
        if rng.random() < 0.2:
            _in_a_region(rng, tensor)
        if rng.random() < 0.2:
            tensor.contents.bytes_contents.extend([one] * rng.choice((1, 2, 0)))
            tensor.contents.fp32_contents.extend([1e38] * rng.choice((0, 768, 7)))
        else:
            request.raw_input_contents.append(mutated(rng, data) if rng.random() < 0.1 else data)
    if rng.random() < 0.1:
        request.raw_input_contents.extend([b""] * rng.choice((1, 5000)))
    if rng.random() < 0.3:
        wanted = request.outputs.add(name=rng.choice(("scores", "best", "o", "")))
        if rng.random() < 0.5:
            wanted.parameters["classification"].int64_param = rng.choice((2, -1, 2**62))
        if rng.random() < 0.3:
            _in_a_region(rng, wanted)
    if rng.random() < 0.2:
        request.parameters["timeout"].int64_param = rng.choice((1, -1, 10**15))
        request.parameters[rng.choice(("x", "priority", "shared_memory_region"))].string_param = "y"
    return request


_NUMBERS = (0, 12, 3072, 4096, 2**63 - 1)


def _in_a_region(rng: random.Random, tensor: Any) -> None:
    """Say that a tensor is in shared memory, more or less."""
    region = tensor.parameters["shared_memory_region"]
    if rng.random() < 0.9:
        region.string_param = rng.choice((*"aaab", "", "c" * 300))
    else:
        region.double_param = 0.5
    tensor.parameters["shared_memory_byte_size"].int64_param = rng.choice((3072, *_NUMBERS, -1))
    if rng.random() < 0.5:
        offset = tensor.parameters["shared_memory_offset"]
        offset.uint64_param = rng.choice((*_NUMBERS, 2**64 - 1))


def shared_memory(rng: random.Random) -> Call:
    """A call of Triton's, on memory whose size changes all the time."""
    http_shared_memory(rng)  # changes it
    name = rng.choice((*"aab", "", "c" * 300, "\0"))
    match rng.randrange(4):
        case 0 | 1:
            order = _RegisterRequest(name=name, key=rng.choice((KEY, KEY, KEY, "/..", "/a/b", "")))
            order.byte_size = rng.choice((3072, 3072, *_NUMBERS, 2**64 - 1))
            order.offset = rng.choice((0, 0, *_NUMBERS, 2**64 - 1))
            return f"{_INFERENCE}/SystemSharedMemoryRegister", [order.SerializeToString()]
        case 2:
            verb = rng.choice(("Status", "Unregister"))
            order = _StatusRequest(name=name)  # both have the name alone
            return f"{_INFERENCE}/SystemSharedMemory{verb}", [order.SerializeToString()]
    return infer(rng)


def infer(rng: random.Random) -> Call:
    return f"{_INFERENCE}/ModelInfer", [infer_request(rng).SerializeToString()]


def stream(rng: random.Random) -> Call:
    requests = [infer_request(rng).SerializeToString() for _ in range(rng.randrange(5))]
    return f"{_INFERENCE}/ModelStreamInfer", requests


def predict(rng: random.Random) -> Call:
    """Of TensorFlow Serving: values in the wrong fields, of wrong types and shapes."""
    request = _PredictRequest()
    request.model_spec.name = rng.choice(_NAMES)
    if rng.random() < 0.2:
        request.model_spec.version_label = rng.choice(("stable", "", "x" * 5000))
    tensor = request.inputs[rng.choice(("image", "x", ""))]
    tensor.dtype = rng.choice((7, 7, 7, 1, 4, 3, 0, 19, 101))
    for size in rng.choice(([1], [1], [1, 16, 16, 3], *_SHAPES)):
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_shape.unknown_rank = rng.random() < 0.05
    if tensor.dtype == 7:
        tensor.string_val.extend([image(rng) for _ in range(rng.choice((1, 1, 1, 0, 3)))])
    elif rng.random() < 0.5:
        tensor.tensor_content = rng.randbytes(rng.choice((0, 7, 768, 3072)))
    else:
        tensor.float_val.extend([float("nan")] * rng.choice((1, 768)))
        tensor.half_val.extend([-1, 2**31 - 1])
    return f"{_SERVING}.PredictionService/Predict", [request.SerializeToString()]


def classify(rng: random.Random) -> Call:
    request = _ClassificationRequest()
    request.model_spec.name = rng.choice(_NAMES)
    for _ in range(rng.choice((1, 1, 0, 3, 300))):
        features = request.input.example_list.examples.add().features
        values = features.feature[rng.choice(("image", "x", ""))]
        if rng.random() < 0.8:
            values.bytes_list.value.extend([image(rng)] * rng.choice((1, 1, 0, 2)))
        else:
            values.float_list.value.extend([1.0] * 7)
    return f"{_SERVING}.PredictionService/Classify", [request.SerializeToString()]


def anything(rng: random.Random) -> Call:
    """Bytes that are no message, to all methods, and to some that are not there."""
    method = rng.choice(
        (
            *(f"{_INFERENCE}/{name}" for name in ("ModelInfer", "ModelConfig", "ModelReady",
              "ModelStatistics", "RepositoryIndex", "RepositoryModelLoad", "Nothing")),
            f"{_SERVING}.PredictionService/GetModelMetadata",
            f"{_SERVING}.PredictionService/Regress",
            f"{_SERVING}.ModelService/GetModelStatus",
            "/x/y",
        )
    )  # fmt: skip
    # Groups without end, a message in messages without end, a field of 4 GB that is not there.
    data = (
        b"",
        rng.randbytes(40),
        b"\x0b" * 5000,
        b"\x2a\x00" * 30_000,
        b"\x0a\xff\xff\xff\xff\x0f",
    )
    return method, [rng.choice(data)]


_KINDS: tuple[Callable[[random.Random], Call], ...] = (
    infer,
    infer,
    infer,
    predict,
    predict,
    classify,
    stream,
    shared_memory,
    anything,
)
_METADATA = (
    ("fingerpost-class", "batch"),
    ("fingerpost-class", "x"),
    ("fingerpost-boot-id", "x"),
    ("fingerpost-boot-id", "99"),
    ("fingerpost-deadline-ms", "nan"),
    ("traceparent", "00-x"),
    ("authorization", "Bearer " + "x" * 5000),
    ("x-bin", b"\x00\xff"),
)


class GrpcRequests:
    """Sends hostile calls to a worker, one at a time; `close` ends it."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def close(self) -> None:
        self._channel.close()

    def attempt(self, seed: int) -> str:
        """Send the call of a seed, and judge the answer; return its kind and status.

        Raises:
            Wrong: a status that says that the server has failed, or no answer.
        """
        rng = random.Random(seed)
        make = rng.choice(_KINDS)
        method, messages = make(rng)
        if rng.random() < 0.2:
            messages = [mutated(rng, each) for each in messages]
        metadata = (rng.choice(_METADATA),) if rng.random() < 0.1 else None
        timeout_s = rng.choice((0.001, 0.05)) if rng.random() < 0.05 else HANG_S
        call, began = self._channel.stream_stream(method), time.monotonic()
        answers = call(iter(messages), timeout=timeout_s, metadata=metadata)
        try:
            for _ in answers:
                pass
        except grpc.RpcError:
            pass  # judged below
        code = answers.code()
        if code not in _ALLOWED or time.monotonic() - began >= HANG_S:
            raise Wrong(f"seed {seed}, gRPC {make.__name__}: {code.name} {answers.details()!r}")
        return f"gRPC {make.__name__} {code.name}"
