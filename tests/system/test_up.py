"""`fingerpost up`: supervised, and stopped cleanly."""

from __future__ import annotations

import signal

import psutil
import pytest

from tests.system.conftest import Demo
from tests.system.processes import Processes, free_port, get_json, until


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_up_keeps_workers_running_and_leaves_nothing(
    processes: Processes, demo: Demo, ending: signal.Signals
) -> None:
    port = free_port()
    proxy = f"http://127.0.0.1:{port}"
    up = processes.start(
        "up", "--model", demo.model, "--workers", 2, "--port", port,
        "--registry-port", free_port(), "--threads", 1,
    )  # fmt: skip
    before = {each["id"] for each in processes.workers(proxy, 2)}
    until(lambda: "The cluster is up" in up.output())
    children = psutil.Process(up.pid).children()
    assert len(children) == 4  # registry, proxy, 2 workers
    (victim, *_) = [each for each in children if "worker" in each.cmdline()]
    victim.kill()
    until(lambda: len({each["id"] for each in processes.workers(proxy, 2)} - before) == 1)
    children = psutil.Process(up.pid).children()
    up.signal(ending)
    assert up.wait() == (0 if ending is signal.SIGINT else -signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=15)
    assert alive == []
    assert get_json(f"{proxy}/health/live") is None
    assert "Traceback" not in up.output()


def test_up_says_why_it_cannot(processes: Processes, demo: Demo) -> None:
    port = free_port()
    processes.start("registry", "--port", port)
    until(lambda: get_json(f"http://127.0.0.1:{port}/v1/status/leader"))
    up = processes.start(
        "up", "--model", demo.model, "--port", free_port(), "--registry-port", port
    )
    assert up.wait() == 1
    assert f"127.0.0.1:{port}" in up.output()
    assert "in use" in up.output()
    assert "Traceback" not in up.output()
