"""One worker process for each device: real processes, on the CPU."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.colours import encoded
from tests.support.processes import Processes, get_json
from tests.support.waiting import until_blocking

from fingerpost.deploy.processes.device_workers import DeviceWorkers, process_arguments
from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.devices import Gpu, Placement
from fingerpost.worker.telemetry.access_log import AccessEntry

CPU = Placement(device="cpu")
GPU = Placement(
    device="cuda:0",
    gpu=Gpu(uuid="GPU-1234", name="NVIDIA L4", total_mb=24_000, free_mb=24_000),
    memory_fraction=0.45,
)

CHILDREN = {
    "separate": ["--model", "m", "--device", "auto", "--port", "9000"],
    "joined": ["--model", "m", "--device=auto", "--port=9000", "--processes-per-device=2"],
    "between": ["--devices", "all", "--model", "m", "--memory-fraction", "0.9"],
}


@pytest.mark.parametrize("case", CHILDREN)
def test_a_process_is_told_its_own_device(case: str) -> None:
    assert process_arguments(CHILDREN[case], GPU, 9001) == [
        *("worker", "--model", "m", "--device", "GPU-1234", "--port", "9001"),
        *("--memory-fraction", "0.45"),
    ]


def test_options_that_only_begin_alike_are_kept() -> None:
    given = ["--model", "--devices-of-mine", "--port-name=x", "--weight", "2"]
    arguments = process_arguments(given, CPU, 0)
    assert arguments == ["worker", *given, "--device", "cpu", "--port", "0"]


@pytest.mark.parametrize("option", ["--grpc-port", "--zmq-port"])
def test_a_process_has_its_own_port_of_another_transport(option: str) -> None:
    given = ["--model", "m", option, "9100"]
    assert process_arguments(given, CPU, 9001, {option: 9101}) == [
        *("worker", "--model", "m", "--device", "cpu", "--port", "9001", option, "9101")
    ]


def test_a_process_has_a_unix_socket_of_its_own() -> None:
    given = ["--model", "m", "--uds", "/run/fingerpost.sock"]
    assert process_arguments(given, CPU, 9001, uds="/run/fingerpost.sock.1") == [
        *("worker", "--model", "m", "--device", "cpu", "--port", "9001"),
        *("--uds", "/run/fingerpost.sock.1"),
    ]


def started(port: int, **more_ports: int) -> DeviceWorkers:
    named = {f"--{name.replace('_', '-')}": first for name, first in more_ports.items()}
    return DeviceWorkers([CPU, CPU], [], port=port, more_ports=named, grace_s=1.0, on_line=print)


def test_ports_end_where_they_end() -> None:
    with pytest.raises(ConfigurationError, match="65535"):
        started(65535)
    with pytest.raises(ConfigurationError, match="--grpc-port 65535"):
        started(0, grpc_port=65535)


def test_the_ports_of_two_processes_do_not_meet() -> None:
    with pytest.raises(ConfigurationError, match="put 2 between them"):
        started(8500, grpc_port=8501)
    with pytest.raises(ConfigurationError, match="--grpc-port 8510 and --zmq-port 8509"):
        started(8500, grpc_port=8510, zmq_port=8509)
    assert len(started(8500, grpc_port=8502, zmq_port=8504).processes) == 2


MODEL = """
class Model:
    def __init__(self, folder):
        if (folder / "broken").exists():
            raise ValueError("the device fell off the bus")

    def predict(self, batch):
        return batch.mean(axis=(1, 2)) / 255
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model in Python, so that processes start quickly."""
    folder = tmp_path / "colours"
    folder.mkdir()
    (folder / "mean.py").write_text(MODEL)
    (folder / "labels.txt").write_text("red\ngreen\nblue\n")
    (folder / "model.toml").write_text(
        'framework = "python"\nclass = "mean:Model"\n[input]\nheight = 16\nwidth = 16\n'
    )
    return folder


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as processes:
        yield processes


def healthy(registry: str) -> list[dict[str, Any]]:
    return get_json(f"{registry}/v1/health/service/colours?passing") or []


def url(instance: dict[str, Any]) -> str:
    return f"http://{instance['Service']['Address']}:{instance['Service']['Port']}"


def test_two_processes_on_the_cpu_from_start_to_end(processes: Processes, model: Path) -> None:
    registry = processes.registry()
    worker = processes.start(
        "worker", "--registry", registry, "--model", model, "--device", "cpu",
        "--processes-per-device", 2, "--lease", 0.2, "--access-log", "-",
    )  # fmt: skip
    until_blocking(lambda: len(healthy(registry)) == 2)
    instances = healthy(registry)
    assert {each["Service"]["Meta"]["device"] for each in instances} == {"cpu"}
    for instance in instances:
        answer = post(f"{url(instance)}/v1/classify/colours", encoded("green"))
        assert answer["results"][0]["predictions"][0][0] == "green"
    lines = until_blocking(lambda: two_requests(worker.output()))
    assert [(each.model, each.status, each.images) for each in lines] == [("colours", 200, 1)] * 2

    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert healthy(registry) == []
    output = worker.output()
    assert "0.cpu | " in output
    assert "1.cpu | " in output
    assert "Traceback" not in output


def test_a_killed_supervisor_leaves_no_process(processes: Processes, model: Path) -> None:
    registry = processes.registry()
    worker = processes.start(
        "worker", "--registry", registry, "--model", model, "--devices", "none",
        "--processes-per-device", 2, "--lease", 0,
    )  # fmt: skip
    until_blocking(lambda: len(healthy(registry)) == 2)
    os.kill(worker.pid, signal.SIGKILL)
    until_blocking(lambda: healthy(registry) == [])  # they ended too, and deregistered


def test_a_model_that_cannot_run_is_one_line(processes: Processes, model: Path) -> None:
    registry = processes.registry()
    (model / "broken").touch()
    worker = processes.start(
        "worker", "--registry", registry, "--model", model, "--processes-per-device", 2,
        "--device", "cpu",
    )  # fmt: skip
    assert worker.wait() == 1
    last = worker.output().splitlines()[-1]
    assert last.startswith("fingerpost: ")
    assert "the device fell off the bus" in last


@asynccontextmanager
async def running(workers: DeviceWorkers) -> AsyncIterator[asyncio.Task[None]]:
    async with workers:
        task = asyncio.create_task(workers.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_one_that_was_killed_or_failed_comes_back_while_the_other_serves(
    processes: Processes, model: Path, no_task_left: None
) -> None:
    registry = await asyncio.to_thread(processes.registry)
    lines: list[str] = []
    arguments = ["--registry", registry, "--model", str(model), "--lease", "0"]
    workers = DeviceWorkers(
        [CPU, CPU],
        arguments,
        port=0,
        grace_s=20.0,
        on_line=lambda name, line: lines.append(f"{name} | {line}"),
        retry_s=0.5,
    )
    async with running(workers) as task:
        await asyncio.to_thread(until_blocking, lambda: len(healthy(registry)) == 2)
        for name in ("0.cpu", "1.cpu"):  # which each says only after its registration
            await asyncio.to_thread(until_blocking, lambda name=name: ready_lines(lines, name))
        other = workers.processes[1].pid

        (model / "broken").touch()
        workers.processes[0].kill()  # it is started again, and then cannot run
        await asyncio.to_thread(until_blocking, lambda: any("next try" in line for line in lines))
        assert any("starting it again" in line for line in lines)
        assert len(healthy(registry)) >= 1
        (model / "broken").unlink()
        await asyncio.to_thread(
            until_blocking,
            lambda: workers.processes[0].pid and len(ready_lines(lines, "0.cpu")) == 2,
        )
        assert not task.done()
        assert workers.processes[1].pid == other
        assert len(ready_lines(lines, "1.cpu")) == 1
    assert [process.pid for process in workers.processes] == [None, None]
    assert await asyncio.to_thread(healthy, registry) == []


async def test_when_none_is_left_it_ends(
    processes: Processes, model: Path, no_task_left: None
) -> None:
    registry = await asyncio.to_thread(processes.registry)
    (model / "broken").touch()
    arguments = ["--registry", registry, "--model", str(model)]
    workers = DeviceWorkers(
        [CPU, CPU], arguments, port=0, grace_s=20.0, on_line=lambda name, line: None
    )
    async with running(workers) as task, asyncio.timeout(60):
        with pytest.raises(ConfigurationError, match="fell off the bus"):
            await task


def ready_lines(lines: list[str], name: str) -> list[str]:
    return [line for line in lines if line.startswith(name) and "ready at" in line]


def two_requests(output: str) -> list[AccessEntry] | None:
    """The access log's lines, which the supervisor passes on as they are."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    entries = [msgspec.json.decode(line, type=AccessEntry) for line in lines]
    return entries if len(entries) == 2 else None


def post(url: str, body: bytes) -> Any:
    request = urllib.request.Request(url, data=body, method="POST")  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
        return json.load(answer)
