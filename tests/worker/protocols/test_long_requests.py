"""Whatever is sent to a worker, it goes on answering `GET /load`."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from fingerpost.registry import WorkerState
from tests.worker.protocols.fuzz_server import Server
from tests.worker.protocols.long_requests import REQUESTS

pytestmark = pytest.mark.shell

# How long the event loop is held at a time, in processor time.
MOST_S = 0.05


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(as_deployed=True) as server:
        yield server


# A request before it on the same connection.
FIRST = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


def send(port: int, path: str, headers: dict[str, str], body: bytes, *, first: bytes = b"") -> int:
    """Send a request, and return the status of its answer; 0 where the connection is closed."""
    fields = dict(headers)
    if "Transfer-Encoding" not in fields:
        fields["Content-Length"] = str(len(body))
    lines = [f"POST {path} HTTP/1.1", "Host: x"] + [f"{key}: {fields[key]}" for key in fields]
    data = "\r\n".join([*lines, "", ""]).encode() + body
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        if first:
            connection.sendall(first)
            http.client.HTTPResponse(connection).begin()
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        response = http.client.HTTPResponse(connection)
        try:
            response.begin()
            response.read()
        except (ConnectionError, http.client.HTTPException):
            return 0
        return response.status


def load_answered(port: int, until: threading.Event) -> int:
    """Ask `GET /load` until an event is set; return how often it was answered."""
    answered = 0
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as asking:
        while not answered or not until.wait(0.005):
            asking.request("GET", "/load")
            assert json.load(asking.getresponse())["state"] == WorkerState.READY.value
            answered += 1
    return answered


AGAIN = {
    "chunks of a byte": {},
    "chunks of a byte, with a length": {"content-length": "200000"},
    "chunks of a byte, with a length in a value": {"X": "a\r\nContent-Length: 900000"},
}


@pytest.mark.parametrize("more", AGAIN.values(), ids=AGAIN)
def test_the_loop_goes_on_with_a_connection_s_second_request(
    server: Server, more: dict[str, str]
) -> None:
    path, headers, body = REQUESTS["raw: chunks of a byte"]()
    _check_the_loop(server, (path, headers | more, body), first=FIRST)


@pytest.mark.parametrize("name", REQUESTS)
def test_the_loop_goes_on(server: Server, name: str) -> None:
    _check_the_loop(server, REQUESTS[name]())


def _check_the_loop(
    server: Server, request: tuple[str, dict[str, str], bytes], *, first: bytes = b""
) -> None:
    server.pauses()
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        answered = pool.submit(load_answered, server.port, done)
        status = send(server.port, *request, first=first)
        pauses = server.pauses()
        done.set()
        assert answered.result(60) > 0
    assert status in (0, 200, 400, 404, 413, 415, 422, 431), status
    p99 = pauses[int(len(pauses) * 0.99)]
    assert p99 < MOST_S, f"p99 {p99:.3f} s, at most {pauses[-1]:.3f} s"
    assert pauses[-1] < 2 * MOST_S
