"""Other model servers with a SavedModel, each in its own environment, as its docs advise."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.environments import CACHE, environment, installed
from benchmarks.harness.servers import free_port, running, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["PEERS", "TENSORFLOW", "Peer", "versions"]

TENSORFLOW = "tensorflow-cpu"
_SERVERS = Path(__file__).with_name("servers")
_PACKAGES = {
    "mosec": ("mosec",),
    "LitServe": ("litserve", "python-multipart"),
    "BentoML": ("bentoml",),
    "Ray Serve": ("ray[serve]",),
    "MLServer": ("mlserver",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """How another model server is run.

    Attributes:
        serve: with a SavedModel; yields the URL that takes images once it answers.
        multipart: whether images are sent as a form, in the field `data`, not as the raw body.
    """

    serve: Callable[[Path], AbstractContextManager[str]]
    multipart: bool = False


def _python(name: str) -> Path:
    package, *others = _PACKAGES[name]
    plain = package.partition("[")[0]
    return environment(f"{plain}-tf", package, TENSORFLOW, "pillow", *others)


def versions(name: str) -> dict[str, str]:
    """The version of a peer's installed package, by the peer's name."""
    package = _PACKAGES[name][0].partition("[")[0]
    return {name: installed(_python(name), package)[package]}


@contextmanager
def _running(
    model: Path, command: list[object], port: int, probe: str, path: str, cwd: Path = _SERVERS
) -> Iterator[str]:
    environ = {"MODEL": str(model), "PYTHONPATH": str(_SERVERS), "BENTOML_DO_NOT_TRACK": "True"}
    with running(command, environ=environ, cwd=cwd) as process:
        wait_for(f"http://127.0.0.1:{port}{probe}", process)
        yield f"http://127.0.0.1:{port}{path}"


def _mosec(model: Path) -> AbstractContextManager[str]:
    port = free_port()
    command = [_python("mosec"), "mosec_mobilenet.py", "--address", "127.0.0.1", "--port", port,
               "--timeout", 60000]  # fmt: skip
    return _running(model, command, port, "/", "/inference")


def _litserve(model: Path) -> AbstractContextManager[str]:
    port = free_port()
    command = [_python("LitServe"), "litserve_mobilenet.py", port]
    return _running(model, command, port, "/health", "/predict")


def _bentoml(model: Path) -> AbstractContextManager[str]:
    port = free_port()
    command = [_python("BentoML"), "-m", "bentoml", "serve", "bentoml_mobilenet:Classify", "--host",
               "127.0.0.1", "--port", port, "--working-dir", _SERVERS]  # fmt: skip
    return _running(model, command, port, "/readyz", "/classify")


def _ray(model: Path) -> AbstractContextManager[str]:
    port = free_port()
    return _running(model, [_python("Ray Serve"), "ray_mobilenet.py", port], port,
                    "/classify", "/classify")  # fmt: skip


def _mlserver(model: Path) -> AbstractContextManager[str]:
    folder = CACHE / "mlserver-mobilenet"
    folder.mkdir(parents=True, exist_ok=True)
    http, grpc, metrics = free_port(), free_port(), free_port()
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics,
                "parallel_workers": 0, "debug": False}  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    implementation = {"name": "mobilenet", "implementation": "mlserver_mobilenet.Classify"}
    (folder / "model-settings.json").write_text(json.dumps(implementation))
    command = [_python("MLServer").with_name("mlserver"), "start", folder]
    return _running(model, command, http, "/v2/health/ready", "/classify", folder)


PEERS = {
    "mosec": Peer(serve=_mosec),
    "LitServe": Peer(serve=_litserve, multipart=True),
    "BentoML": Peer(serve=_bentoml),
    "Ray Serve": Peer(serve=_ray),
    "MLServer": Peer(serve=_mlserver),
}
