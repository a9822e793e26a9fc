"""`python -m benchmarks.worker.frames`: decoded frames of 1920 x 1080 from a client on one host.

One worker, whose model takes the frame as it is and does nothing. In turn: our client, which sends
the frame's memory; our client without the Unix socket, which sends it over HTTP, as PNG; and
`tritonclient`, with the pixels in shared memory and over HTTP. One frame at a time; each is another
array of the caller's, so that it is copied into shared memory first.

The goals are of processor time, the client's and the worker's together, which does not depend on
what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import psutil
import tritonclient.http as triton
import tritonclient.utils.shared_memory as shm

from benchmarks.harness.environments import CACHE
from benchmarks.harness.results import Goal, in_turn, report
from benchmarks.harness.servers import free_port, running, wait_for
from fingerpost.client import Client, ClientConfig
from fingerpost.registry.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

_SHAPE: Final = (1080, 1920, 3)
_MODEL = f"""
import numpy as np


class Frames:
    height, width = {_SHAPE[0]}, {_SHAPE[1]}

    def __init__(self, folder):
        self.scores = np.full((1, 2), 0.5, np.float32)

    def predict(self, batch):
        return self.scores
"""
_MEMORY: Final = "memfd"
_PNG: Final = "HTTP, PNG"
_TRITON_MEMORY: Final = "tritonclient, shared memory"
_TRITON_HTTP: Final = "tritonclient, HTTP"


@dataclass(frozen=True)
class _Here:
    """The worker's process, its port, and its registry."""

    process: psutil.Process
    port: int
    registry: str


def _model() -> Path:
    """A model that takes a whole frame, so that nothing is resized."""
    folder = CACHE / "models" / "frames" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "frames.py").write_text(_MODEL)
    (folder / "model.toml").write_text(
        'framework = "python"\nclass = "frames:Frames"\n[batch]\nmax = 1\n'
    )
    return folder


@contextmanager
def _worker() -> Iterator[_Here]:
    """A worker with a Unix socket and Triton's shared memory, and its registry."""
    program = [sys.executable, "-m", "fingerpost.deploy.cli"]
    own, port = free_port(), free_port()
    registry = f"http://127.0.0.1:{own}"
    with TemporaryDirectory() as folder, running([*program, "registry", "--port", own]) as first:
        wait_for(f"{registry}/v1/status/leader", first)
        command = [
            *program, "worker", "--port", port, "--registry", registry, "--model", _model(),
            "--uds", Path(folder) / "fingerpost.sock", "--shared-memory", "--lease", 0,
        ]  # fmt: skip
        with running(command) as process:
            wait_for(f"http://127.0.0.1:{port}/health/ready", process)
            yield _Here(psutil.Process(process.pid), port, registry)


def _ours(here: _Here, frames: list[NDArray[np.uint8]], *, uds: bool) -> None:
    async def run() -> None:
        config = ClientConfig(uds=uds)
        async with Client(registry=here.registry, config=config) as client:
            for frame in frames:
                await client.classify(frame, "frames")
            if (client.stats.bytes_sent == 0) != uds:
                raise RuntimeError(f"uds={uds}, and {client.stats.bytes_sent:,} bytes were sent")

    asyncio.run(run())


def _triton(here: _Here, frames: list[NDArray[np.uint8]], *, memory: bool) -> None:
    size = frames[0].nbytes
    with triton.InferenceServerClient(f"127.0.0.1:{here.port}") as client:
        image = triton.InferInput("image", [1, *_SHAPE], "UINT8")
        if not memory:
            for frame in frames:
                client.infer("frames", [image.set_data_from_numpy(frame[None])])
            return
        key = f"/fingerpost-{secrets.token_hex(4)}"
        region: Any = shm.create_shared_memory_region("frame", key, size)
        try:
            client.register_system_shared_memory("frame", key, size)
            image.set_shared_memory("frame", size)
            for frame in frames:
                shm.set_shared_memory_region(region, [frame])
                client.infer("frames", [image])
            client.unregister_system_shared_memory("frame")
        finally:
            shm.destroy_shared_memory_region(region)


def _measure(here: _Here, send: Callable[[int], None], count: int) -> dict[str, float]:
    send(3)  # warm
    own = psutil.Process()
    before, began = _cpu_s(own) + _cpu_s(here.process), time.perf_counter()
    send(count)
    took_s = time.perf_counter() - began
    used_s = _cpu_s(own) + _cpu_s(here.process) - before
    return {"frames/s": count / took_s, "CPU ms/frame": used_s / count * 1e3}


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> int:
    """Measure, report, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=200, help="a tenth of it as PNG")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    some = [_scene(rng) for _ in range(4)]

    def frames(count: int) -> list[NDArray[np.uint8]]:
        return [some[number % len(some)] for number in range(count)]

    count = arguments.frames
    with _worker() as here:
        contestants: dict[str, tuple[Callable[[int], None], int]] = {
            _MEMORY: (lambda n: _ours(here, frames(n), uds=True), count),
            _PNG: (lambda n: _ours(here, frames(n), uds=False), max(1, count // 10)),
            _TRITON_MEMORY: (lambda n: _triton(here, frames(n), memory=True), count),
            _TRITON_HTTP: (lambda n: _triton(here, frames(n), memory=False), count),
        }
        figures = in_turn(
            {
                name: lambda send=send, count=count: _measure(here, send, count)
                for name, (send, count) in contestants.items()
            },
            rounds=arguments.rounds,
        )
    spent = {name: row["CPU ms/frame"] for name, row in figures.items()}
    goals = [
        Goal(claim=f"{peer} / memfd, CPU", ratio=spent[peer] / spent[_MEMORY], bound=bound)
        for peer, bound in ((_PNG, 5.0), (_TRITON_HTTP, 5.0), (_TRITON_MEMORY, 1.5))
    ]
    kept = report(
        "worker-frames",
        "Decoded frames of 1920 x 1080 on one host, one at a time",
        figures,
        goals,
        versions={"fingerpost": __version__, "tritonclient": _triton_version()},
        settings={"rounds": arguments.rounds, "frames": count},
        notes=[
            "The model takes frames of 1920 x 1080. A smaller one has them resized first, which "
            "takes the same for all.",
        ],
    )
    return 0 if kept else 1


def _triton_version() -> str:
    """The release of `tritonclient` that is installed."""
    return version("tritonclient")


def _scene(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A picture that PNG makes smaller, as those of cameras: slopes of gray, and some noise."""
    rows, columns = np.mgrid[: _SHAPE[0], : _SHAPE[1]]
    slope = (rows * rng.uniform(0.02, 0.1) + columns * rng.uniform(0.02, 0.1))[:, :, None]
    noise, colour = rng.normal(0, 3, _SHAPE), np.array([20, 40, 60])
    return np.clip(slope + colour + noise, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    raise SystemExit(main())
