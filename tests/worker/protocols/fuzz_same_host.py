"""Hostile requests of clients on the worker's host: at its Unix sockets, and with shared memory."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import re
import socket
from collections import deque
from pathlib import Path

__all__ = ["KEY", "cleared", "connected", "frame", "shared_memory"]

# Of shared memory whose size changes all the time.
KEY = "/fingerpost-fuzz"
_SHM = Path("/dev/shm")  # noqa: S108 - where POSIX puts shared memory
_TOKEN = re.compile(rb"Fingerpost-Frame: ([0-9a-f]{16}) ")
_SIZE = 40 * 30 * 3

# They stay open for a while, with what nobody has asked for.
_SENDERS: deque[socket.socket] = deque()
_MOST_SENDERS = 16

Request = tuple[str, str, dict[str, str], bytes]


def frame(rng: random.Random) -> Request:
    """A request for a frame, which `connected` sends before, more or less."""
    token = f"{rng.randrange(2**64):016x}"
    shape = rng.choice(("30x40x3",) * 15 + ("30x40x1", "40x30x3", "0x0x3", "999999x999999x3", "x"))
    header = rng.choice((f"{token} UINT8 {shape}",) * 8 + (token, f"{token} FP32 {shape}", "é"))
    path = rng.choice(("/", "/v1/classify/colours", "/v1/infer/colours", "/v1/classify/x"))
    return "POST", path, {"Fingerpost-Frame": header}, rng.choice((b"", b"", b"", b"x"))


def shared_memory(rng: random.Random) -> Request:
    """A call of Triton's, or an inference with a region."""
    with contextlib.suppress(OSError), (_SHM / KEY[1:]).open("ab") as file:
        os.truncate(file.fileno(), rng.choice((0, 100, 3072, 4096, 5000)))
    name = rng.choice(("a", "b", "", "c" * 300, "%2e%2e", "%00"))
    base = f"/v2/systemsharedmemory/region/{name}" if name else "/v2/systemsharedmemory"
    numbers = (0, 1, 12, 100, 3072, 4096, -1, 2**63 - 1, 2**64, 0.5, "7", None)
    match rng.randrange(5):
        case 0 | 1:
            key = rng.choice((KEY,) * 5 + ("/..", "/a/b", "/../etc/passwd", "", "\0", 7))
            order = {"key": key, "offset": rng.choice(numbers), "byte_size": rng.choice(numbers)}
            if rng.random() < 0.5:
                order = {"key": KEY, "byte_size": 3072}
            return "POST", f"{base}/register", {}, json.dumps(order).encode()
        case 2:
            verb = rng.choice(("status", "unregister"))
            return rng.choice(("GET", "POST")), f"{base}/{verb}", {}, b""
    parameters = {
        "shared_memory_region": rng.choice((*"aaab", "", 7, "c" * 300)),
        "shared_memory_byte_size": rng.choice((3072, 3072, 3072, *numbers)),
        "shared_memory_offset": rng.choice((0, 0, 0, *numbers)),
    }
    given = {"name": "x", "datatype": "FP32", "shape": [1, 16, 16, 3], "parameters": parameters}
    asked: dict[str, object] = {"inputs": [given]}
    if rng.random() < 0.5:
        place = {**parameters, "shared_memory_byte_size": rng.choice((12, *numbers))}
        asked["outputs"] = [{"name": "o", "parameters": place}]
    return "POST", "/v2/models/colours/infer", {}, json.dumps(asked).encode()


def connected(
    rng: random.Random, path: str, port: int, data: bytes, timeout_s: float
) -> socket.socket:
    """A connection to the port, or for 0 to the Unix socket, after a message for frames."""
    if port:
        return socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
    found = _TOKEN.search(data)
    if found is not None:
        with contextlib.suppress(OSError):  # the worker has ended the connection
            _send(rng, f"{path}.frames", found[1])
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout_s)
    connection.connect(path)
    return connection


def cleared() -> None:
    """Close what is open, and remove the shared memory."""
    while _SENDERS:
        _SENDERS.pop().close()
    (_SHM / KEY[1:]).unlink(missing_ok=True)


def _send(rng: random.Random, path: str, token: bytes) -> None:
    memory = os.memfd_create("fuzz", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.truncate(memory, rng.choice((_SIZE,) * 15 + (0, 1, _SIZE - 1, 1 << 20)))
        seals = rng.choice((fcntl.F_SEAL_SHRINK,) * 15 + (0, fcntl.F_SEAL_GROW, 0xF))
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
        descriptors = rng.choice(([memory],) * 15 + ([], [memory] * 2, [memory] * 9))
        text = rng.choice((token,) * 15 + (b"", token[1:], token * 20, rng.randbytes(16)))
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _SENDERS.append(sender)
        if len(_SENDERS) > _MOST_SENDERS:
            _SENDERS.popleft().close()
        sender.settimeout(5)
        sender.connect(path)
        socket.send_fds(sender, [text], descriptors)
        if rng.random() < 0.3:
            socket.send_fds(sender, [token], [memory])
        if not seals & fcntl.F_SEAL_SHRINK:
            os.truncate(memory, 0)
        if rng.random() < 0.2:
            sender.shutdown(socket.SHUT_RDWR)
    finally:
        os.close(memory)
