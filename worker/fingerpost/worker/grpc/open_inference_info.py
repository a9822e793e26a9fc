"""The Open Inference Protocol over gRPC: health, metadata, statistics and the index of models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fingerpost.errors import UnknownModel
from fingerpost.registry import WorkerState
from fingerpost.registry.version import __version__
from fingerpost.worker.grpc.calls import reference_of
from fingerpost.worker.grpc.schema.messages import message_class
from fingerpost.worker.protocols.v2.metadata import STATES, config_entries, model_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fingerpost.registry import ModelReference
    from fingerpost.registry.grpc.call_head import CallHead
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.repository.manager import ModelManager
    from fingerpost.worker.serving.admission import Admission
    from fingerpost.worker.telemetry.metrics import UnlockedHistogram, WorkerMetrics

__all__ = ["OpenInferenceInfo"]

_EXTENSIONS: Final = ("classification", "model_configuration", "statistics")
_NS: Final = 1e9


class OpenInferenceInfo:
    """Answers what is asked of the server and of its models; each method takes a request."""

    def __init__(
        self,
        manager: ModelManager,
        admission: Admission,
        config: WorkerConfig,
        metrics: WorkerMetrics,
    ) -> None:
        self._manager = manager
        self._admission = admission
        self._config = config
        self._metrics = metrics

    async def server_live(self, _: Any, head: CallHead) -> Any:
        """Live: the process answers."""
        return _message("ServerLiveResponse", live=True)

    async def server_ready(self, _: Any, head: CallHead) -> Any:
        """Ready: loaded, warmed up, registered and not draining."""
        return _message("ServerReadyResponse", ready=self._admission.state is WorkerState.READY)

    async def model_ready(self, request: Any, head: CallHead) -> Any:
        """Whether a model is served; one that is not known is not ready."""
        try:
            with self._manager.acquire(self._reference(request)):
                return _message("ModelReadyResponse", ready=True)
        except UnknownModel:
            return _message("ModelReadyResponse", ready=False)

    async def server_metadata(self, _: Any, head: CallHead) -> Any:
        """Name, version and extensions."""
        admin = self._config.has_admin_api
        repository = "model_repository" if admin else "model_repository(index)"
        return _message(
            "ServerMetadataResponse",
            name="fingerpost",
            version=__version__,
            extensions=[
                *_EXTENSIONS,
                repository,
                *(["system_shared_memory"] if self._config.shared_memory else []),
            ],
        )

    async def model_metadata(self, request: Any, head: CallHead) -> Any:
        """The inputs and outputs of a model, and its versions."""
        with self._manager.acquire(self._reference(request)) as served:
            inputs, outputs = model_tensors(served)
            return _message(
                "ModelMetadataResponse",
                name=served.model,
                versions=list(self._versions(served.model)),
                platform=served.engine.platform,
                inputs=inputs,
                outputs=outputs,
            )

    async def model_config(self, request: Any, head: CallHead) -> Any:
        """What applies here of Triton's model configuration."""
        with self._manager.acquire(self._reference(request)) as served:
            batched, inputs, outputs = config_entries(served)
            response = _message("ModelConfigResponse")
            config = response.config
            config.name, config.platform = served.model, served.engine.platform
            config.backend = served.engine.platform.partition("_")[0]
            config.max_batch_size = self._config.batching.max_batch if batched else 0
            for entry in inputs:
                config.input.add(**entry)
            for entry in outputs:
                config.output.add(**entry)
            return response

    async def statistics(self, request: Any, head: CallHead) -> Any:
        """What a model has done since the start, all of its versions together.

        Of the requests that succeeded Triton has the time alone; here it is that of all requests.
        """
        names: Iterable[str] = self._manager.model_names()
        version = ""
        if request.name or request.version:
            with self._manager.acquire(self._reference(request)) as served:
                names, version = [served.model], served.version
        response = _message("ModelStatisticsResponse")
        for name in names:
            metrics = self._metrics.of(name)
            found = response.model_stats.add(
                name=name,
                version=version or next(iter(self._versions(name)), ""),
                inference_count=metrics.images.value,
                execution_count=sum(metrics.inference_seconds.counts),
            )
            stats = found.inference_stats
            counts = {status: each.value for status, each in metrics.by_status.items()}
            stats.success.count = counts.pop(200, 0)
            stats.success.ns = int(metrics.total_seconds.sum * _NS)
            stats.fail.count = sum(counts.values())
            _fill(stats.queue, metrics.queue_seconds)
            _fill(stats.compute_input, metrics.decode_seconds)
            _fill(stats.compute_infer, metrics.inference_seconds)
        return response

    async def index(self, request: Any, head: CallHead) -> Any:
        """The state of every version of every model."""
        response = _message("RepositoryIndexResponse")
        for model in self._manager.model_names():
            for status in self._manager.statuses(model):
                state = STATES[status.state]
                if state == "READY" or not request.ready:
                    response.models.add(
                        name=model, version=status.version, state=state, reason=status.error
                    )
        return response

    def _reference(self, request: Any) -> ModelReference:
        return reference_of(request.name, request.version, self._manager)

    def _versions(self, model: str) -> Iterable[str]:
        return (
            version
            for info in self._manager.models()
            if info.name == model
            for version in info.versions
        )


def _message(name: str, /, **fields: Any) -> Any:
    return message_class(f"inference.{name}")(**fields)


def _fill(duration: Any, histogram: UnlockedHistogram) -> None:
    duration.count = sum(histogram.counts)
    duration.ns = int(histogram.sum * _NS)
