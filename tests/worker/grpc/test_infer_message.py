"""`ModelInferRequest`s that are read in place, compared with what protobuf reads and writes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerpost.errors import InvalidRequest
from fingerpost.registry import LoadReport, WorkerState
from fingerpost.worker.grpc.infer_message import INFER_REQUEST, InferMessages, varint
from fingerpost.worker.grpc.orca import OrcaReports
from fingerpost.worker.grpc.schema.messages import message_class
from tests.support.examples import examples

REQUEST = message_class(INFER_REQUEST)
IMAGE = b"\x03\x00\x00\x00abc"


class Served:
    model, version = "flowers", "7"


def plain(image: bytes = IMAGE, **fields: Any) -> Any:
    request = REQUEST(model_name="flowers", raw_input_contents=[image], **fields)
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    return request


def with_parameter(request: Any) -> Any:
    request.parameters["timeout"].int64_param = 5
    return request


def with_output(request: Any, **parameters: int) -> Any:
    added = request.outputs.add(name="best")
    for name, value in parameters.items():
        added.parameters[name].int64_param = value
    return request


def with_contents(request: Any) -> Any:
    request.inputs[0].contents.bytes_contents.append(b"abc")
    return request


def of_pixels(request: Any) -> Any:
    request.inputs[0].datatype = "UINT8"
    return request


def two_images(request: Any) -> Any:
    request.raw_input_contents.append(b"more")
    return request


CASES = {
    "plain": (plain(), True),
    "an image of many bytes": (plain(bytes(300_000)), True),
    "an empty image": (plain(b""), True),
    "an id": (plain(id="17"), True),
    "a version": (plain(model_version="7"), True),
    "an output": (with_output(plain()), True),
    "labels": (with_output(plain(), classification=3), False),
    "a parameter": (with_parameter(plain()), False),
    "contents too": (with_contents(plain()), False),
    "pixels": (of_pixels(plain()), False),
    "two images": (two_images(plain()), False),
    "nothing": (REQUEST(), False),
    "no image": (REQUEST(model_name="flowers"), False),
}


@pytest.mark.parametrize(("request_", "is_plain"), CASES.values(), ids=CASES.keys())
def test_a_request_is_what_protobuf_reads(request_: Any, is_plain: bool) -> None:
    messages, data = InferMessages(), request_.SerializeToString()
    for _ in range(2):  # the second one may be of a form that is known
        found = messages.decode(data)
        assert (found.form is not None) is is_plain
        assert [bytes(each) for each in found.raw] == list(request_.raw_input_contents)
        whole = REQUEST()
        whole.CopyFrom(found.request)
        whole.raw_input_contents.extend(bytes(each) for each in found.raw)
        assert whole == request_


def test_fields_may_stand_in_any_order() -> None:
    parts = [REQUEST(raw_input_contents=[b"a"]), plain(b"b"), REQUEST(raw_input_contents=[b"c"])]
    found = InferMessages().decode(b"".join(each.SerializeToString() for each in parts))
    assert [bytes(each) for each in found.raw] == [b"a", b"b", b"c"]
    assert found.request.model_name == "flowers"


def test_another_request_is_not_taken_for_one_of_a_known_form() -> None:
    messages = InferMessages()
    known = plain().SerializeToString()
    messages.decode(known)
    labels = messages.decode(known + with_output(REQUEST(), classification=1).SerializeToString())
    assert labels.form is None, "fields after the image count"
    other = messages.decode(known.replace(b"flowers", b"animals"))
    assert other.request.model_name == "animals"


@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_what_is_cut_or_changed_is_refused_or_read_as_protobuf_does(data: st.DataObject) -> None:
    messages, whole = InferMessages(), bytearray(plain(id="1").SerializeToString())
    messages.decode(plain().SerializeToString())
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] = data.draw(st.integers(0, 255))
    sent = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        found = messages.decode(sent)
    except InvalidRequest:
        return
    wanted = REQUEST.FromString(sent)
    assert [bytes(each) for each in found.raw] == list(wanted.raw_input_contents)
    wanted.ClearField("raw_input_contents")
    assert found.request == wanted


@pytest.mark.parametrize("shape", [(1, 3), (2, 3), (1, 1000), (1, 0)])
def test_an_answer_is_what_protobuf_writes(shape: tuple[int, ...]) -> None:
    form = InferMessages().decode(with_output(plain(id="9")).SerializeToString()).form
    assert form is not None
    for number in range(2):
        scores = np.full(shape, number, np.float32)
        kind = message_class("inference.ModelInferResponse")
        wanted = kind(model_name="flowers", model_version="7", id="9")
        wanted.outputs.add(name="best", datatype="FP32", shape=shape)
        wanted.raw_output_contents.append(scores.tobytes())
        assert form.answer(Served, scores) == wanted.SerializeToString()  # type: ignore[arg-type]


def test_a_message_of_nothing_but_fields_is_refused_soon() -> None:
    data = b"\x1a\x00" * 20_000_000  # of empty ids, which all of protobuf's readers take
    start = time.thread_time()
    with pytest.raises(InvalidRequest, match="more than 32,768 fields"):
        InferMessages().decode(data)
    assert time.thread_time() - start < 1  # to look at each of them would take 3 s


def test_many_forms_are_not_kept() -> None:
    messages = InferMessages()
    for number in range(1000):
        request = plain(model_version=str(number)).SerializeToString()
        assert messages.decode(request).request.model_version == str(number)
    assert len(messages._forms) <= 64


def test_a_load_report_is_a_message_of_orca() -> None:
    load = LoadReport(
        rif=3,
        slots=2,
        state=WorkerState.READY,
        boot_id=2**52,
        seq=9,
        expected_s=0.25,
        alone_s=0.125,
        queued_cost=1.5,
    )
    reports = OrcaReports(lambda: load, lambda: 5)
    found = message_class("xds.data.orca.v3.OrcaLoadReport").FromString(reports.report())
    assert found.application_utilization == 1.5
    assert found.rps_fractional == 0
    assert dict(found.named_metrics) == {
        "rif": 3,
        "slots": 2,
        "state": 1,
        "boot_id": 2**52,
        "seq": 9,
        "expected_s": 0.25,
        "alone_s": 0.125,
        "queued_cost": 1.5,
    }


def test_numbers_of_variable_length() -> None:
    assert [varint(each) for each in (0, 127, 128, 300)] == [b"\0", b"\x7f", b"\x80\1", b"\xac\2"]
