"""TensorFlow Serving over gRPC: predict, classify, metadata and status."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.json_format import ParseDict

from fingerpost.errors import InvalidRequest, UnknownModel
from fingerpost.registry import ModelReference
from fingerpost.worker.engine.outcome import top_labels
from fingerpost.worker.grpc.calls import reference_of
from fingerpost.worker.grpc.schema.messages import message_class
from fingerpost.worker.grpc.tensor_proto import read_tensor_proto, write_tensor_proto
from fingerpost.worker.models.status import VersionState
from fingerpost.worker.models.tasks import Task
from fingerpost.worker.protocols.classify import wrong_task
from fingerpost.worker.protocols.tensors import each_row
from fingerpost.worker.protocols.tfserving import tensor_infos
from fingerpost.worker.protocols.v2.binary import MAX_INPUTS, MAX_NAME

if TYPE_CHECKING:
    from fingerpost.registry.grpc.call_head import CallHead
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.grpc.tensors import Tensor, TensorRunner
    from fingerpost.worker.repository.manager import ModelManager, ServedVersion
    from fingerpost.worker.serving.routes import Admitted
    from fingerpost.worker.serving.turns import Turns

__all__ = ["TensorFlowServing"]

_SIGNATURE: Final = "serving_default"
_METADATA: Final = "signature_def"
# gRPC's codes, which TensorFlow's `error.Code` has too.
_OK, _UNKNOWN = 0, 2


class TensorFlowServing:
    """Answers the requests of `PredictionService` and `ModelService`."""

    def __init__(
        self, manager: ModelManager, runner: TensorRunner, config: WorkerConfig, turns: Turns
    ) -> None:
        self._manager = manager
        self._runner = runner
        self._config = config
        self._turns = turns

    def model(self, request: Any) -> ModelReference:
        """The model that a request is for."""
        return self._reference(request.model_spec)

    async def predict(self, request: Any, admitted: Admitted, head: CallHead) -> Any:
        """Every output of the model, or those of the filter."""
        served = admitted.served
        _check_signature(request.model_spec.signature_name, served)
        if len(request.inputs) > MAX_INPUTS:
            raise InvalidRequest(f"the request has more than {MAX_INPUTS} inputs")
        inputs: dict[str, Tensor] = {}
        for name in request.inputs:
            what = f"input {name[:MAX_NAME]!r}"
            inputs[name], _ = await read_tensor_proto(
                request.inputs[name],
                what,
                self._turns,
                max_images=self._config.batching.max_queue,
            )
        outputs = await self._runner.run(admitted, inputs, deadline=admitted.deadline)
        response = message_class("tensorflow.serving.PredictResponse")()
        for name in request.output_filter or outputs:
            if name not in outputs:
                raise InvalidRequest(
                    f"the model has no output {name[:MAX_NAME]!r}; it has {', '.join(outputs)}"
                )
            written = await write_tensor_proto(outputs[name], self._turns)
            response.outputs[name].CopyFrom(written)
        _fill(response.model_spec, served)
        return response

    async def classify(self, request: Any, admitted: Admitted, head: CallHead) -> Any:
        """All labels of each example, whose one feature is an encoded image, best first."""
        served = admitted.served
        if served.task not in (Task.CLASSIFICATION, Task.MULTILABEL):
            raise wrong_task(served)
        _check_signature(request.model_spec.signature_name, served)
        kind = request.input.WhichOneof("kind") or "example_list"
        examples = getattr(request.input, kind).examples
        images = [_image(each, f"example {number}") for number, each in enumerate(examples)]
        most = self._config.batching.max_queue
        if len(images) > most:
            raise InvalidRequest(f"{len(images):,} examples: send {most} at a time at most")
        outputs = await self._runner.run(admitted, {"examples": images}, deadline=admitted.deadline)
        response = message_class("tensorflow.serving.ClassificationResponse")()
        labels = served.labels
        rows = await each_row(
            outputs["scores"], partial(top_labels, labels=labels, top=0), len(labels), self._turns
        )
        for row in rows:
            classes = response.result.classifications.add().classes
            for label, score in row:
                classes.add(label=label, score=score)
        _fill(response.model_spec, served)
        return response

    async def metadata(self, request: Any, head: CallHead) -> Any:
        """The signature of a model: the names, types and shapes of its inputs and outputs."""
        unknown = set(request.metadata_field) - {_METADATA}
        if unknown or not request.metadata_field:
            raise InvalidRequest(f"metadata_field: ask for {_METADATA}")
        response = message_class("tensorflow.serving.GetModelMetadataResponse")()
        with self._manager.acquire(self._reference(request.model_spec)) as served:
            inputs, outputs = tensor_infos(served)
            signature = {
                "inputs": inputs,
                "outputs": outputs,
                "method_name": "tensorflow/serving/predict",
            }
            name = served.engine.signature or _SIGNATURE
            found = message_class("tensorflow.serving.SignatureDefMap")()
            ParseDict({_METADATA: {name: signature}}, found, ignore_unknown_fields=True)
            response.metadata[_METADATA].Pack(found)
            _fill(response.model_spec, served)
            response.model_spec.signature_name = ""
        return response

    async def status(self, request: Any, head: CallHead) -> Any:
        """The states of the versions of a model."""
        reference = self._reference(request.model_spec)
        version = reference.version
        if reference.alias is not None:
            with self._manager.acquire(reference) as served:
                version = served.version
        response = message_class("tensorflow.serving.GetModelStatusResponse")()
        for each in self._manager.statuses(reference.model):
            if version not in (None, each.version):
                continue
            failed = each.state is VersionState.END and each.error
            found = response.model_version_status.add(
                version=int(each.version), state=each.state.value
            )
            found.status.error_code = _UNKNOWN if failed else _OK
            found.status.error_message = each.error
        if not response.model_version_status:
            raise UnknownModel(f"{str(reference)!r} is not known here")
        return response

    def _reference(self, spec: Any) -> ModelReference:
        kind = spec.WhichOneof("version_choice")
        if kind == "version_label":
            return ModelReference.parse(
                f"{spec.name or self._manager.default}@{spec.version_label}"
            )
        version = str(spec.version.value) if kind == "version" else ""
        return reference_of(spec.name, version, self._manager)


def _image(example: Any, what: str) -> bytes:
    features = example.features.feature
    if len(features) != 1:
        raise InvalidRequest(f"{what} has {len(features)} features: give one, an encoded image")
    (name,) = features
    values = features[name].bytes_list.value
    if len(values) != 1:
        raise InvalidRequest(f"{what}: its feature has {len(values)} bytes: give one image")
    found: bytes = values[0]
    return found


def _check_signature(name: str, served: ServedVersion) -> None:
    own = served.engine.signature or _SIGNATURE
    if name not in ("", own):
        raise InvalidRequest(
            f"signature_name {name[:100]!r} is not known: leave it out, or {own!r}"
        )


def _fill(spec: Any, served: ServedVersion) -> None:
    spec.name = served.model
    spec.version.value = int(served.version)
    spec.signature_name = served.engine.signature or _SIGNATURE
