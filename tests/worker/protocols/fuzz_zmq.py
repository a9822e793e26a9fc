"""Hostile messages of ZeroMQ at random, each from a seed, and what a client must see after them."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import time
from collections.abc import Callable
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from tests.support.rig import float_pixels
from tests.worker.protocols.fuzz_parts import HANG_S, Wrong, image, mutated

__all__ = ["ZmqRequests"]

Message = tuple[bytes, ...]

_NAMES = (*("colours",) * 12, "", "colours@7", "colours@x", "x", "\x00", "é" * 500)
_ODD = (None, -1, 0, 1, 2**53, 10**30, 0.5, "x", True, [], {}, "é" * 3000)
_OPEN: Message = (b"", b'{"type": "open", "model": "colours"}')
_END: Message = (b"", b'{"type": "end"}')
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)


def dumped(rng: random.Random, members: dict[str, Any]) -> bytes:
    """A head or an order, now and then with a member of a wrong kind or with wrong bytes."""
    if rng.random() < 0.1:
        members = {**members, rng.choice((*members, "x")): rng.choice(_ODD)}
    text = json.dumps(members).encode()
    return mutated(rng, text) if rng.random() < 0.05 else text


def order(rng: random.Random) -> Message:
    """An order, which is of use or not at this point of the stream."""
    kind = rng.choice(("open", "end", "cancel", "cancel", "begun", ""))
    return rng.choice((b"", b"0", b"k" * 300)), dumped(rng, {"type": kind, "model": "colours"})


def opening(rng: random.Random) -> Message:
    """The first message of a stream."""
    members: dict[str, Any] = {"type": "open", "model": rng.choice(_NAMES)}
    if rng.random() < 0.5:
        members["infer"] = True
        members["binary"] = rng.random() < 0.5
    for name, values in (
        ("top", (0, 1, 999_999, -1, 10**9)),
        ("class", ("interactive", "batch", "x", "")),
        ("boot_id", (1, 0, 99)),
        ("lease", ("x" * 3000, "a.b.c")),
        ("mask", ("rle", "png", "gif")),
        ("size", ("model", "x")),
    ):
        if rng.random() < 0.08:
            members[name] = rng.choice(values)
    return b"", dumped(rng, members)


def item(rng: random.Random) -> Message:
    """An image, or inputs by their names that are more or less those of the model."""
    head: dict[str, Any] = {}
    for name, values in (
        ("deadline_ms", (0, 1, 50, -5, 1e300)),
        ("waited_ms", (0, 500, 10**8)),
        ("suspect", (True,)),
        ("traceparent", ("00-x", "00-" + "a" * 32 + "-" + "b" * 16 + "-01")),
    ):
        if rng.random() < 0.1:
            head[name] = rng.choice(values)
    body = image(rng)
    if rng.random() < 0.4:
        text, body = _named(rng, body)
        head["json_bytes"] = rng.choice((len(text),) * 6 + (0, len(text) + 1, 10**9))
        body = text + (mutated(rng, body) if rng.random() < 0.1 else body)
    key = rng.choice((b"0", b"1", b"", rng.randbytes(8), b"k" * 255))
    return key, rng.choice((dumped(rng, head), dumped(rng, head), b"")), body


def _named(rng: random.Random, one: bytes) -> tuple[bytes, bytes]:
    datatype, shape, data = rng.choice(
        (
            ("BYTES", [1], len(one).to_bytes(4, "little") + one),
            ("FP32", [1, 16, 16, 3], float_pixels("red").tobytes()),
            ("UINT8", [16, 16, 3], bytes(768)),
            ("BYTES", [2], rng.randbytes(rng.randrange(60))),
        )
    )
    if rng.random() < 0.2:
        shape = rng.choice(([0], [], [-1], [2**40] * 3, [1] * 300, [1.5], "x"))  # type: ignore[assignment]
    parameters: dict[str, Any] = {"binary_data_size": len(data)}
    if rng.random() < 0.2:
        parameters = rng.choice(
            (
                {"shared_memory_region": "a", "shared_memory_byte_size": 3072},
                {"binary_data_size": -1},
                {"binary_data_size": 2**70},
                {},
            )
        )
    one_input = {"name": "x", "datatype": datatype, "shape": shape, "parameters": parameters}
    inputs = [one_input] * rng.choice((1, 1, 1, 1, 0, 2, 100))
    return dumped(rng, {"inputs": inputs}), data


def anything(rng: random.Random) -> Message:
    """Frames that are no message."""
    count = rng.choice((1, 2, 3, 4, 5, 2000))
    return tuple(rng.randbytes(rng.randrange(20)) for _ in range(count))


_KINDS: tuple[Callable[[random.Random], Message], ...] = (item, item, item, item, item, order)


class ZmqRequests:
    """Sends hostile messages to a worker, on a connection for each seed; `close` ends it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._context: zmq.Context[Any] = zmq.Context()

    def close(self) -> None:
        self._context.destroy(linger=0)

    def attempt(self, seed: int) -> str:
        """Send the messages of a seed, and judge what comes back; return how it ended.

        Raises:
            Wrong: an answer that says that the server has failed; or neither an end of the stream
                nor of the connection.
        """
        rng = random.Random(seed)
        if rng.random() < 0.05:
            return self._bytes(rng)
        dealer = self._context.socket(zmq.DEALER)
        # A socket that is closed in the middle of a message while its connection breaks aborts the
        # process (session_base.cpp of libzmq 4.3.5): this one closes once all of them are sent.
        dealer.setsockopt(zmq.LINGER, int(HANG_S * 1000))
        dealer.setsockopt(zmq.RECONNECT_IVL, -1)
        monitor = dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            dealer.connect(f"tcp://127.0.0.1:{self._port}")
            messages = [opening(rng)] if rng.random() < 0.97 else []
            messages += [rng.choice(_KINDS)(rng) for _ in range(rng.choice((1, 2, 3, 6, 12)))]
            if rng.random() < 0.1:
                messages.insert(rng.randrange(len(messages) + 1), anything(rng))
            messages.append(_END)
            with contextlib.suppress(zmq.Again):  # the worker has closed the connection already
                for each in messages:
                    dealer.send_multipart(each, zmq.NOBLOCK)
            return f"ZeroMQ {_judged(seed, dealer, monitor)}"
        finally:
            dealer.disable_monitor()
            monitor.close(0)
            dealer.close(0)

    def _bytes(self, rng: random.Random) -> str:
        """Bytes that are not, or not quite, those of ZeroMQ."""
        data = mutated(rng, _GREETING) + rng.randbytes(rng.randrange(200))
        with (
            socket.create_connection(("127.0.0.1", self._port), timeout=HANG_S) as sock,
            contextlib.suppress(ConnectionError),
        ):
            sock.sendall(data)
        return "ZeroMQ bytes"


