"""Hostile requests at random, each from a seed, and what every one of them must be answered with.

``python -m tests.worker.protocols.fuzz --seconds 300`` runs them against a worker service in a
process of its own, watches that process's memory, and prints the seed of what went wrong.
`test_fuzz.py` runs some of them with every test run.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import random
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable

import numpy as np
import psutil

from fingerpost.client.frames import HEARTBEAT, STREAM_TYPE, StreamImage, frame_head
from tests.support.colours import encoded
from tests.support.rig import float_pixels
from tests.worker.protocols.fuzz_grpc import GrpcRequests
from tests.worker.protocols.fuzz_long import long
from tests.worker.protocols.fuzz_parts import HANG_S, Wrong, image, mutated, seeds
from tests.worker.protocols.fuzz_same_host import cleared, connected, frame, shared_memory
from tests.worker.protocols.fuzz_server import Server
from tests.worker.protocols.fuzz_zmq import ZmqRequests

# Of one request, all threads together; and of the event loop at a time, at p99.
MOST_CPU_S = 2.0
MOST_PAUSE_S = 0.05


def value(rng: random.Random, depth: int = 0) -> object:
    """Any JSON, deep and odd."""
    kind = rng.randrange(14 if depth < 4 else 9)
    if kind == 0:
        return rng.choice((0, -1, 1, 255, 2**31, 2**63, -(2**64), 10**40))
    if kind == 1:
        return rng.choice((0.5, -0.0, 1e300, -1e38, 3.4e38, 5e-324))
    if kind == 2:
        return rng.choice((True, False, None))
    if kind == 3:
        return rng.choice(("", "b64", "\x00", "é" * 40, "serving_default", "FP32", "aGk=", "*"))
    if kind == 4:
        return {"b64": base64.b64encode(image(rng)).decode()[: rng.choice((None, None, 11))]}
    if kind == 5:
        return [[[rng.choice((0.0, 1.0, 3e38))] * 3] * 16] * rng.choice((16, 15))
    if kind == 6:
        pixels: object = 1
        for _ in range(rng.choice((3, 40, 70, 3000))):
            pixels = [pixels]
        return pixels if depth == 0 else "deep"
    if kind < 11:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    keys = ("b64", "instances", "image", "data", "x", "")
    return {rng.choice(keys): value(rng, depth + 1) for _ in range(rng.randrange(4))}


def dumped(rng: random.Random, data: object) -> bytes:
    """JSON, or something that was."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        text = json.dumps(data).encode()
    finally:
        sys.setrecursionlimit(limit)
    return mutated(rng, text) if rng.random() < 0.2 else text


def rows(rng: random.Random) -> object:
    good = {"b64": base64.b64encode(image(rng)).decode()}
    one = rng.choice((good, {"image": good}, float_pixels("red").tolist(), value(rng)))
    return rng.choice(([one], [one, good], {"x": [one]}, one, value(rng)))


Request = tuple[str, str, dict[str, str], bytes]


def raw_image(rng: random.Random) -> Request:
    path = rng.choice(("/", "/v1/classify/colours", "/v1/classify/colours@7", "/v1/classify/x"))
    return "POST", path + rng.choice(("", "?top=1", "?top=x", "?top=99999")), {}, image(rng)


def multipart(rng: random.Random) -> Request:
    parts = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="data"; filename="%d.png"\r\n' % number
        + rng.choice(
            (
                b"",
                b"Content-Type: image/png\r\n",
                b"Content-Transfer-Encoding: base64\r\n",
                b"Content-Type: multipart/mixed; boundary=C\r\n",
                b"Content-Encoding: gzip\r\n",
                b"Content-Length: -5\r\n",
            )
        )
        + b"\r\n"
        + image(rng)
        + b"\r\n"
        for number in range(rng.randrange(4))
    )
    body = parts + rng.choice((b"--B--\r\n", b"", b"--B"))
    kinds = (
        "multipart/form-data; boundary=B",
        "multipart/form-data",
        "multipart/mixed; boundary=B",
        'multipart/form-data; boundary="' + "B" * 80 + '"',
    )
    path = rng.choice(("/", "/v1/classify/colours"))
    return "POST", path, {"Content-Type": rng.choice(kinds[:1] * 5 + kinds)}, mutated(rng, body)


def tensorflow_serving(rng: random.Random) -> Request:
    asked = rng.choice(
        (
            {"instances": rows(rng)},
            {"inputs": rows(rng)},
            {"examples": rows(rng)},
            {"signature_name": value(rng), "instances": rows(rng)},
            value(rng),
        )
    )
    chosen = rng.choice(("", "", "", "/versions/7", "/versions/x", "/labels/stable"))
    verb = rng.choice(("predict", "predict", "predict", "classify", "regress"))
    return "POST", f"/v1/models/colours{chosen}:{verb}", {}, dumped(rng, asked)


