r"""What strangers write reaches no terminal: every command, on a terminal and through a pipe."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socket import AF_INET6
from typing import Any

import pytest
from PIL import Image
from tests.support.processes import FINGERPOST, get_json
from tests.support.python_models import write_python_model

from fingerpost.testing import sync_fake_cluster

pytestmark = pytest.mark.system

# Sets the title, rings, is Rich's markup and emoji, a C1 colour, turns the text, forges a line.
HOSTILE = "\x1b]0;OWNED\x07[bold]B[blink]:smile:\x9b31m\u202eEVIL\nFORGED"
SHOWN = r"\x1b]0;OWNED\x07[bold]B[blink]:smile:\x9b31m\u202eEVIL"
FORBIDDEN = ("\x1b]0;", "\x07", "\x9b", "\u202e", "\nFORGED", "\N{GRINNING FACE WITH SMILING EYES}")


class _HostileWorker(BaseHTTPRequestHandler):
    """Refuses every image, with a message for the terminal."""

    def do_GET(self) -> None:
        self._answer(500, {"error": {"code": HOSTILE, "message": HOSTILE, "retryable": False}})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        error = {"code": f"bad_{HOSTILE}", "message": HOSTILE, "retryable": False}
        self._answer(400, {"error": error})

    def _answer(self, status: int, body: object) -> None:
        encoded = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class _Server6(HTTPServer):
    address_family = AF_INET6


@dataclass(frozen=True)
class Place:
    """A cluster with a hostile label (`flowers`) and a hostile worker (`roses`), and files."""

    proxy: str
    registry: str
    address: str
    image: Path
    model: Path
    folder: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("files") / HOSTILE
    folder.mkdir()
    image = folder / f"{HOSTILE}.png"
    Image.new("RGB", (8, 8)).save(image)
    server = _Server6(("::1", 0), _HostileWorker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    with sync_fake_cluster({"flowers": [(HOSTILE, 0.9), ("daisy", 0.1)]}) as cluster:
        _register(cluster.registry_url, "roses", "::1", port)
        yield Place(
            proxy=cluster.proxy_url,
            registry=cluster.registry_url,
            address=f"[::1]:{port}",
            image=image,
            model=_model(folder),
            folder=folder,
        )
    server.shutdown()
    server.server_close()


def _register(registry: str, name: str, host: str, port: int) -> None:
    """Register what an honest worker does, but with hostile facts."""
    (found,) = get_json(f"{registry}/v1/health/service/flowers")
    service = found["Service"]
    meta = {key: value.replace("flowers", name) for key, value in service["Meta"].items()} | {
        "device": HOSTILE,
        "load-error": HOSTILE,
        "zone": HOSTILE,
    }
    body = {
        "Name": name,
        "ID": f"{name}-1",
        "Address": host,
        "Port": port,
        "Meta": meta,
        "Tags": [tag.replace("flowers", name) for tag in service["Tags"]],
    }
    host_port = registry.removeprefix("http://")
    connection = HTTPConnection(host_port, timeout=10)
    connection.request("PUT", "/v1/agent/service/register", json.dumps(body))
    assert connection.getresponse().status == 200
    connection.close()


def _model(folder: Path) -> Path:
    """A model of two classes with hostile labels."""
    code = """
import numpy as np

class Model:
    height = width = 8

    def predict(self, batch):
        return np.tile([0.9, 0.1], (len(batch), 1))
