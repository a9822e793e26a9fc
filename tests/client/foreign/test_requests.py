from __future__ import annotations

import base64
import email
import io
import json

import pytest
from PIL import Image

from fingerpost.client.foreign.metadata import ForeignModel
from fingerpost.client.foreign.requests import foreign_body
from fingerpost.registry.foreign import foreign_instance


def png():
    out = io.BytesIO()
    Image.new("RGB", (3, 2), (1, 2, 3)).save(out, "PNG")
    return out.getvalue()


IMAGE = png()


def body(image: bytes = IMAGE, **meta: str):
    instance = foreign_instance("flowers", host="h", port=1, meta=meta)
    return foreign_body(ForeignModel.of(instance), image)


@pytest.mark.parametrize(
    ("image", "name", "kind"),
    [
        (IMAGE, "image.png", "image/png"),
        (b"\xff\xd8\xff rest", "image.jpg", "image/jpeg"),
        (b"\r\n--x\r\n", "image.bin", "application/octet-stream"),
    ],
)
def test_a_form_has_one_part_with_the_image_unchanged(image, name, kind):
    made = body(image, field="upload")
    message = email.message_from_bytes(made.headers.encode() + b"\r\n" + made.data)
    _, part = message.walk()
    assert part.get_param("name", header="Content-Disposition") == "upload"
    assert (part.get_filename(), part.get_content_type()) == (name, kind)
    assert part.get_payload(decode=True) == image


def test_torchserve_gets_the_image_as_it_is():
    assert body(protocol="torchserve").data == IMAGE


def test_tensorflow_serving_gets_base64_or_nested_numbers():
    text = base64.b64encode(IMAGE).decode()
    assert json.loads(body(protocol="tfserving").data) == {"instances": [{"b64": text}]}
    named = json.loads(body(protocol="tfserving", input="image", signature="s").data)
    assert named == {"signature_name": "s", "instances": [{"image": {"b64": text}}]}
    tensor = json.loads(body(protocol="tfserving", size="1x2", dtype="uint8").data)
    assert tensor == {"instances": [[[[1, 2, 3], [1, 2, 3]]]]}


def test_v2_in_json():
    made = json.loads(body(protocol="v2", size="1x2", layout="NCHW", output="probs").data)
    assert made == {
        "inputs": [
            {
                "name": "image",
                "datatype": "FP32",
                "shape": [1, 3, 1, 2],
                "data": [1, 1, 2, 2, 3, 3],
            }
        ],
        "outputs": [{"name": "probs"}],
    }
    (sent,) = json.loads(body(protocol="v2", input="raw").data)["inputs"]
    assert (sent["name"], sent["datatype"], sent["shape"]) == ("raw", "BYTES", [1])
    assert base64.b64decode(sent["data"][0]) == IMAGE


def test_v2_in_binary():
    for meta, tail in (
        ({"size": "1x1", "dtype": "uint8"}, b"\1\2\3"),
        ({}, len(IMAGE).to_bytes(4, "little") + IMAGE),
    ):
        made = body(IMAGE, protocol="v2", encoding="binary", **meta)
        size = int(made.headers.partition("Content-Length: ")[2])
        (sent,) = json.loads(made.data[:size])["inputs"]
        assert made.data[size:] == tail
        assert sent["parameters"] == {"binary_data_size": len(tail)}