def v2(rng: random.Random) -> Request:
    sample = seeds()[0]
    pixels = float_pixels("red")
    datatype, shape, binary = rng.choice(
        (
            ("FP32", [1, 16, 16, 3], pixels.tobytes()),
            ("UINT8", [16, 16, 3], pixels.astype(np.uint8).tobytes()),
            ("BYTES", [1], len(sample).to_bytes(4, "little") + sample),
            ("BYTES", [1, 1], b""),
            ("BYTES", [2], rng.randbytes(rng.randrange(100))),
        )
    )
    if rng.random() < 0.2:
        datatype = rng.choice(("BYTES", "FP32", "UINT8", "FP16", "INT64", "BOOL", "fp32"))
    tensor: dict[str, object] = {"name": "x", "datatype": datatype, "shape": shape}
    if rng.random() < 0.2:
        tensor["shape"] = rng.choice(([1], [0], [], [-1], [2**40] * 3, [1.5], value(rng)))
    if rng.random() < 0.1:
        binary = mutated(rng, binary)
    if binary:
        size = rng.choice((len(binary), len(binary), len(binary), -1, 0, 2**70, "7"))
        tensor["parameters"] = {"binary_data_size": size}
    if not binary or rng.random() < 0.1:
        tensor["data"] = rng.choice((rows(rng), [base64.b64encode(image(rng)).decode()]))
    asked: dict[str, object] = {
        "id": rng.choice(("", "7", "é")),
        "inputs": rng.choice(([tensor], [tensor], [tensor], [tensor] * 2, [], value(rng))),
    }
    if rng.random() < 0.3:
        outputs = ({}, {"binary_data": True}, {"classification": 2}, {"classification": 10**9})
        asked["outputs"] = [{"name": "o", "parameters": rng.choice((*outputs, value(rng)))}]
    if rng.random() < 0.2:
        asked["parameters"] = {
            "timeout": rng.choice((1, 10**15, 10**400, -1, "x")),
            "x": value(rng),
        }
    text = dumped(rng, asked)
    headers = {}
    if binary or rng.random() < 0.1:
        length = rng.choice((len(text),) * 5 + (len(text) + 1, 0, -1, 10**30, "ten", "1 2", "٣"))
        headers["Inference-Header-Content-Length"] = str(length)
    return "POST", "/v2/models/colours/infer", headers, text + binary


def stream(rng: random.Random) -> Request:
    body = b""
    for number in range(rng.randrange(6)):
        data = image(rng)
        head = frame_head(
            StreamImage(key=str(number), deadline_ms=rng.choice((None, 1.0, -5.0, 1e12))), len(data)
        )
        body += mutated(rng, head) if rng.random() < 0.1 else head
        body += data + rng.choice((b"", HEARTBEAT))
    return "POST", "/v1/stream/colours", {"Content-Type": STREAM_TYPE}, body


def anything(rng: random.Random) -> Request:
    path = rng.choice(
        ("/load", "/health/ready", "/metrics", "/v1/models/colours", "/v1/models/colours/metadata",
         "/v2", "/v2/models/colours", "/v2/models/colours/config", "/v2/repository/index", "/v3",
         "/v1/models/%2e%2e", "/v2/models/%00/infer", "//", "/v1/classify/", "/v2/models//infer")
    )  # fmt: skip
    return rng.choice(("GET", "POST", "PUT", "HEAD", "OPTIONS")), path, {}, b""


KINDS: tuple[Callable[[random.Random], Request], ...] = (
    raw_image,
    raw_image,
    multipart,
    tensorflow_serving,
    tensorflow_serving,
    v2,
    v2,
    stream,
    anything,
    long,
    frame,
    shared_memory,
)


def written(rng: random.Random) -> tuple[str, bytes]:
    """A request as it goes out, and its kind; now and then with headers or bytes that are wrong."""
    make = rng.choice(KINDS)
    method, path, headers, body = make(rng)
    if rng.random() < 0.15:
        headers["Fingerpost-Deadline-Ms"] = rng.choice(("0", "1", "nan", "1e400", "x", "", "5000"))
    if rng.random() < 0.05:
        headers["Content-Encoding"] = rng.choice(("gzip", "deflate", "br", "identity", "x"))
    if rng.random() < 0.05:
        headers["Expect"] = rng.choice(("100-continue", "200-ok"))
    if rng.random() < 0.05:
        headers["Content-Type"] = rng.choice(("multipart/form-data", "x", "", "a/b; c=d; c=e"))
    if rng.random() < 0.1:
        headers["Transfer-Encoding"] = "chunked"
        cut = rng.randrange(len(body) + 1)
        pieces = (body[:cut], body[cut:])
        end = rng.choice((b"0\r\n\r\n", b"0\r\n\r\n", b"", b"zz\r\n"))
        body = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in pieces if each) + end
    else:
        length = str(len(body))
        if rng.random() < 0.05:
            length = rng.choice(("-1", "0", "99999999999", "x", str(len(body) + 10)))
        headers["Content-Length"] = length
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close"]
    lines += [f"{name}: {text}" for name, text in headers.items()]
    head = "\r\n".join([*lines, "", ""]).encode()
    if rng.random() < 0.02:
        head = mutated(rng, head) + b"\r\n\r\n"
    return make.__name__, head + body


