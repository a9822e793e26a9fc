"""TensorFlow Serving over gRPC, with TensorFlow's own messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import Default

from fingerpost.worker.grpc.schema.messages import message_class, pool
from tests.support.colours import LABELS, encoded
from tests.support.later import later
from tests.support.optional import not_none
from tests.support.rig import Rig, float_pixels
from tests.worker.grpc.schema.test_proto_file import PB2, fields_of

if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = later("tensorflow")

PREDICTION = "/tensorflow.serving.PredictionService"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
BOTH = np.stack([float_pixels("red"), float_pixels("blue")])
PIXELS = np.stack([np.full((9, 9, 3), c, np.uint8) for c in ((250, 9, 9), (9, 9, 250))])


async def call(rig: Rig, path: str, request: Any, answer: str) -> Any:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.grpc_port}") as channel:
        data = await channel.unary_unary(path)(request.SerializeToString(), timeout=20)
        return message_class(f"tensorflow.serving.{answer}").FromString(data)


def predict(value: Any, *, name: str = "colours", **options: Any) -> Any:
    request = message_class("tensorflow.serving.PredictRequest")()
    request.model_spec.name = name
    tensor = tf.make_tensor_proto(value, **options)
    request.inputs["image"].ParseFromString(tensor.SerializeToString())
    return request


TENSORS: dict[str, Callable[[], Any]] = {
    "images": lambda: predict([encoded("red"), encoded("blue")]),
    "a column of images": lambda: predict([[encoded("red")], [encoded("blue")]]),
    "float32": lambda: predict(BOTH),
    "float16": lambda: predict(BOTH.astype(np.float16)),
    "float64": lambda: predict(BOTH.astype(np.float64)),
    "int32": lambda: predict(BOTH.astype(np.int32)),
    "pixels": lambda: predict(PIXELS),
}


@pytest.mark.parametrize("case", TENSORS)
async def test_predict(rig: Rig, case: str) -> None:
    answer = await call(rig, f"{PREDICTION}/Predict", TENSORS[case](), "PredictResponse")
    theirs = type(tf.make_tensor_proto(0.0))()
    theirs.ParseFromString(answer.outputs["scores"].SerializeToString())
    tensor = tf.make_ndarray(theirs)
    assert tensor.shape == (2, 3)
    assert [LABELS[row] for row in tensor.argmax(axis=1)] == ["red", "blue"]
    assert len(answer.outputs["scores"].float_val) == 6  # where clients look for them
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("colours", 7)


@pytest.mark.parametrize("field", ["float_val", "half_val", "int_val"])
async def test_numbers_in_the_field_of_their_type(rig: Rig, field: str) -> None:
    number, values = {
        "float_val": (1, BOTH.ravel().tolist()),
        "half_val": (19, BOTH.astype(np.float16).view(np.uint16).ravel().tolist()),
        "int_val": (4, BOTH.astype(np.uint8).ravel().tolist()),
    }[field]
    request = message_class("tensorflow.serving.PredictRequest")()
    tensor = request.inputs["x"]
    tensor.dtype = number
    for side in BOTH.shape:
        tensor.tensor_shape.dim.add(size=side)
    getattr(tensor, field).extend(values)
    answer = await call(rig, f"{PREDICTION}/Predict", request, "PredictResponse")
    scores = np.array(answer.outputs["scores"].float_val).reshape(2, 3)
    assert [LABELS[row] for row in scores.argmax(axis=1)] == ["red", "blue"]


async def test_a_version_and_a_filter(rig: Rig) -> None:
    request = predict([encoded("red")])
    request.model_spec.version.value = 7
    request.model_spec.signature_name = "serving_default"
    request.output_filter.append("scores")
    answer = await call(rig, f"{PREDICTION}/Predict", request, "PredictResponse")
    assert list(answer.outputs) == ["scores"]


def example(*images: bytes) -> Any:
    request = message_class("tensorflow.serving.ClassificationRequest")()
    request.model_spec.name = "colours"
    for image in images:
        features = {"image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))}
        made = tf.train.Example(features=tf.train.Features(feature=features))
        request.input.example_list.examples.add().ParseFromString(made.SerializeToString())
    return request


async def test_classify(rig: Rig) -> None:
    request = example(encoded("red"), encoded("blue"))
    answer = await call(rig, f"{PREDICTION}/Classify", request, "ClassificationResponse")
    first, second = answer.result.classifications
    assert [each.label for each in first.classes][0] == "red"
    assert [each.label for each in second.classes][0] == "blue"
    assert len(first.classes) == 3
    assert first.classes[0].score > 0.9


async def test_metadata(rig: Rig) -> None:
    request = message_class("tensorflow.serving.GetModelMetadataRequest")()
    request.model_spec.name = "colours"
    request.metadata_field.append("signature_def")
    answer = await call(rig, f"{PREDICTION}/GetModelMetadata", request, "GetModelMetadataResponse")
    signatures = message_class("tensorflow.serving.SignatureDefMap")()
    assert answer.metadata["signature_def"].Unpack(signatures)
    signature = signatures.signature_def["serving_default"]
    assert signature.inputs["image"].dtype == tf.string.as_datatype_enum
    assert [each.size for each in signature.outputs["scores"].tensor_shape.dim] == [-1, 3]


async def test_status(rig: Rig) -> None:
    request = message_class("tensorflow.serving.GetModelStatusRequest")()
    request.model_spec.name = "colours"
    answer = await call(rig, STATUS, request, "GetModelStatusResponse")
    (found,) = answer.model_version_status
    assert (found.version, found.state, found.status.error_code) == (7, 30, 0)


def without_shape(request: Any) -> None:
    request.inputs["image"].tensor_shape.unknown_rank = True


WRONG: dict[str, tuple[Callable[[Any], object], str]] = {
    "no shape": (without_shape, "has no shape: give it one"),
    "one number for all": (
        lambda r: (
            r.inputs["image"].Clear(),
            setattr(r.inputs["image"], "dtype", 1),
            r.inputs["image"].float_val.append(1.0),
            r.inputs["image"].tensor_shape.dim.add(size=1 << 40),
        ),
        "has 1 numbers in float_val, but its shape is",
    ),
    "a type": (lambda r: setattr(r.inputs["image"], "dtype", 18), "is of type 18"),
    "fewer images": (
        lambda r: r.inputs["image"].string_val.pop(),
        "but 0 elements in string_val",
    ),
    "another signature": (
        lambda r: setattr(r.model_spec, "signature_name", "other"),
        "signature_name 'other' is not known",
    ),
    "another output": (lambda r: r.output_filter.append("boxes"), "has no output 'boxes'"),
    "two inputs": (lambda r: r.inputs["other"].CopyFrom(r.inputs["image"]), "has 2 inputs"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_request_is_an_invalid_argument(rig: Rig, case: str) -> None:
    request = predict([encoded("red")])
    change, message = WRONG[case]
    change(request)
    with pytest.raises(grpc.aio.AioRpcError, match="INVALID_ARGUMENT") as caught:
        await call(rig, f"{PREDICTION}/Predict", request, "PredictResponse")
    assert message in not_none(caught.value.details())


async def test_what_is_not_there(rig: Rig) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
        await call(rig, f"{PREDICTION}/Predict", predict([b"x"], name="roses"), "PredictResponse")
    with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
        await call(rig, f"{PREDICTION}/Regress", predict([b"x"]), "PredictResponse")


def test_the_messages_are_tensorflows() -> None:
    """Each of our fields is one of TensorFlow's, with its number and type."""
    known: dict[str, Any] = {}
    for name in ("tensor", "tensor_shape", "types"):
        theirs = PB2.FileDescriptorProto()
        Default().FindFileByName(f"tensorflow/core/framework/{name}.proto").CopyToProto(theirs)
        known |= fields_of(theirs)
    for name in ("core/example/example", "core/example/feature", "core/protobuf/meta_graph"):
        theirs = PB2.FileDescriptorProto()
        Default().FindFileByName(f"tensorflow/{name}.proto").CopyToProto(theirs)
        known |= fields_of(theirs)
    ours = PB2.FileDescriptorProto()
    pool().FindFileByName("tensorflow.proto").CopyToProto(ours)
    found = fields_of(ours)
    values = dict(known.pop("DataType"))
    assert set(found.pop("DataType")) <= set(values.items())
    assert len(found) > 30
    assert {name: known.get(name) for name in found} == found
