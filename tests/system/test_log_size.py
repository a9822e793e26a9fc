"""Hostile requests neither fill the log nor forge its lines."""

from __future__ import annotations

import re
import socket

from tests.support.digits import Digits
from tests.support.processes import Processes

_LINE = re.compile(r"\d{4}-\d\d-\d\d[T ][\d:,.+-]+Z? [A-Z]+ [\w.]+: ")


def _send(port: int, *pieces: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.settimeout(10)
        try:
            for piece in pieces:
                line.sendall(piece)
            while line.recv(65536):
                pass
        except OSError:  # it may end the connection at any time
            return


def _multipart() -> bytes:
    head = b"Content-Disposition: form-data; name=\xff; filename==\x1b[2J" + b"x" * 7000
    parts = b"".join(b"--b\r\n" + head + b"\r\n\r\nx\r\n" for _ in range(500))
    body = parts + b"--b--\r\n"
    return (
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    ) + body


HOSTILE = (
    _multipart(),
    b"POST / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    b"GET /" + b"z" * 7000 + b" HTTP/9.9\r\n\r\n",
    b"\x1b]0;OWNED\x07\r\n\r\n",
    b"GET /v1/admin/models/x%0A2026-01-01%2000:00:00%20INFO%20forged HTTP/1.1\r\nHost: x\r\n"
    b"Connection: close\r\n\r\n",
    b"POST /v1/classify/digits HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"PUT /v1/agent/service/register HTTP/1.1\r\nHost: evil\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n",
)


def test_a_thousand_hostile_requests(processes: Processes, digits: Digits) -> None:
    registry = processes.registry()
    proxy = processes.proxy(registry, "--relay")
    worker = processes.worker(registry, digits.model)
    (entry,) = processes.workers(proxy, 1)
    ports = [int(registry.rsplit(":", 1)[1]), int(proxy.rsplit(":", 1)[1]), entry["ports"]["http"]]
    for port in ports:
        for request in HOSTILE:
            for _ in range(50):
                _send(port, request)
    processes.workers(proxy, 1)  # all of them still work
    logs = sorted(worker.log.parent.glob("*.log"))
    assert len(logs) >= 3
    for log in logs:
        text = log.read_bytes()
        assert len(text) < 300_000, (log, text[-3000:])
        assert b"\x1b" not in text
        assert b"\n2026-01-01" not in text
        for line in text.decode().splitlines():
            assert line.startswith("    ") or _LINE.match(line), line