def attempt(port: int, seed: int, uds: str) -> str:
    """Send the request of a seed, and judge the answer; return its kind and status.

    Now and then it goes to the Unix socket `uds`; those with frames always do.

    Raises:
        Wrong: a status 500, no answer, or one that is none.
    """
    rng = random.Random(seed)
    kind, data = written(rng)
    to_port = kind != "frame" and rng.random() < 0.9
    with connected(rng, uds, port * to_port, data, HANG_S) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        response = http.client.HTTPResponse(
            connection, method=data.split(b" ", 1)[0].decode("latin-1")
        )
        try:
            response.begin()
            body = response.read()
        except TimeoutError:
            raise Wrong(f"seed {seed}, {kind}: no answer within {HANG_S:g} s") from None
        except (ConnectionError, http.client.HTTPException):
            return f"{kind} closed"  # what was no request is answered by closing, too
        if response.status == 500:
            raise Wrong(f"seed {seed}, {kind}: {response.status} {body[:300]!r}")
        return f"{kind} {response.status}"


def check_well(port: int) -> None:
    """Nothing in flight any more, and a good image is still answered.

    Raises:
        Wrong: one of the two is not so.
    """
    url = f"http://127.0.0.1:{port}"
    end = time.monotonic() + HANG_S
    while True:
        with urllib.request.urlopen(f"{url}/load", timeout=HANG_S) as answer:  # noqa: S310
            rif = json.load(answer)["rif"]
        if not rif:
            break
        if time.monotonic() > end:
            raise Wrong(f"{rif} requests are still in flight {HANG_S:g} s after the last")
        time.sleep(0.01)
    with urllib.request.urlopen(url, encoded("blue"), timeout=HANG_S) as answer:
        if json.load(answer)[0][0] != "blue":
            raise Wrong("a blue image is not blue any more")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    options = parser.parse_args()
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - read at the end
    server = Server(log=log)
    port, process = server.port, psutil.Process(server.pid)
    calls, messages = GrpcRequests(server.grpc_port), ZmqRequests(server.zmq_port)
    began, number, wrong = time.monotonic(), 0, 0
    statuses: Counter[str] = Counter()
    # Of each tenth of the time the smallest: what never goes back is growth, a large image is not.
    sizes: list[int] = []
    pauses: list[float] = []
    smallest = largest = process.memory_info().rss
    try:
        while (elapsed := time.monotonic() - began) < options.seconds:
            spent, seed = sum(process.cpu_times()[:2]), options.seed + number
            try:
                match number % 8:
                    case 0 | 4:
                        said = calls.attempt(seed)
                    case 2 | 6:
                        said = messages.attempt(seed)
                    case _:
                        said = attempt(port, seed, server.uds)
                statuses[said] += 1
                spent = sum(process.cpu_times()[:2]) - spent
                if spent > MOST_CPU_S:
                    raise Wrong(f"seed {seed}: {spent:.1f} s of processor time")
                if number % 200 == 0:
                    check_well(port)
            except Wrong as error:
                wrong += 1
                print(error, flush=True)
            number += 1
            if number % 100 == 0:
                memory = process.memory_info().rss
                smallest, largest = min(smallest, memory), max(largest, memory)
                pauses = sorted(pauses + server.pauses())[-5_000:]
            if elapsed >= (len(sizes) + 1) * options.seconds / 10:
                print(
                    f"{elapsed:6.0f} s  {number:7,} requests  {smallest / 1e6:7.1f} to "
                    f"{largest / 1e6:.1f} MB  {process.num_fds()} descriptors",
                    flush=True,
                )
                sizes.append(smallest)
                smallest = largest = process.memory_info().rss
        sizes.append(smallest)
        check_well(port)
    finally:
        calls.close()
        messages.close()
        server.__exit__()
        cleared()
    log.seek(0)
    said = log.read()
    for status, count in sorted(statuses.items()):
        print(f"{count:8,}  {status}")
    if wrong:
        print(said[-5000:])
    growth = sizes[-1] / sizes[2] - 1
    print(f"{number:,} requests, {wrong} wrong; memory {growth:+.1%} since a third of the time")
    # The longest 5,000 of some 500 a second: the p99 is among them for 15 minutes.
    p99_s = pauses[-min(len(pauses), int(options.seconds * 5) + 1)]
    print(f"the loop was held for {pauses[-1] * 1e3:.0f} ms at most, {p99_s * 1e3:.0f} ms at p99")
    return int(wrong > 0 or growth > 0.05 or p99_s > MOST_PAUSE_S)


if __name__ == "__main__":
    sys.exit(main())
