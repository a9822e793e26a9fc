"""`python -m benchmarks.worker.nothing`: requests a second of servers whose model does nothing.

Every server gets the whole body of a JPEG from 16 keep-alive connections and answers a few bytes.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.environments import CACHE, environment, installed
from benchmarks.harness.load import post
from benchmarks.harness.pictures import photo
from benchmarks.harness.results import Goal, in_turn, report
from benchmarks.harness.servers import free_port, running, wait_for
from benchmarks.worker.fingerpost import worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["nothing_model"]

_SERVERS = Path(__file__).with_name("servers")
_PEERS = {
    "mosec": ["mosec"],
    "mlserver": ["mlserver"],
    "bentoml": ["bentoml"],
    "ray": ["ray[serve]"],
}

_MODEL = """
import numpy as np


class Nothing:
    encoded = True
    inline = True

    def __init__(self, folder):
        self.scores = np.zeros((64, 1), np.float32)

    def predict(self, batch):
        return self.scores[: len(batch)]
"""


@contextmanager
def _peer(python: Path, *command: object, port: int, probe: str = "/") -> Iterator[str]:
    with running([python, *command]) as process:
        wait_for(f"http://127.0.0.1:{port}{probe}", process)
        yield f"http://127.0.0.1:{port}"


def nothing_model() -> Path:
    """The folder of a model that neither decodes nor computes."""
    folder = CACHE / "models" / "nothing" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nothing.py").write_text(_MODEL)
    (folder / "model.toml").write_text('framework = "python"\nclass = "nothing:Nothing"\n')
    return folder


def _fingerpost() -> AbstractContextManager[str]:
    return worker("--model", nothing_model(), "--lease", 0)


def _bare() -> AbstractContextManager[str]:
    port = free_port()
    return _peer(Path(sys.executable), _SERVERS / "aiohttp_nothing.py", port, port=port)


def _mosec() -> AbstractContextManager[str]:
    port = free_port()
    python = environment("mosec", *_PEERS["mosec"])
    return _peer(python, _SERVERS / "mosec_nothing.py", "--address", "127.0.0.1", "--port", port,
                 port=port)  # fmt: skip


@contextmanager
def _bentoml() -> Iterator[str]:
    port = free_port()
    python = environment("bentoml", *_PEERS["bentoml"])
    command = [python, "-m", "bentoml", "serve", "bentoml_nothing:Nothing", "--host", "127.0.0.1",
               "--port", port, "--working-dir", _SERVERS]  # fmt: skip
    with running(command, environ={"BENTOML_DO_NOT_TRACK": "True"}, cwd=_SERVERS) as process:
        wait_for(f"http://127.0.0.1:{port}/readyz", process)
        yield f"http://127.0.0.1:{port}"


def _ray() -> AbstractContextManager[str]:
    port = free_port()
    python = environment("ray", *_PEERS["ray"])
    return _peer(python, _SERVERS / "ray_nothing.py", port, port=port, probe="/classify")


@contextmanager
def _mlserver() -> Iterator[str]:
    python = environment("mlserver", *_PEERS["mlserver"])
    folder = CACHE / "mlserver"
    folder.mkdir(parents=True, exist_ok=True)
    http, grpc, metrics = free_port(), free_port(), free_port()
    (folder / "settings.json").write_text(
        f'{{"host": "127.0.0.1", "http_port": {http}, "grpc_port": {grpc}, '
        f'"metrics_port": {metrics}, "parallel_workers": 0, "debug": false}}'
    )
    (folder / "model-settings.json").write_text(
        '{"name": "nothing", "implementation": "mlserver_nothing.Nothing"}'
    )
    with running(
        [python.with_name("mlserver"), "start", folder],
        environ={"PYTHONPATH": str(_SERVERS)},
        cwd=folder,
    ) as process:
        wait_for(f"http://127.0.0.1:{http}/v2/health/ready", process)
        yield f"http://127.0.0.1:{http}"


def _measure(
    server: Callable[[], AbstractContextManager[str]], path: str, bodies: dict[str, Path],
    seconds: float,
) -> dict[str, float]:  # fmt: skip
    with server() as url:
        figures = {}
        for name, body in bodies.items():
            post(f"{url}{path}", body, connections=16, seconds=1)  # warm
            load = post(f"{url}{path}", body, connections=16, seconds=seconds)
            figures[f"{name}/s"] = load.per_s
        return figures


_BOUNDS = {
    "bare aiohttp": {"20 KB/s": 1.2},
    "mosec": {"20 KB/s": 1.1, "640 KB/s": 2.0},
}


def main() -> int:
    """Measure, report, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--only", nargs="*", help="contestants, by default all")
    arguments = parser.parse_args()
    bodies = {"20 KB": photo(320, 240, 20), "640 KB": photo(1600, 1200, 640)}
    servers = {
        "fingerpost": (_fingerpost, "/v1/classify/nothing"),
        "bare aiohttp": (_bare, "/classify"),
        "mosec": (_mosec, "/inference"),
        "mlserver": (_mlserver, "/classify"),
        "bentoml": (_bentoml, "/classify"),
        "ray": (_ray, "/classify"),
    }
    chosen = {
        name: each
        for name, each in servers.items()
        if not arguments.only or name in ("fingerpost", *arguments.only)
    }
    figures = in_turn(
        {
            name: lambda server=server, path=path: _measure(server, path, bodies, arguments.seconds)
            for name, (server, path) in chosen.items()
        },
        rounds=arguments.rounds,
    )
    own = figures["fingerpost"]
    goals = [
        Goal(claim=f"fingerpost / {peer}, {size}", ratio=own[size] / row[size], bound=bound)
        for peer, row in figures.items()
        for size, bound in _BOUNDS.get(peer, {"20 KB/s": 1.0, "640 KB/s": 1.0}).items()
        if peer != "fingerpost"
    ]
    versions = {}
    for peer, packages in _PEERS.items():
        if peer in chosen:
            versions |= installed(environment(peer, *packages), peer)
    kept = report(
        "worker-nothing",
        "Requests a second with a model that does nothing, 16 connections",
        figures,
        goals,
        versions=versions,
        settings={"rounds": arguments.rounds, "seconds": arguments.seconds, "connections": 16},
    )
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
