"""A real worker service on a real socket, around a light model that computes what can be checked.

The scores are softmax(mean of each channel / 16), as those of `colours`; a model of more classes
repeats them, made smaller.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fingerpost.registry import WorkerState
from fingerpost.registry.http.app import bind, serve
from fingerpost.security.audit.audit_log import AuditLog
from fingerpost.security.leases.verifier import LeaseVerifier
from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.config import WorkerConfig
from fingerpost.worker.engine.engine import Engine
from fingerpost.worker.images import ImageConfig
from fingerpost.worker.repository.manager import ServedVersion
from fingerpost.worker.service import WorkerService
from fingerpost.worker.serving.lease_gate import LeaseGate
from fingerpost.worker.telemetry.access_log import AccessLog
from fingerpost.worker.telemetry.metrics import WorkerMetrics
from fingerpost.worker.telemetry.observer import Observer
from fingerpost.worker.uds_transport import unix_socket
from fingerpost.worker.zmq_config import ZmqConfig
from tests.support.colours import LABELS, SIDE
from tests.support.single_model import SingleModel


class ColourBackend:
    """A model of 16 x 16 pixels; `gate` holds it up while cleared, `broken` makes it raise."""

    framework = "python 3"
    platform = "python"
    device = "cpu"
    input = ImageInput(height=SIDE, width=SIDE, channels=3)

    def __init__(self, classes: int = 3) -> None:
        self.classes = classes
        self.gate = threading.Event()
        self.gate.set()
        self.broken = False
        self.seen = 0

    def predict(self, images: Sequence[Any]) -> np.ndarray:
        assert self.gate.wait(30)
        if self.broken:
            raise RuntimeError("out of order")
        self.seen += len(images)
        batch = np.stack([np.asarray(image, np.float32) for image in images])
        logits = batch.mean((1, 2)) / 16
        logits = np.concatenate(
            [logits, np.full((len(images), self.classes - 3), -20, np.float32)], axis=1
        )
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)

    def close(self) -> None:
        pass


@dataclass
class Rig:
    url: str
    port: int
    service: WorkerService
    backend: ColourBackend
    engine: Engine
    grpc_port: int = 0
    zmq_port: int = 0

    @property
    def rif(self) -> int:
        return self.service.admission.rif


@contextlib.asynccontextmanager
async def serving(
    *,
    classes: int = 3,
    labels: tuple[str, ...] | None = None,
    leases: LeaseVerifier | None = None,
    access_log: Callable[[WorkerMetrics], AccessLog] | None = None,
    audit: AuditLog | None = None,
    grpc: bool = False,
    zmq: bool | ZmqConfig = False,
    uds: str | None = None,
    **settings: Any,
) -> AsyncIterator[Rig]:
    """Serve model `colours`, version 7; over gRPC, ZeroMQ or a Unix socket too, where wanted."""
    settings = {"images": ImageConfig(max_bytes=200_000), **settings}
    if zmq:
        settings["zmq"] = ZmqConfig(port=0) if zmq is True else zmq
    config = WorkerConfig(registry="http://127.0.0.1:9", **settings)
    metrics, backend = WorkerMetrics(), ColourBackend(classes)
    observer = Observer(metrics, access_log=access_log(metrics)) if access_log else None
    engine = Engine(
        backend,
        images=config.images,
        metrics=metrics,
        batching=config.batching,
        decode_threads=2,
        model="colours",
    )
    if labels is None:
        labels = LABELS + tuple(f"colour-number-{n}" for n in range(3, classes))
    manager = SingleModel(ServedVersion(model="colours", version="7", labels=labels, engine=engine))
    service = WorkerService(
        manager,
        boot_id=1,
        config=config,
        metrics=metrics,
        observer=observer,
        leases=None if leases is None else LeaseGate(leases, metrics.lease_refused, audit),
    )
    runner = service.runner()
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    await runner.setup()
    await serve(runner, listener)
    service.admission.state = WorkerState.READY
    async with contextlib.AsyncExitStack() as stack:
        if observer is not None:
            stack.push_async_callback(observer.aclose)
        stack.push_async_callback(engine.aclose)
        stack.push_async_callback(runner.cleanup)
        grpc_port = 0
        if grpc:
            from fingerpost.worker.grpc.server import GrpcServer

            server = GrpcServer(service.context, config, metrics, service.shared)
            stack.push_async_callback(server.aclose)
            grpc_port = await server.start("127.0.0.1", 0)
        zmq_port = 0
        if zmq:
            from fingerpost.worker.zmq.server import ZmqServer

            zmq_server = ZmqServer(service.context, config, metrics, service.shared)
            stack.push_async_callback(zmq_server.aclose)
            zmq_port = await zmq_server.start("127.0.0.1", 0)
        await stack.enter_async_context(unix_socket(runner, service.frames, uds, None))
        stack.callback(backend.gate.set)
        yield Rig(f"http://127.0.0.1:{port}", port, service, backend, engine, grpc_port, zmq_port)


def float_pixels(colour: str) -> np.ndarray:
    """What the model takes for a plain image."""
    from tests.support.colours import RGB

    return np.full((SIDE, SIDE, 3), RGB[colour], np.float32)