def _judged(seed: int, dealer: zmq.Socket[bytes], monitor: zmq.Socket[bytes]) -> str:
    """How the stream ended, after its answers."""
    poller = zmq.Poller()
    poller.register(dealer, zmq.POLLIN)
    poller.register(monitor, zmq.POLLIN)
    until, asked = time.monotonic() + HANG_S, False
    while time.monotonic() < until:
        ready = dict(poller.poll(300))
        if not ready and not asked:  # none of the messages has opened a stream: this one does
            asked = True
            with contextlib.suppress(zmq.Again):
                for each in (_OPEN, _END):
                    dealer.send_multipart(each, zmq.NOBLOCK)
        while dealer in ready or dealer.poll(0):
            ready.pop(dealer, None)
            _, data, *load = dealer.recv_multipart()
            head = json.loads(data)
            error = head.get("error")
            if error and (
                head.get("status") == 500 or error["code"] in ("internal", "model_failed")
            ):
                raise Wrong(f"seed {seed}, ZeroMQ: {head}")
            if not load and head["type"] == "ended":
                return str(error["code"] if error else head["reason"])
        if monitor in ready:
            event = parse_monitor_message(monitor.recv_multipart())["event"]
            return "closed" if event == zmq.EVENT_DISCONNECTED else "?"
    raise Wrong(f"seed {seed}, ZeroMQ: no end of the stream within {HANG_S:g} s")
