"""Requests and answers of `ModelInfer` with their tensors as bytes, which are not copied.

A message of protobuf copies each of its `bytes` when it is decoded, and again whenever they are
read; a photo passes through memory three times so. Here they stay where they arrived, and protobuf
reads what stands before them.

Nearly all requests of a client are the same but for their images. The form of the last few is
kept: what stands before the image, and how it was read; so is what stands before the scores of an
answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fingerpost.worker.grpc.schema.decode import decode_without
from fingerpost.worker.grpc.schema.messages import message_class
from fingerpost.worker.protocols.v2.binary import MAX_NAME
from fingerpost.worker.tasks.answer import tensor_entry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fingerpost.registry import ModelReference
    from fingerpost.worker.repository.manager import ServedVersion

__all__ = ["INFER_REQUEST", "InferMessage", "InferMessages", "PlainForm", "varint"]

INFER_REQUEST: Final = "inference.ModelInferRequest"
_RESPONSE: Final = "inference.ModelInferResponse"
_RAW_INPUTS: Final = 7
_RAW_INPUT_TAG: Final = _RAW_INPUTS << 3 | 2
_RAW_OUTPUT_TAG: Final = b"\x32"  # raw_output_contents = 6
_LENGTH_DELIMITED: Final = 2
# A form is as long as the names in it.
_MAX_FORM_BYTES: Final = 1024
_MAX_FORMS: Final = 64
_MAX_ANSWERS: Final = 16


@dataclass(slots=True, kw_only=True)
class PlainForm:
    """A request for one image or several as encoded bytes, with no parameters.

    Attributes:
        request: what stands before the bytes; never changed.
        name: of the input.
        shape: its shape.
        output: the name of the scores.
        reference: the model that it is for, once that is known.
    """

    request: Any
    name: str
    shape: list[int]
    output: str
    reference: ModelReference | None = None
    _answers: dict[object, bytes] = field(default_factory=dict)

    def answer(self, served: ServedVersion, scores: NDArray[Any]) -> bytes:
        """The bytes of a `ModelInferResponse` with these scores, as protobuf writes them."""
        key = served.model, served.version, scores.shape, scores.dtype
        begin = self._answers.get(key)
        if begin is None:
            entry, blob = tensor_entry(self.output, scores)
            response = message_class(_RESPONSE)(
                model_name=served.model, model_version=served.version, id=self.request.id
            )
            response.outputs.add(**entry)
            begin = response.SerializeToString() + _RAW_OUTPUT_TAG + varint(len(blob))
            if len(self._answers) >= _MAX_ANSWERS:
                self._answers.clear()
            self._answers[key] = begin
        return begin + scores.tobytes()


class InferMessage:
    """A `ModelInferRequest` as it arrived.

    Attributes:
        request: the message without its `raw_input_contents`.
        raw: those, as views of what arrived.
        form: that of a plain request, else None.
    """

    __slots__ = ("form", "raw", "request")

    def __init__(self, request: Any, raw: list[memoryview], form: PlainForm | None) -> None:
        self.request = request
        self.raw = raw
        self.form = form


class InferMessages:
    """Decodes requests; those of a form that it knows without protobuf."""

    def __init__(self) -> None:
        self._forms: dict[bytes, PlainForm] = {}

    def decode(self, data: bytes) -> InferMessage:
        """The message. Raises `InvalidRequest` as `decode_message` does."""
        at = _only_raw(data)
        begin = data[:at]
        form = self._forms.get(begin)
        if form is None:
            request, raw = decode_without(INFER_REQUEST, data, _RAW_INPUTS)
            form = _plain_form(request, raw) if begin else None
            if form is None:
                return InferMessage(request, raw, None)
            if not request.id:  # else the next one has another
                if len(self._forms) >= _MAX_FORMS:
                    self._forms.clear()
                self._forms[begin] = form
            return InferMessage(request, raw, form)
        return InferMessage(form.request, [memoryview(data)[_skip(data, at + 1) :]], form)


def _only_raw(data: bytes) -> int:
    """Where the only `raw_input_contents` begins, at the end of a message; 0 for another one.

    At most `_MAX_FORM_BYTES` are looked at: how many fields a message may have is told later.
    """
    at, end = 0, len(data)
    try:
        while at < min(end, _MAX_FORM_BYTES):
            tag = data[at]
            if tag & 7 != _LENGTH_DELIMITED or tag > _RAW_INPUT_TAG:
                return 0
            begin, length, shift = at, 0, 0
            while True:
                at += 1
                byte = data[at]
                length |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
                shift += 7
                if shift > 28:
                    return 0
            at += 1 + length
            if tag == _RAW_INPUT_TAG:
                return begin if at == end else 0
    except IndexError:  # cut short, which is told by who decodes all of it
        pass
    return 0


def _skip(data: bytes, at: int) -> int:
    """The place behind a number of variable length."""
    while data[at] >= 0x80:
        at += 1
    return at + 1


def _plain_form(request: Any, raw: list[memoryview]) -> PlainForm | None:
    """The form of a request, where it is a plain one."""
    inputs, outputs = request.inputs, request.outputs
    if len(inputs) != 1 or len(raw) != 1 or len(outputs) > 1 or request.parameters:
        return None
    wanted = inputs[0]
    if wanted.datatype != "BYTES" or wanted.parameters or wanted.HasField("contents"):
        return None
    if any(each.parameters for each in outputs) or len(request.id) > MAX_NAME:
        return None
    if len(wanted.shape) > 2 or any(side < 0 for side in wanted.shape):
        return None
    output = outputs[0].name[:MAX_NAME] if outputs else "scores"
    return PlainForm(request=request, name=wanted.name, shape=list(wanted.shape), output=output)


def varint(number: int) -> bytes:
    """A number of variable length."""
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
