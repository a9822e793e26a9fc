"""Hostile requests, long in ways of their own: axes, parts, depth, empty images, newlines."""

from __future__ import annotations

import json
import random

from fingerpost.client.frames import HEARTBEAT, STREAM_TYPE, StreamImage, frame_head

__all__ = ["long"]

_MOST_BYTES = 380_000

Request = tuple[str, str, dict[str, str], bytes]


def long(rng: random.Random) -> Request:
    """One of them, at most as long as the server under test takes."""
    return rng.choice((_axes, _nested, _nested, _parts, _newlines, _empty_images, _frames))(rng)


def _repeated(rng: random.Random, item: bytes, most: int = _MOST_BYTES) -> bytes:
    """An item, with commas between, up to so many bytes."""
    count = max(1, rng.choice((2, 300, most)) // (len(item) + 1))
    return b",".join([item] * count)


def _axes(rng: random.Random) -> Request:
    shape = _repeated(rng, rng.choice((b"1", b"0", b"99999999999", b"1e3", b"[]", b'"1"')))
    entry = b'{"name":"x","datatype":"FP32","shape":[%b],"data":[1]}' % shape
    return "POST", "/v2/models/colours/infer", {}, b'{"inputs":[%b]}' % entry


def _nested(rng: random.Random) -> Request:
    number = rng.choice(
        (b"1", b"0.5", b"-1e3", b"1" * 400, b"", b"null", b'"a"', b"{}", b"[1,1,1]")
    )
    value = _repeated(rng, number, rng.choice((100, 3_000, _MOST_BYTES)))
    for _ in range(rng.choice((1, 2, 3, 4, 5, 9, 100))):
        value = b"[%b]" % value
        value = _repeated(rng, value) if len(value) < 100_000 and rng.random() < 0.5 else value
    if rng.random() < 0.1:
        value = b"[" * rng.choice((3_000, 180_000)) + value
    if rng.random() < 0.2:
        at = rng.randrange(len(value))
        value = value[:at] + rng.choice((b"]", b"[", b",", b"1", b" ", b"\xff", b'"')) + value[at:]
    if rng.random() < 0.5:
        key = rng.choice((b"instances", b"inputs", b"examples"))
        return "POST", "/v1/models/colours:predict", {}, b'{"%b":%b}' % (key, value[:_MOST_BYTES])
    shape = rng.choice((b"[1,16,16,3]", b"[16,16,3]", b"[768]", b"[9,9,9,9]"))
    entry = b'{"name":"x","datatype":"%b","shape":%b,"data":%b}'
    kind = rng.choice((b"FP32", b"UINT8", b"BYTES", b"INT64"))
    text = b'{"inputs":[' + entry % (kind, shape, value[:_MOST_BYTES]) + b"]}"
    return "POST", "/v2/models/colours/infer", {}, text


def _parts(rng: random.Random) -> Request:
    head = rng.choice(
        (
            b"",
            b'Content-Disposition: form-data; name="data"',
            b'Content-Disposition: form-data; name="data"; filename="a"',
            b"a: " + b"b" * rng.choice((10, 9_000)),
            b'Content-Disposition: form-data; filename="' + b'\\"' * 3_000,
        )
    )
    part = b"--B\r\n" + head + b"\r\n\r\n" + rng.choice((b"", b"x", b"\r\n--", b"\r\n--B"))
    body = (part + b"\r\n") * max(1, rng.choice((1, 500, _MOST_BYTES // len(part))) - 1)
    body = body[:_MOST_BYTES] + rng.choice((b"--B--\r\n", b"--B--", b"--B", b""))
    return "POST", "/v1/classify/colours", {"Content-Type": "multipart/form-data; boundary=B"}, body


def _newlines(rng: random.Random) -> Request:
    headers = {"Content-Type": rng.choice(("multipart/form-data; boundary=B", "application/json"))}
    body = rng.choice((b"\n", b"\r\n", b" ", b"\r", b"\r\n--")) * rng.choice((1, 5_000, 60_000))
    path = rng.choice(("/v1/classify/colours", "/v2/models/colours/infer", "/"))
    return "POST", path, headers, body


def _empty_images(rng: random.Random) -> Request:
    count = rng.choice((1, 8, 513, 90_000))
    shape = rng.choice(([count], [count, 1], [1], [2**40], [0], [count] * 40))
    parameters = {"binary_data_size": 4 * count}
    entry = {"name": "x", "datatype": "BYTES", "shape": shape, "parameters": parameters}
    head = json.dumps({"inputs": [entry]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return "POST", "/v2/models/colours/infer", headers, head + bytes(4 * count)


def _frames(rng: random.Random) -> Request:
    frame = rng.choice((HEARTBEAT, frame_head(StreamImage()), frame_head(StreamImage(key="k"), 1)))
    # Each image is answered, and costs as much as a request.
    body = frame * rng.choice((1, 1_000, 4_000 if frame != HEARTBEAT else 47_000))
    return "POST", "/v1/stream/colours", {"Content-Type": STREAM_TYPE}, body