"""
    hostile = HOSTILE.replace("\n", "")
    labels = (hostile, f"{hostile}2")
    return write_python_model(folder / "tulips", code, "light:Model", labels=labels)


def on_a_terminal(arguments: list[str], until: str | None = None) -> tuple[int, str]:
    """The exit status and all that the command writes to a terminal of 200 columns.

    With `until`, the command gets SIGINT once it has written that. After a minute it is killed,
    with what it started, which would keep the terminal open.
    """
    own, its = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200", "LINES": "50"}
    with subprocess.Popen(
        [*FINGERPOST, *arguments],
        stdin=its,
        stdout=its,
        stderr=its,
        env=environment,
        process_group=0,
    ) as process:
        os.close(its)
        written = bytearray()
        killer = threading.Timer(60, os.killpg, (process.pid, signal.SIGKILL))
        killer.start()
        try:
            while piece := os.read(own, 65536):
                written += piece
                if until is not None and until in written.decode("utf-8", "replace"):
                    process.send_signal(signal.SIGINT)
                    until = None
        except OSError:  # Linux: the other end is closed
            pass
        process.wait()
        killer.cancel()
        os.close(own)
    return process.returncode, written.decode("utf-8", "replace").replace("\r\n", "\n")


def through_a_pipe(arguments: list[str]) -> tuple[int, str]:
    done = subprocess.run([*FINGERPOST, *arguments], capture_output=True, timeout=60, check=False)
    return done.returncode, (done.stdout + done.stderr).decode()


Arguments = Callable[[Place], list[Any]]
COMMANDS: dict[str, tuple[Arguments, int, str]] = {
    "status": (lambda at: ["status", "--proxy", at.proxy], 0, SHOWN),
    "status, IPv6": (lambda at: ["status", "--registry", at.registry], 0, "[::1]:"),
    "resolve": (lambda at: ["resolve", "roses", "--proxy", at.proxy], 0, "[::1]:"),
    "classify, label": (
        lambda at: ["classify", "--model", "flowers", "--proxy", at.proxy, at.image],
        0,
        SHOWN + r"\nFORGED 90.0%",
    ),
    "classify, error": (
        lambda at: ["classify", "--model", "roses", "--proxy", at.proxy, at.image],
        1,
        SHOWN,
    ),
    "classify, local": (
        lambda at: ["classify", "--model", at.model, "--name", "tulips", at.image],
        0,
        "90.0%",
    ),
    "classify, json": (
        lambda at: ["classify", "--model", "flowers", "--proxy", at.proxy, "--json", at.image],
        0,
        r"\u001b]0;OWNED\u0007[bold]B[blink]:smile:\u009b31m\u202eEVIL\nFORGED",
    ),
    "stream": (
        lambda at: [
            "stream", at.folder, "--model", "flowers", "--proxy", at.proxy,
            "--out", at.folder / "out.jsonl",
        ],
        0,
        "images/s",
    ),
    "bench": (
        lambda at: [
            "bench", "roses", at.image, "--proxy", at.proxy, "--seconds", "0.3", "--warm-up", "0",
            "--concurrency", "1",
        ],
        1,
        "images sent",
    ),
    "drain": (lambda at: ["drain", HOSTILE, "--registry", at.registry], 1, SHOWN),
    "undrain": (lambda at: ["undrain", HOSTILE, "--registry", at.registry], 1, SHOWN),
    "model show": (lambda at: ["model", "show", at.model], 0, "tulips"),
    "model check": (lambda at: ["model", "check", at.model], 0, "2 classes"),
    "model check, a folder without a model": (
        lambda at: ["model", "check", at.folder], 1, SHOWN,
    ),
    "model export": (
        lambda at: ["model", "export", at.folder, "--out", at.folder / "new"], 1, SHOWN,
    ),
    "model quantize": (
        lambda at: ["model", "quantize", at.folder, "--images", at.folder], 1, SHOWN,
    ),
    "train": (
        lambda at: ["train", "--images", at.folder / "none", "--out", at.folder / "new"],
        1,
        SHOWN,
    ),
    "worker": (lambda at: ["worker", "--model", at.folder / "none"], 1, SHOWN),
    "up": (lambda at: ["up", "--model", at.folder / "none"], 1, SHOWN),
    "a mistyped option": (lambda _: ["status", f"--{HOSTILE}"], 2, r"\x1b]0;OWNED"),
    "a mistyped command": (lambda _: [HOSTILE], 2, r"\x1b]0;OWNED"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "run"),
    [
        *((name, on_a_terminal) for name in COMMANDS),
        *((name, through_a_pipe) for name in ("status", "classify, label", "classify, json")),
    ],
)
def test_no_command_lets_it_through(
    name: str, run: Callable[[list[str]], tuple[int, str]], place: Place
) -> None:
    arguments, code, shown = COMMANDS[name]
    status, written = run([str(each) for each in arguments(place)])
    assert status == code, written
    for each in FORBIDDEN:
        assert each not in written, (each, written)
    assert shown in written


@pytest.mark.parametrize(
    ("command", "shown"), [(["status"], r"\x1b]0;OWNED"), (["resolve", "roses"], "[::1]:")]
)
def test_nor_does_one_that_keeps_watching(command: list[str], shown: str, place: Place) -> None:
    status, written = on_a_terminal([*command, "--watch", "--proxy", place.proxy], until=shown)
    assert status == 0
    for each in FORBIDDEN:
        assert each not in written, (each, written)


def test_an_argument_of_a_pattern_of_the_shell(place: Place) -> None:
    """The shell puts all files of a folder into one command, whatever they are called."""
    files = [str(each) for each in place.folder.glob("*.png")]
    status, written = through_a_pipe(
        ["classify", *files, "--model", "flowers", "--proxy", place.proxy, f"-{HOSTILE}"]
    )
    assert status == 2
    assert not [each for each in FORBIDDEN if each in written]
