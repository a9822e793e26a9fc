"""The gRPC port of a worker, of which nothing is imported where there is none."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.protocols.admin_access import AdminAccess
    from fingerpost.worker.repository.control import ModelControl
    from fingerpost.worker.service import WorkerService
    from fingerpost.worker.telemetry.metrics import WorkerMetrics

__all__ = ["grpc_ports"]


@asynccontextmanager
async def grpc_ports(
    service: WorkerService,
    config: WorkerConfig,
    metrics: WorkerMetrics,
    control: ModelControl,
    access: AdminAccess | None,
) -> AsyncIterator[dict[str, int]]:
    """Serve gRPC inside the `async with` block, and return its port as `Instance.ports` has it.

    Nothing where the settings name no port for it.

    Args:
        control: loads and unloads models for those whom `access` lets.
        access: None where nobody may.

    Raises:
        ConfigurationError: the extra `grpc` is not installed, the port is in use, or a TLS file is
            not valid.
    """
    if config.grpc_port is None:
        yield {}
        return
    try:
        from fingerpost.worker.grpc.model_control import GrpcModelControl
        from fingerpost.worker.grpc.server import GrpcServer
    except ImportError as error:
        raise ConfigurationError(
            f"--grpc-port needs gRPC ({error}): pip install 'fingerpost[grpc]'"
        ) from error
    server = GrpcServer(service.context, config, metrics, GrpcModelControl(control, access))
    try:
        yield {"grpc": await server.start(config.host, config.grpc_port)}
    finally:
        await server.aclose()
