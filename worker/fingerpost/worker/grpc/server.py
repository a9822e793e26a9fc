"""The gRPC server of a worker."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc.aio import server as make_server
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from fingerpost.errors import ConfigurationError
from fingerpost.registry import WorkerState
from fingerpost.registry.grpc.credentials import server_credentials
from fingerpost.registry.http.descriptors import descriptor_limit
from fingerpost.registry.instance import format_address
from fingerpost.worker.grpc.calls import Calls
from fingerpost.worker.grpc.infer_message import INFER_REQUEST
from fingerpost.worker.grpc.model_control import GrpcModelControl
from fingerpost.worker.grpc.open_inference import OpenInference
from fingerpost.worker.grpc.open_inference_info import OpenInferenceInfo
from fingerpost.worker.grpc.orca import OrcaReports
from fingerpost.worker.grpc.reflected_pool import ReflectedPool
from fingerpost.worker.grpc.schema.decode import decode_message
from fingerpost.worker.grpc.schema.messages import pool, service
from fingerpost.worker.grpc.shared_memory import GrpcSharedMemory
from fingerpost.worker.grpc.stream import StreamHandler
from fingerpost.worker.grpc.tensorflow_serving import TensorFlowServing
from fingerpost.worker.grpc.tensors import TensorRunner
from fingerpost.worker.serving.turns import Turns

if TYPE_CHECKING:
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.grpc.calls import Simple
    from fingerpost.worker.protocols.v2.shared_memory import SharedMemory
    from fingerpost.worker.serving.routes import RouteContext
    from fingerpost.worker.telemetry.metrics import WorkerMetrics

__all__ = ["GrpcServer"]

# Beside the tensors: names, shapes, and the lengths of the parts.
_SLACK_BYTES: Final = 1 << 16
# HTTP may have three quarters of a process's descriptors for its connections, and gRPC an eighth.
_DESCRIPTORS: Final = 8
_METADATA_BYTES: Final = 1 << 14
_HTTP2_STREAMS: Final = 1024
# Of a connection without a sign of life, in seconds.
_KEEPALIVE_S: Final = 60
_MOST_OFTEN_PINGED_S: Final = 5


class GrpcServer:
    """Serves the models of a worker over gRPC; it has no state beside that of the HTTP server.

    Args:
        context: what all protocols of the worker share.
        config: the worker's settings.
        metrics: the worker's metrics.
        shared: regions of shared memory that stand for bytes.
        control: loads and unloads models; by default nobody may.
    """

    def __init__(
        self,
        context: RouteContext,
        config: WorkerConfig,
        metrics: WorkerMetrics,
        shared: SharedMemory,
        control: GrpcModelControl | None = None,
    ) -> None:
        self._config = config
        self._orca = OrcaReports(context.load, lambda: metrics.images)
        self._calls = Calls(context, config.requests, self._orca, metrics.grpc_calls)
        self._server = make_server(options=self._options())
        aio: Any = vars(health)["aio"]  # its type stubs have it not
        self._health = aio.HealthServicer()
        self._admission = context.admission
        self._showing: asyncio.Future[None] | None = None
        turns = Turns()
        runner = TensorRunner(config, metrics)
        manager = context.manager
        self._names: list[str] = []
        regions = GrpcSharedMemory(shared)
        self._add_open_inference(
            OpenInference(manager, runner, config, turns, regions),
            OpenInferenceInfo(manager, context.admission, config, metrics),
            control or GrpcModelControl(None, None),
            regions,
        )
        self._add_tensorflow(TensorFlowServing(manager, runner, config, turns))
        self._add_orca()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflected: Any = ReflectedPool(pool())  # a pool for all that reflection does
        reflection.enable_server_reflection(names, self._server, pool=reflected)

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port.

        Raises:
            ConfigurationError: it is in use, or the address is not one of this machine.
        """
        address = format_address(host, port)
        try:
            if self._config.tls is None:
                bound = self._server.add_insecure_port(address)
            else:
                credentials = server_credentials(self._config.tls)
                bound = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise ConfigurationError(
                f"cannot listen on {address} for gRPC: give another port (--grpc-port), or 0 for a "
                "free one"
            ) from error
        await self._server.start()
        await self._show_state()
        self._admission.follow_state(self._state_changed)
        return int(bound)

    def _state_changed(self) -> None:
        self._showing = asyncio.ensure_future(self._show_state())

    async def _show_state(self) -> None:
        """Say in the health service whether the worker takes requests."""
        ready = self._admission.state is WorkerState.READY
        statuses = health_pb2.HealthCheckResponse.ServingStatus
        for name in ("", *self._names):
            await self._health.set(name, statuses.SERVING if ready else statuses.NOT_SERVING)

    async def aclose(self) -> None:
        """Stop at once; requests in flight are not awaited."""
        if self._showing is not None:
            await self._showing
        await self._server.stop(None)

    def _options(self) -> list[tuple[str, int]]:
        config, connections = self._config, self._config.connections
        options = {
            "grpc.so_reuseport": 0,
            "grpc.max_receive_message_length": config.requests.max_bytes + _SLACK_BYTES,
            "grpc.max_send_message_length": -1,
            "grpc.max_metadata_size": _METADATA_BYTES,
            "grpc.max_concurrent_streams": _HTTP2_STREAMS,
            # Uncompressed messages only, of which small ones could grow to any size.
            "grpc.compression_enabled_algorithms_bitset": 1,
            "grpc.max_allowed_incoming_connections": connections.max_connections
            or max(16, descriptor_limit() // _DESCRIPTORS),
            "grpc.server_handshake_timeout_ms": int(connections.headers_timeout_s * 1000),
            "grpc.max_connection_idle_ms": int(connections.idle_timeout_s * 1000),
            "grpc.keepalive_time_ms": _KEEPALIVE_S * 1000,
            "grpc.keepalive_permit_without_calls": 1,
            "grpc.http2.min_ping_interval_without_data_ms": _MOST_OFTEN_PINGED_S * 1000,
        }
        return list(options.items())

    def _add(self, name: str, methods: dict[str, Any]) -> None:
        """Serve the methods of a service; all others of it are answered with UNIMPLEMENTED."""
        self._names.append(name)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(name, methods),)
        )

    def _simple(self, name: str, works: dict[str, Simple]) -> dict[str, Any]:
        """Handlers of the methods of a service that are for no model."""
        inputs = service(name).methods_by_name
        return {
            method: self._calls.simple(
                f"/{name}/{method}", inputs[method].input_type.full_name, work
            )
            for method, work in works.items()
        }

    def _add_open_inference(
        self,
        inference: OpenInference,
        info: OpenInferenceInfo,
        control: GrpcModelControl,
        regions: GrpcSharedMemory,
    ) -> None:
        name = "inference.GRPCInferenceService"
        methods = self._simple(
            name,
            {
                "ServerLive": info.server_live,
                "ServerReady": info.server_ready,
                "ModelReady": info.model_ready,
                "ServerMetadata": info.server_metadata,
                "ModelMetadata": info.model_metadata,
                "ModelConfig": info.model_config,
                "ModelStatistics": info.statistics,
                "RepositoryIndex": info.index,
                "RepositoryModelLoad": control.load,
                "RepositoryModelUnload": control.unload,
                "SystemSharedMemoryStatus": regions.status,
                "SystemSharedMemoryRegister": regions.register,
                "SystemSharedMemoryUnregister": regions.unregister,
            },
        )
        methods["ModelInfer"] = self._calls.inference(
            f"/{name}/ModelInfer", inference.decode, inference.model, inference.answer
        )
        methods["ModelStreamInfer"] = StreamHandler(
            self._calls,
            self._admission,
            path=f"/{name}/ModelStreamInfer",
            name=INFER_REQUEST,
            decode=inference.decode,
            model=inference.model,
            answer=inference.answer,
            window=self._config.streams.window,
            max_streams=self._config.requests.max_in_flight,
            idle_timeout_s=self._config.streams.idle_timeout_s,
        ).handler()
        self._add(name, methods)

    def _add_tensorflow(self, serving: TensorFlowServing) -> None:
        package = "tensorflow.serving"
        name = f"{package}.PredictionService"
        methods = self._simple(name, {"GetModelMetadata": serving.metadata})
        for method, request, answer in (
            ("Predict", "PredictRequest", serving.predict),
            ("Classify", "ClassificationRequest", serving.classify),
        ):
            methods[method] = self._calls.inference(
                f"/{name}/{method}",
                partial(decode_message, f"{package}.{request}"),
                serving.model,
                answer,
            )
        self._add(name, methods)
        name = f"{package}.ModelService"
        self._add(name, self._simple(name, {"GetModelStatus": serving.status}))

    def _add_orca(self) -> None:
        """Load reports out of band, for as long as a client listens; they end with the drain."""
        orca, admission = self._orca, self._admission

        async def stream(data: bytes, context: Any) -> None:
            request = decode_message("xds.service.orca.v3.OrcaLoadReportRequest", data)
            pause_s = orca.interval_s(request)
            while admission.refusal is None:
                await context.write(orca.report())
                await asyncio.sleep(pause_s)

        handler = grpc.unary_stream_rpc_method_handler(stream)
        self._add("xds.service.orca.v3.OpenRcaService", {"StreamCoreMetrics": handler})
