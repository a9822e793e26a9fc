"""Triton's client of gRPC, unmodified, straight to real workers by the proxy's xDS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.colours import LABELS, encoded
from tests.support.ports import free_port
from tests.support.processes import Processes
from tests.support.python_models import write_python_model

pytestmark = pytest.mark.system

PROGRAM = Path(__file__).with_name("triton_program.py")
MODEL = """
class Model:
    def __init__(self, folder):
        pass

    def predict(self, batch):
        return batch.mean(axis=(1, 2)) / 255
"""


def test_one_is_killed_and_one_drains_and_no_image_fails(tmp_path: Path) -> None:
    size = "[input]\nheight = 16\nwidth = 16\n"
    model = write_python_model(tmp_path / "colours", MODEL, "mean:Model", labels=LABELS, more=size)
    image = tmp_path / "image.png"
    image.write_bytes(encoded("green"))
    with Processes(tmp_path) as processes:
        registry, port = processes.registry(), free_port()
        proxy = processes.proxy(registry, "--xds-port", port)
        workers = [processes.worker(registry, model, "--grpc-port", 0) for _ in range(3)]
        found = processes.workers(proxy, 3, "colours")
        assert all(each["ports"]["grpc"] != each["ports"]["http"] for each in found)
        bootstrap = processes.start("xds-bootstrap", f"127.0.0.1:{port}")
        assert bootstrap.wait() == 0
        program = subprocess.Popen(
            [sys.executable, PROGRAM, "xds:///colours", image],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "GRPC_XDS_BOOTSTRAP": str(bootstrap.log)},
        )

        def infer(count: int) -> dict[str, int]:
            assert program.stdin is not None
            assert program.stdout is not None
            program.stdin.write(f"{count}\n")
            program.stdin.flush()
            return dict(json.loads(program.stdout.readline()))

        try:
            assert infer(60) == {"1": 60}
            workers[0].signal(signal.SIGKILL)
            assert infer(60) == {"1": 60}
            workers[1].signal(signal.SIGTERM)
            sent = 0
            while not sent or len(processes.workers_now(proxy, "colours")) != 1:
                assert infer(60) == {"1": 60}
                sent += 60
                assert sent < 30_000
            assert workers[1].wait() == 0
            assert infer(60) == {"1": 60}
        finally:
            program.kill()
            program.communicate()
