"""The request for one image, in each protocol."""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

import msgspec

from fingerpost.client.foreign.pixels import channels_of, flat_bytes, flat_text, nested_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fingerpost.client.foreign.metadata import ForeignModel, TensorSpec

__all__ = ["ForeignBody", "foreign_body", "form_body"]

# Random, so that no image contains it.
_BOUNDARY: Final = f"fingerpost-{secrets.token_hex(16)}"
_DATATYPES: Final = {"float32": "FP32", "uint8": "UINT8"}
# Many servers choose the decoder by the file's name.
_SUFFIXES: Final = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG": "png",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"RIFF": "webp",
    b"II*\x00": "tiff",
    b"MM\x00*": "tiff",
}


class ForeignBody(NamedTuple):
    """The body of a request, and the header fields that belong to it."""

    data: bytes
    headers: str


def foreign_body(model: ForeignModel, image: bytes) -> ForeignBody:
    """The request that asks a foreign worker to classify an encoded image.

    It decodes the image where the model wants a tensor, which takes some milliseconds.

    Raises:
        ImageError: the image cannot be decoded.
    """
    match model.protocol:
        case "v2":
            return _v2(model, image)
        case "tfserving":
            return _tfserving(model, image)
        case "form":
            return form_body({model.field: image})
        case _:
            return ForeignBody(image, "Content-Type: application/octet-stream\r\n")


def form_body(fields: Mapping[str, bytes | str]) -> ForeignBody:
    """A multipart body of images and texts."""
    parts: list[bytes] = []
    for name, value in fields.items():
        if isinstance(value, bytes):
            parts += _image_part(name, value)
        else:
            quoted = quote(name, safe=" /:")
            head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{quoted}"\r\n\r\n'
            parts += [head.encode(), value.encode(), b"\r\n"]
    parts.append(f"--{_BOUNDARY}--\r\n".encode())
    kind = f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\n"
    return ForeignBody(b"".join(parts), kind)


def _image_part(field: str, image: bytes) -> list[bytes]:
    suffix = next((each for magic, each in _SUFFIXES.items() if image.startswith(magic)), "bin")
    kind = {"jpg": "jpeg", "bin": "*"}.get(suffix, suffix)
    media = "application/octet-stream" if kind == "*" else f"image/{kind}"
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{quote(field, safe=" /:")}"; '
        f'filename="image.{suffix}"\r\nContent-Type: {media}\r\n\r\n'
    )
    return [head.encode(), image, b"\r\n"]


def _json(text: str) -> ForeignBody:
    return ForeignBody(text.encode(), "Content-Type: application/json\r\n")


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _tfserving(model: ForeignModel, image: bytes) -> ForeignBody:
    if model.tensor is None:
        row = f'{{"b64":"{base64.b64encode(image).decode()}"}}'
    else:
        row = nested_text(channels_of(image, model.tensor), model.tensor)
    if model.input:
        row = f"{{{_text(model.input)}:{row}}}"
    signature = f'"signature_name":{_text(model.signature)},' if model.signature else ""
    return _json(f'{{{signature}"instances":[{row}]}}')


def _v2(model: ForeignModel, image: bytes) -> ForeignBody:
    spec = model.tensor
    outputs = f',"outputs":[{{"name":{_text(model.output)}}}]' if model.output else ""
    if model.binary:
        if spec is None:
            tail = len(image).to_bytes(4, "little") + image
        else:
            tail = flat_bytes(channels_of(image, spec), spec)
        described = _described(model.input, spec)
        size = f'"parameters":{{"binary_data_size":{len(tail)}}}'
        head = f'{{"inputs":[{{{described},{size}}}]{outputs}}}'
        fields = (
            "Content-Type: application/octet-stream\r\n"
            f"Inference-Header-Content-Length: {len(head.encode())}\r\n"
        )
        return ForeignBody(head.encode() + tail, fields)
    if spec is None:
        data, more = (
            f'"{base64.b64encode(image).decode()}"',
            ',"parameters":{"content_type":"base64"}',
        )
    else:
        data, more = flat_text(channels_of(image, spec), spec), ""
    described = _described(model.input, spec)
    return _json(f'{{"inputs":[{{{described}{more},"data":[{data}]}}]{outputs}}}')


def _described(name: str, spec: TensorSpec | None) -> str:
    datatype = "BYTES" if spec is None else _DATATYPES[spec.dtype]
    shape = [1] if spec is None else spec.shape
    return f'"name":{_text(name)},"datatype":"{datatype}","shape":{_text(shape)}'
