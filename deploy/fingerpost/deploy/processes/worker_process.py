"""What `fingerpost worker` was asked to serve, and the process or processes that serve it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fingerpost.deploy.without_tls import warn_without_curve, warn_without_tls

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fingerpost.basics.service_manager import ServiceManager
    from fingerpost.worker.backends.devices import Placement
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.repository.sources import ModelSource

__all__ = ["PreparedWorker", "run_worker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedWorker:
    """The values of the options of `fingerpost worker`, checked; nothing has started.

    Attributes:
        config: the worker's settings.
        source: where its models are.
        placements: the device of each process; several processes are children of this one.
        threads: for the model; 0 is one for each core.
        insecure: whether the warning of a worker without TLS is left out.
        follow_parent: see `ShutdownSignals`.
    """

    config: WorkerConfig
    source: ModelSource
    placements: tuple[Placement, ...]
    threads: int = 0
    insecure: bool = False
    follow_parent: bool = False


def run_worker(
    prepared: PreparedWorker,
    service_manager: ServiceManager,
    *,
    prepare: Callable[[], object] | None = None,
) -> None:
    """Load the models, register them, and serve them until SIGTERM.

    Args:
        prepared: what to serve. Several processes get the arguments of this one.
        service_manager: is told of the start and the end.
        prepare: see `Worker`.

    Raises:
        ConfigurationError: it cannot run.
    """
    config = prepared.config
    placement, *others = prepared.placements
    if others:
        from fingerpost.deploy.processes.device_workers import run_device_workers

        run_device_workers(
            prepared.placements,
            _process_arguments(prepared.placements, prepared.threads),
            port=config.port,
            more_ports={"--grpc-port": config.grpc_port, "--zmq-port": config.zmq.port},
            uds=config.uds,
            grace_s=config.drain.lease_s + 40,
            follow_parent=prepared.follow_parent,
            service_manager=service_manager,
        )
        return
    os.environ.update(placement.environment())
    warn_without_tls("worker", config.host, config.tls, insecure=prepared.insecure)
    warn_without_curve(config.host, config.zmq, insecure=prepared.insecure)
    from fingerpost.registry.http.descriptors import raise_descriptor_limit
    from fingerpost.worker.eventloop import run_main
    from fingerpost.worker.tasks.loading import load_model
    from fingerpost.worker.worker import Worker

    loading = placement.load_config(prepared.threads)
    serving = Worker(
        prepared.source, lambda files: load_model(files, loading), config, prepare=prepare
    )
    raise_descriptor_limit()
    run_main(
        serving.run_until_signal(
            follow_parent=prepared.follow_parent, service_manager=service_manager
        )
    )


def _process_arguments(chosen: Sequence[Placement], threads: int) -> list[str]:
    """The arguments of this command; processes on the CPU get an equal share of its cores."""
    arguments = sys.argv[sys.argv.index("worker") + 1 :]
    if not threads and chosen[0].gpu is None:
        arguments += ["--threads", str(max(1, (os.cpu_count() or 1) // len(chosen)))]
    return arguments
