"""The Open Inference Protocol's health and metadata, and Triton's configuration and index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fingerpost.errors import UnknownPath
from fingerpost.registry import WorkerState
from fingerpost.registry.http.app import json_response
from fingerpost.registry.version import __version__
from fingerpost.worker.models.status import VersionState
from fingerpost.worker.serving.errors import message_error
from fingerpost.worker.serving.reference import model_reference
from fingerpost.worker.serving.routes import ProtocolRoutes
from fingerpost.worker.tasks.answer import datatype_of
from fingerpost.worker.tasks.engine import TaskEngine

if TYPE_CHECKING:
    from aiohttp import web

    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.repository.manager import ModelManager, ServedVersion
    from fingerpost.worker.serving.admission import Admission
    from fingerpost.worker.serving.routes import RouteContext

__all__ = ["STATES", "OpenInferenceMetadata", "config_entries", "model_tensors"]

# Triton's names of the states of a version.
STATES: Final = {
    VersionState.START: "LOADING",
    VersionState.LOADING: "LOADING",
    VersionState.AVAILABLE: "READY",
    VersionState.UNLOADING: "UNLOADING",
    VersionState.END: "UNAVAILABLE",
}


class OpenInferenceMetadata:
    """Health, metadata and the index; `add_to` makes the routes."""

    def __init__(self, manager: ModelManager, admission: Admission, config: WorkerConfig) -> None:
        self._manager = manager
        self._admission = admission
        self._config = config

    def add_to(self, context: RouteContext) -> None:
        """Add the routes."""
        routes = ProtocolRoutes(context, "/v2", message_error)
        routes.get("/v2", self._server)
        routes.get("/v2/health/live", self._live)
        routes.get("/v2/health/ready", self._ready)
        routes.get("/v2/models/stats", self._stats)
        routes.post("/v2/repository/index", self._index)
        for chosen in ("", "/versions/{version}"):
            path = f"/v2/models/{{model}}{chosen}"
            routes.get(path, self._model)
            routes.get(f"{path}/ready", self._model_ready)
            routes.get(f"{path}/config", self._model_config)
            routes.get(f"{path}/stats", self._stats)

    async def _server(self, request: web.Request) -> web.Response:
        return json_response(
            {
                "name": "fingerpost",
                "version": __version__,
                "extensions": [
                    "binary_tensor_data",
                    "classification",
                    "model_configuration",
                    *(["system_shared_memory"] if self._config.shared_memory else []),
                    "model_repository" if self._config.has_admin_api else "model_repository(index)",
                ],
            }
        )

    async def _live(self, request: web.Request) -> web.Response:
        return json_response({"live": True})

    async def _ready(self, request: web.Request) -> web.Response:
        ready = self._admission.state is WorkerState.READY
        return json_response({"ready": ready}, status=200 if ready else 503)

    async def _model_ready(self, request: web.Request) -> web.Response:
        with self._manager.acquire(model_reference(request, self._manager)) as served:
            return json_response({"name": served.model, "ready": True})

    async def _model(self, request: web.Request) -> web.Response:
        with self._manager.acquire(model_reference(request, self._manager)) as served:
            versions = [
                known
                for info in self._manager.models()
                if info.name == served.model
                for known in info.versions
            ]
            inputs, outputs = model_tensors(served)
            return json_response(
                {
                    "name": served.model,
                    "versions": versions,
                    "platform": served.engine.platform,
                    "inputs": inputs,
                    "outputs": outputs,
                }
            )

    async def _model_config(self, request: web.Request) -> web.Response:
        """What applies here of Triton's model configuration; the batch is not in `dims`."""
        with self._manager.acquire(model_reference(request, self._manager)) as served:
            batched, inputs, outputs = config_entries(served)
            return json_response(
                {
                    "name": served.model,
                    "platform": served.engine.platform,
                    "backend": served.engine.platform.partition("_")[0],
                    "max_batch_size": self._config.batching.max_batch if batched else 0,
                    "input": inputs,
                    "output": outputs,
                }
            )

    async def _index(self, request: web.Request) -> web.Response:
        return json_response(
            [
                {
                    "name": model,
                    "version": status.version,
                    "state": STATES[status.state],
                    "reason": status.error,
                }
                for model in self._manager.model_names()
                for status in self._manager.statuses(model)
            ]
        )

    async def _stats(self, request: web.Request) -> web.Response:
        raise UnknownPath("statistics are kept as histograms: see GET /metrics")


def model_tensors(served: ServedVersion) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The inputs and the outputs: name, datatype and shape, -1 for an axis of any length."""
    if not isinstance(served.engine, TaskEngine):
        return (
            [{"name": "image", "datatype": "BYTES", "shape": [-1, 1]}],
            [{"name": "scores", "datatype": "FP32", "shape": [-1, served.width]}],
        )
    backend = served.engine.backend
    batch = [-1] if backend.inputs.batched else []
    inputs: list[dict[str, Any]] = [
        {"name": name, "datatype": "BYTES", "shape": [*batch, 1]} for name in backend.inputs.images
    ]
    for name, spec in backend.inputs.numbers.items():
        sides = [-1] if spec.shape is None else [-1 if s is None else s for s in spec.shape[1:]]
        inputs.append(
            {"name": name, "datatype": datatype_of(spec.dtype), "shape": [*batch, *sides]}
        )
    outputs = [
        {"name": name, "datatype": datatype_of(dtype), "shape": [*batch, *shape]}
        for name, (dtype, shape) in backend.outputs.items()
    ]
    return inputs, outputs


def config_entries(
    served: ServedVersion,
) -> tuple[bool, list[dict[str, Any]], list[dict[str, Any]]]:
    """Whether a model has a batch, its inputs and its outputs as Triton's configuration has them.

    The batch is not in their `dims`.
    """
    engine = served.engine
    batched = not isinstance(engine, TaskEngine) or engine.backend.inputs.batched
    inputs, outputs = (
        [_config_entry(each, batched=batched) for each in tensors]
        for tensors in model_tensors(served)
    )
    return batched, inputs, outputs


def _config_entry(tensor: dict[str, Any], *, batched: bool) -> dict[str, Any]:
    """A tensor as Triton's model configuration has it; the batch is not in `dims`."""
    kind = tensor["datatype"]
    return {
        "name": tensor["name"],
        "data_type": f"TYPE_{'STRING' if kind == 'BYTES' else kind}",
        "dims": tensor["shape"][1:] if batched else tensor["shape"],
    }
