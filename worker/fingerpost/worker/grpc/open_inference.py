"""The Open Inference Protocol over gRPC: inference.

The forms of an input are those of HTTP, see `protocols.v2.routes`: its data are in
`raw_input_contents`, or in the typed fields of `contents`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, Final

from fingerpost.errors import InvalidRequest
from fingerpost.worker.grpc.calls import reference_of
from fingerpost.worker.grpc.infer_message import InferMessages
from fingerpost.worker.grpc.schema.messages import message_class
from fingerpost.worker.grpc.tensors import TensorRunner, check_shape, read_list
from fingerpost.worker.protocols.tensors import each_row, tensor
from fingerpost.worker.protocols.v2.binary import (
    DTYPES,
    MAX_NAME,
    class_texts,
    image_count,
    pack_texts,
    strings,
)
from fingerpost.worker.tasks.answer import tensor_entry
from fingerpost.worker.tasks.engine import TaskEngine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from fingerpost.registry import ModelReference
    from fingerpost.registry.grpc.call_head import CallHead
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.grpc.infer_message import InferMessage, PlainForm
    from fingerpost.worker.grpc.shared_memory import GrpcSharedMemory
    from fingerpost.worker.grpc.tensors import Tensor
    from fingerpost.worker.protocols.v2.shared_memory import OutputRegions
    from fingerpost.worker.repository.manager import ModelManager
    from fingerpost.worker.serving.routes import Admitted
    from fingerpost.worker.serving.turns import Turns

__all__ = ["OpenInference"]

_MAX_OUTPUTS: Final = 16
_FIELDS: Final = {
    "BOOL": "bool_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
}


class OpenInference:
    """Answers `ModelInferRequest`s."""

    def __init__(
        self,
        manager: ModelManager,
        runner: TensorRunner,
        config: WorkerConfig,
        turns: Turns,
        shared: GrpcSharedMemory,
    ) -> None:
        self._manager = manager
        self._runner = runner
        self._config = config
        self._turns = turns
        self._shared = shared
        self._response = message_class("inference.ModelInferResponse")
        self._messages = InferMessages()

    def decode(self, data: bytes) -> InferMessage:
        """The message of a request. Raises `InvalidRequest` where it is not a valid one."""
        return self._messages.decode(data)

    def model(self, message: InferMessage) -> ModelReference:
        """The model that a request is for."""
        request, form = message.request, message.form
        if form is not None and form.reference is not None:
            return form.reference
        found = reference_of(request.model_name, request.model_version, self._manager)
        if form is not None and request.model_name:  # else the default one, which may change
            form.reference = found
        return found

    async def answer(self, message: InferMessage, admitted: Admitted, head: CallHead) -> Any:
        """The `ModelInferResponse` to a request, as a message or as its bytes."""
        request, form = message.request, message.form
        if form is not None and not isinstance(admitted.served.engine, TaskEngine):
            return await self._classify(form, message.raw[0], admitted)
        if len(request.id) > MAX_NAME:
            raise InvalidRequest(f"the id has more than {MAX_NAME} characters")
        if len(request.outputs) > _MAX_OUTPUTS:
            raise InvalidRequest(f"the request asks for more than {_MAX_OUTPUTS} outputs")
        with self._shared.outputs(request, head) as places:
            shared = await self._shared.inputs(request, head, admitted)
            inputs = await self._inputs(request, message.raw, shared)
            return await self._run(request, admitted, inputs, places)

    async def _classify(self, form: PlainForm, data: memoryview, admitted: Admitted) -> bytes:
        what = f"input {form.name[:MAX_NAME]!r}"
        count = image_count(form.shape, what, most=self._config.batching.max_queue)
        images = {form.name: strings(data, count, what)}
        outputs = await self._runner.run(admitted, images, deadline=admitted.deadline)
        return form.answer(admitted.served, outputs["scores"])

    async def _run(
        self, request: Any, admitted: Admitted, inputs: dict[str, Tensor], places: OutputRegions
    ) -> Any:
        deadline = admitted.deadline
        timeout_us = request.parameters["timeout"].int64_param if request.parameters else 0
        if timeout_us > 0:  # microseconds, as Triton's
            now = asyncio.get_running_loop().time()
            deadline = min(deadline, now + timeout_us / 1e6)
        outputs = await self._runner.run(admitted, inputs, deadline=deadline)
        served = admitted.served
        response = self._response(
            model_name=served.model, model_version=served.version, id=request.id
        )
        if isinstance(served.engine, TaskEngine):
            wanted = [each.name for each in request.outputs] or list(outputs)
            for number, name in enumerate(wanted):
                await _add(response, name, _named(outputs, name), number, places)
        else:
            for number, output in enumerate(request.outputs or [None]):
                await self._add_scores(
                    response, output, outputs["scores"], admitted, number, places
                )
        return response

    async def _add_scores(
        self,
        response: Any,
        output: Any,
        scores: NDArray[Any],
        admitted: Admitted,
        number: int,
        places: OutputRegions,
    ) -> None:
        """The scores under the name that was asked for, or the best labels in Triton's form."""
        if output is None:
            await _add(response, "scores", scores, number, places)
            return
        count = output.parameters["classification"].int64_param if output.parameters else 0
        if count < 0:
            raise InvalidRequest(f"classification {count}: give the number of labels")
        if not count:
            await _add(response, output.name[:MAX_NAME], scores, number, places)
            return
        labels = admitted.served.labels
        top = min(count, len(labels))
        rows = await each_row(
            scores, partial(class_texts, labels=labels, top=top), top, self._turns
        )
        shape = [len(rows), len(rows[0])]
        response.outputs.add(name=output.name[:MAX_NAME], datatype="BYTES", shape=shape)
        response.raw_output_contents.append(pack_texts([text for row in rows for text in row]))

    async def _inputs(
        self, request: Any, raw: list[memoryview], shared: Mapping[int, memoryview]
    ) -> dict[str, Tensor]:
        """The inputs, of which those with the numbers in `shared` are in regions."""
        count = len(request.inputs) - len(shared)
        if raw and len(raw) != count:
            where = " outside shared memory" if shared else ""
            raise InvalidRequest(
                f"the request has {count} inputs{where}, but {len(raw)} raw_input_contents: "
                "give one for each, in their order"
            )
        left = iter(raw)
        inputs: dict[str, Tensor] = {}
        for number, wanted in enumerate(request.inputs):
            what = f"input {wanted.name[:MAX_NAME]!r}"
            if wanted.name in inputs:
                raise InvalidRequest(f"{what} is there twice")
            shape = check_shape(wanted.shape, what)
            data = shared.get(number)
            if data is None and raw:
                data = next(left)
            if data is not None and wanted.HasField("contents"):
                raise InvalidRequest(
                    f"{what} has both contents and raw_input_contents or a region of shared "
                    "memory: send one"
                )
            if wanted.datatype == "BYTES":
                inputs[wanted.name] = self._images(wanted, shape, data, what)
            else:
                inputs[wanted.name] = await self._numbers(wanted, shape, data, what)
        return inputs

    def _images(self, wanted: Any, shape: list[int], data: memoryview | None, what: str) -> Tensor:
        count = image_count(shape, what, most=self._config.batching.max_queue)
        if data is not None:
            return strings(data, count, what)
        found = list(wanted.contents.bytes_contents)
        if len(found) != count:
            raise InvalidRequest(f"{what} has shape {shape}, but {len(found):,} bytes_contents")
        return found

    async def _numbers(
        self, wanted: Any, shape: list[int], data: memoryview | None, what: str
    ) -> NDArray[Any]:
        dtype = DTYPES.get(wanted.datatype)
        if dtype is None:
            raise InvalidRequest(
                f"{what} is {wanted.datatype[:20]!r}: use BYTES for encoded images, UINT8 for "
                f"pixels, or one of {', '.join(DTYPES)}"
            )
        if data is not None:
            return tensor(data, dtype, shape, what)
        field = _FIELDS.get(wanted.datatype)
        if field is None:
            raise InvalidRequest(f"{what} is {wanted.datatype}: send it in raw_input_contents")
        values = getattr(wanted.contents, field)
        if len(values) != prod(shape):
            raise InvalidRequest(
                f"{what} has {len(values):,} numbers in {field}, but its shape is {shape}"
            )
        return (await read_list(values, dtype, what, self._turns)).reshape(shape)


def _named(outputs: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    value = outputs.get(name)
    if value is None:
        raise InvalidRequest(
            f"the model has no output {name[:MAX_NAME]!r}; it has {', '.join(outputs)}"
        )
    return value


async def _add(
    response: Any, name: str, value: NDArray[Any], number: int, places: OutputRegions
) -> None:
    """Add an output; clients count its raw contents also where a region has them."""
    entry, blob = tensor_entry(name, value)
    added = response.outputs.add(**entry)
    if places.named(number):
        for key, placed in (await places.write(number, blob)).items():
            kind = "string_param" if isinstance(placed, str) else "int64_param"
            setattr(added.parameters[key], kind, placed)
        blob = b""
    response.raw_output_contents.append(blob)
