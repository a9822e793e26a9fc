"""The ports of a worker beside HTTP; nothing is imported of those that it does not have."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from fingerpost.client.zmq.messages import KEY_META
from fingerpost.errors import ConfigurationError
from fingerpost.security.curve_keys import CurveKeys
from fingerpost.worker.serving.malloc import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.protocols.admin_access import AdminAccess
    from fingerpost.worker.repository.control import ModelControl
    from fingerpost.worker.service import WorkerService
    from fingerpost.worker.telemetry.metrics import WorkerMetrics

__all__ = ["more_ports", "transport_meta"]


@asynccontextmanager
async def more_ports(
    service: WorkerService,
    config: WorkerConfig,
    metrics: WorkerMetrics,
    control: ModelControl,
    access: AdminAccess | None,
) -> AsyncIterator[dict[str, int]]:
    """Serve what else the settings name inside the `async with` block; return `Instance.ports`.

    Args:
        control: loads and unloads models for those whom `access` lets.
        access: None where nobody may.

    Raises:
        ConfigurationError: an extra is not installed, a port is in use, or a file of keys or
            certificates is not valid.
    """
    async with AsyncExitStack() as stack:
        ports = await stack.enter_async_context(
            _grpc_ports(service, config, metrics, control, access)
        )
        ports |= await stack.enter_async_context(_zmq_ports(service, config, metrics))
        yield ports


def transport_meta(config: WorkerConfig) -> dict[str, str]:
    """What clients have to know of these ports, for `Instance.meta`.

    Raises:
        ConfigurationError: the key pair cannot be read.
    """
    if config.zmq.key is None:
        return {}
    return {KEY_META: CurveKeys.read(config.zmq.key).public.decode()}


@asynccontextmanager
async def _zmq_ports(
    service: WorkerService, config: WorkerConfig, metrics: WorkerMetrics
) -> AsyncIterator[dict[str, int]]:
    if config.zmq.port is None:
        yield {}
        return
    try:
        from fingerpost.worker.zmq.server import ZmqServer
    except ImportError as error:
        raise ConfigurationError(
            f"--zmq-port needs ZeroMQ ({error}): pip install 'fingerpost[zmq]'"
        ) from error
    keep_freed_memory()
    server = ZmqServer(service.context, config, metrics, service.shared)
    try:
        yield {"zmq": await server.start(config.host, config.zmq.port)}
    finally:
        await server.aclose()


@asynccontextmanager
async def _grpc_ports(
    service: WorkerService,
    config: WorkerConfig,
    metrics: WorkerMetrics,
    control: ModelControl,
    access: AdminAccess | None,
) -> AsyncIterator[dict[str, int]]:
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
    server = GrpcServer(
        service.context, config, metrics, service.shared, GrpcModelControl(control, access)
    )
    try:
        yield {"grpc": await server.start(config.host, config.grpc_port)}
    finally:
        await server.aclose()
