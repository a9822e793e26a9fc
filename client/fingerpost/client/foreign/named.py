"""Named inputs of one item as the request of a foreign worker, in each protocol.

They come in the binary form of the Open Inference Protocol: see `client.tasks.inputs`.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import msgspec

from fingerpost.client.foreign.requests import ForeignBody, form_body
from fingerpost.client.tasks.arrays import array_of, rows_of
from fingerpost.client.tasks.wire import HEADER_LENGTH

if TYPE_CHECKING:
    from fingerpost.client.foreign.metadata import ForeignModel

__all__ = ["named_body"]


def named_body(model: ForeignModel, body: bytes, head_bytes: int) -> ForeignBody:
    """The request that sends named inputs to a foreign worker.

    Args:
        model: at the worker; with `v2` and `encoding=binary` the inputs are sent as they are.
        body: JSON and arrays.
        head_bytes: the length of the JSON.
    """
    binary = model.protocol == "v2" and model.binary and not model.output
    if binary:
        fields = f"Content-Type: application/octet-stream\r\n{HEADER_LENGTH}: {head_bytes}\r\n"
        return ForeignBody(body, fields)
    heads = msgspec.json.decode(body[:head_bytes])["inputs"]
    values: dict[str, Any] = {}
    at = head_bytes
    for head in heads:
        size = head["parameters"]["binary_data_size"]
        blob = body[at : at + size]
        at += size
        if head["datatype"] == "BYTES":
            values[head["name"]] = blob[4:]  # one image, after its length
        else:
            array = array_of(head["datatype"], tuple(head["shape"]), blob)
            values[head["name"]] = rows_of(array)
    match model.protocol:
        case "v2":
            return _json({"inputs": [_entry(head, values) for head in heads], **_wanted(model)})
        case "tfserving":
            row = {
                name: _b64(each) if isinstance(each, bytes) else each[0]
                for name, each in values.items()
            }
            signature = {"signature_name": model.signature} if model.signature else {}
            return _json({**signature, "instances": [row]})
        case _:
            return form_body(
                {
                    name: each if isinstance(each, bytes) else msgspec.json.encode(each[0]).decode()
                    for name, each in values.items()
                }
            )


def _entry(head: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    value = values[head["name"]]
    entry = {key: head[key] for key in ("name", "datatype", "shape")}
    if isinstance(value, bytes):
        text = base64.b64encode(value).decode()
        return {**entry, "parameters": {"content_type": "base64"}, "data": [text]}
    while value and isinstance(value[0], list):
        value = [item for each in value for item in each]
    return {**entry, "data": value}


def _wanted(model: ForeignModel) -> dict[str, Any]:
    return {"outputs": [{"name": model.output}]} if model.output else {}


def _b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def _json(value: object) -> ForeignBody:
    return ForeignBody(msgspec.json.encode(value), "Content-Type: application/json\r\n")
