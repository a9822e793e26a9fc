"""Requests that once held a worker's event loop for seconds, and their kin."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from typing import Final

from fingerpost.client.frames import HEARTBEAT, STREAM_TYPE, StreamImage, frame_head
from tests.support.colours import encoded

__all__ = ["REQUESTS", "Long"]

# A path, headers and a body.
Long = tuple[str, dict[str, str], bytes]

V2: Final = "/v2/models/colours/infer"
PREDICT: Final = "/v1/models/colours:predict"
CLASSIFY: Final = "/v1/classify/colours"
FORM: Final = {"Content-Type": "multipart/form-data; boundary=B"}
CHUNKED: Final = {"Transfer-Encoding": "chunked"}
PART: Final = b'--B\r\nContent-Disposition: form-data; name="data"; filename="a"\r\n\r\n'


def tensor(shape: bytes, data: bytes, datatype: bytes = b"FP32") -> bytes:
    return b'{"inputs":[{"name":"x","datatype":"%b","shape":%b,"data":%b}]}' % (
        datatype,
        shape,
        data,
    )


def listed(item: bytes, count: int) -> bytes:
    return b"[" + (item + b",") * (count - 1) + item + b"]"


def binary(shape: list[int], datatype: str, data: bytes) -> Long:
    parameters = {"binary_data_size": len(data)}
    entry = {"name": "x", "datatype": datatype, "shape": shape, "parameters": parameters}
    head = json.dumps({"inputs": [entry]}).encode()
    return V2, {"Inference-Header-Content-Length": str(len(head))}, head + data


def chunks(data: bytes, size: int) -> bytes:
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n"


def frames(count: int, body: bytes = b"") -> bytes:
    return (frame_head(StreamImage(key="a"), len(body)) + body) * count


IMAGE: Final = encoded("red")
# Of the size of a request that is legal by default.
PIXELS: Final = listed(listed(b"[0.25,0.5,0.125]", 224), 224)
NUMBERS: Final = listed(b"0.125", 4_000_000)

REQUESTS: Final[dict[str, Callable[[], Long]]] = {
    "v2: 1,200,000 axes": lambda: (V2, {}, tensor(listed(b"1", 1_200_000), b"[1]")),
    "v2: 12,000,000 axes": lambda: (V2, {}, tensor(listed(b"1", 12_000_000), b"[1]")),
    "v2: an axis of 60,000 digits": lambda: (V2, {}, tensor(b"[%b]" % (b"9" * 60_000), b"[1]")),
    "v2: flat numbers": lambda: (V2, {}, tensor(b"[4000000,1,1]", NUMBERS)),
    "v2: nested numbers": lambda: (V2, {}, tensor(b"[24,224,224,3]", listed(PIXELS, 24))),
    "v2: deep": lambda: (V2, {}, tensor(b"[1]", b"[" * 6_000_000 + b"]" * 6_000_000)),
    "v2: empty lists": lambda: (V2, {}, tensor(b"[1]", listed(b"[]", 6_000_000))),
    "v2: objects": lambda: (V2, {}, tensor(b"[1]", listed(b"{}", 6_000_000))),
    "v2: 60,000 short lists": lambda: (V2, {}, tensor(b"[1]", listed(b"[]", 20_000))),
    "v2: base64": lambda: (
        V2,
        {},
        tensor(b"[1]", b'["%b"]' % base64.b64encode(bytes(18_000_000)), b"BYTES"),
    ),
    "v2: 5,000,000 empty images": lambda: binary([5_000_000], "BYTES", bytes(20_000_000)),
    "v2: 5,000,000 images of a pixel": lambda: binary(
        [5_000_000, 1, 1, 3], "UINT8", bytes(15_000_000)
    ),
    "v2: 64 MB of FP16": lambda: binary([1, 2000, 4000, 3], "FP16", bytes(48_000_000)),
    "v2: a name of 20 MB": lambda: (
        V2,
        {},
        tensor(b"[1]", b"[1]").replace(b"x", b"\\n" * 9_000_000),
    ),
    "v2: spaces": lambda: (V2, {}, b" " * 40_000_000 + tensor(b"[1]", b"[1]")),
    "v2: keys twice": lambda: (V2, {}, b"{" + b'"inputs":[],' * 2_000_000 + b'"id":""}'),
    "v2: not UTF-8": lambda: (V2, {}, b'{"id":"' + b"\xff" * 30_000_000 + b'"}'),
    "v2: numbers of 400 digits": lambda: (
        V2,
        {},
        tensor(b"[1]", listed(b"0." + b"1" * 400, 60_000)),
    ),
    "v2: a number of 20,000,000 digits": lambda: (
        V2,
        {},
        tensor(b"[1]", b"[" + b"1" * 20_000_000 + b"]"),
    ),
    "TFS: nested numbers": lambda: (PREDICT, {}, b'{"instances":%b}' % listed(PIXELS, 24)),
    "TFS: named rows": lambda: (
        PREDICT,
        {},
        b'{"instances":%b}' % listed(b'{"x":%b}' % PIXELS, 24),
    ),
    "TFS: one row": lambda: (
        PREDICT,
        {},
        b'{"instances":[%b]}' % listed(listed(b"[1,1,1]", 2000), 1500),
    ),
    "TFS: numbers": lambda: (PREDICT, {}, b'{"instances":%b}' % NUMBERS),
    "TFS: empty objects": lambda: (PREDICT, {}, b'{"instances":%b}' % listed(b"{}", 6_000_000)),
    "TFS: escapes": lambda: (PREDICT, {}, b'{"instances":["' + b"\\u00e9" * 5_000_000 + b'"]}'),
    "TFS: base64": lambda: (
        PREDICT,
        {},
        b'{"instances":[{"b64":"%b"}]}' % base64.b64encode(bytes(18_000_000)),
    ),
    "TFS: many base64": lambda: (
        PREDICT,
        {},
        b'{"instances":%b}' % listed(b'{"b64":"%b"}' % base64.b64encode(IMAGE * 90), 500),
    ),
    "multipart: 200,000 parts": lambda: (
        CLASSIFY,
        FORM,
        (PART + b"x\r\n") * 200_000 + b"--B--\r\n",
    ),
    "multipart: 200,000 fields": lambda: (
        CLASSIFY,
        FORM,
        b"--B\r\n\r\n\r\n" * 200_000 + b"--B--\r\n",
    ),
    "multipart: newlines first": lambda: (CLASSIFY, FORM, b"\r\n" * 12_000_000),
    "multipart: newlines first, chunked": lambda: (
        CLASSIFY,
        FORM | CHUNKED,
        chunks(b"\n" * 12_000_000, 4_000),
    ),
    "multipart: almost the boundary": lambda: (CLASSIFY, FORM, PART + b"\r\n--" * 6_000_000),
    "multipart: a head without end": lambda: (CLASSIFY, FORM, b"--B\r\n" + b"a: b\r\n" * 4_000_000),
    "multipart: a long name": lambda: (
        CLASSIFY,
        FORM,
        PART.replace(b'"a"', b'"' + b'\\"' * 3_500 + b'"') + b"x\r\n--B--\r\n",
    ),
    "multipart: 512 images": lambda: (
        CLASSIFY + "?top=0",
        FORM,
        (PART + IMAGE + b"\r\n") * 512 + b"--B--\r\n",
    ),
    "multipart: type with 2,000 parameters": lambda: (
        CLASSIFY,
        {"Content-Type": "multipart/form-data; " + "a=b; " * 1_600},
        b"x",
    ),
    "raw: 20 MB": lambda: (CLASSIFY, {}, IMAGE + bytes(19_000_000)),
    "raw: chunks of a byte": lambda: (CLASSIFY, CHUNKED, chunks(bytes(200_000), 1)),
    "raw: a path of 10 MB": lambda: ("/" + "x" * 10_000_000, {}, IMAGE),
    "raw: chunk extensions": lambda: (CLASSIFY, CHUNKED, b"1;" + b"a=b;" * 3_000_000),
    "raw: trailers": lambda: (CLASSIFY, CHUNKED, b"0\r\n" + b"a: b\r\n" * 1_000_000),
    "raw: newlines": lambda: (CLASSIFY + " HTTP/1.1\r\n" + "\r\n" * 2_000_000, {}, b""),
    "raw: gzip": lambda: (CLASSIFY, {"Content-Encoding": "gzip"}, bytes(1_000)),
    "raw: 4,000 query parameters": lambda: (CLASSIFY + "?" + "a&" * 4_000, {}, IMAGE),
    "raw: 100 headers of 8 KB": lambda: (
        CLASSIFY,
        {f"X-{number}": "x" * 8_000 for number in range(100)},
        IMAGE,
    ),
    "raw: 100,000 headers": lambda: (
        CLASSIFY,
        {f"X-{number}": "x" for number in range(100_000)},
        IMAGE,
    ),
    "stream: empty images": lambda: (
        "/v1/stream/colours",
        {"Content-Type": STREAM_TYPE},
        frames(30_000),
    ),
    "stream: heartbeats": lambda: (
        "/v1/stream/colours",
        {"Content-Type": STREAM_TYPE},
        HEARTBEAT * 3_000_000,
    ),
    "stream: bytes": lambda: (
        "/v1/stream/colours",
        {"Content-Type": STREAM_TYPE},
        b"".join(struct.pack(">II", 1, 0) + b"{" for _ in range(30_000)),
    ),
    "stream: large": lambda: (
        "/v1/stream/colours",
        {"Content-Type": STREAM_TYPE},
        frames(3, IMAGE + bytes(15_000_000)),
    ),
    "alias: large": lambda: ("/v2/repository/index", {}, b"[" * 20_000_000),
}
