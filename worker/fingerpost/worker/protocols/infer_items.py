"""The items of a request to `POST /v1/infer/{model}`, in any of its forms.

An image raw, images as multipart; for models of several inputs, named fields of a multipart body;
JSON with `instances` (rows) or `inputs` (columns); or the binary form, which is that of the Open
Inference Protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import hdrs

from fingerpost.client.tasks.wire import HEADER_LENGTH
from fingerpost.errors import InvalidRequest
from fingerpost.worker.protocols.infer_one import BinaryItems, inputs_of
from fingerpost.worker.protocols.long_json import read_json
from fingerpost.worker.protocols.named_values import NamedValues
from fingerpost.worker.protocols.v2.reading import header_length
from fingerpost.worker.protocols.v2.tensors import items_of
from fingerpost.worker.serving.uploads import check_image_headers, check_tensor_headers
from fingerpost.worker.tasks.items import inputs_text

if TYPE_CHECKING:
    from fingerpost.registry.http.request import Request
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.protocols.v2.shared_memory import SharedMemory
    from fingerpost.worker.serving.routes import Admitted
    from fingerpost.worker.serving.turns import Turns
    from fingerpost.worker.serving.uploads import Uploads
    from fingerpost.worker.tasks.inputs import ModelInputs
    from fingerpost.worker.tasks.items import Part

    # The name in the answer, and the inputs by their names.
    InferItem = tuple[str, dict[str, Part]]

__all__ = ["InferItems"]

_ABSENT = msgspec.Raw()


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    instances: msgspec.Raw = _ABSENT
    inputs: msgspec.Raw = _ABSENT


class InferItems:
    """Reads the items of requests."""

    def __init__(
        self, config: WorkerConfig, uploads: Uploads, turns: Turns, shared: SharedMemory
    ) -> None:
        self._config = config
        self._uploads = uploads
        self._turns = turns
        self._values = NamedValues(config, turns)
        self._named = BinaryItems(config, turns, shared)

    def check(self, request: Request) -> None:
        """Check the headers of a body. Raises as `check_image_headers`, `check_tensor_headers`."""
        if header_length(request) is not None or _is_json(request):
            check_tensor_headers(request, self._config)
        else:
            check_image_headers(request, self._config)

    async def read(self, request: Request, admitted: Admitted) -> list[InferItem]:
        """The items of a request, one or more.

        Raises:
            InvalidRequest: it is not of any form, or not one that the model takes.
            ImageTooLarge, Overloaded: see `Uploads`.
        """
        inputs = inputs_of(admitted.served)
        if HEADER_LENGTH in request.headers:
            return await self._binary(request, admitted)
        if _is_json(request):
            return await self._json(request, admitted, inputs)
        if len(inputs.images) == 1 and not inputs.numbers:
            (name,) = inputs.images
            images = await self._uploads.read_images(request, admitted)
            return [(file, {name: data}) for file, data in images]
        if not request.content_type.startswith("multipart/"):
            raise InvalidRequest(
                f"this model takes {inputs_text(inputs.images, inputs.numbers)}: send each by its "
                "name, as fields of a multipart body, as JSON, or in the binary form of the Open "
                "Inference Protocol"
            )
        return await self._form(request, admitted, inputs)

    async def _form(
        self, request: Request, admitted: Admitted, inputs: ModelInputs
    ) -> list[InferItem]:
        """Fields by the names of inputs; the second one of each name is of the second item."""
        count = len(inputs.images) + len(inputs.numbers)
        columns: dict[str, list[Part]] = {}
        for name, data in await self._uploads.read_fields(request, admitted, inputs=count):
            what = f"field {name[:100]!r}"
            value = await self._values.from_form(data, inputs, name, what)
            columns.setdefault(name, []).append(value)
        return _numbered(items_of(columns, most=self._most))

    async def _json(
        self, request: Request, admitted: Admitted, inputs: ModelInputs
    ) -> list[InferItem]:
        text = await read_json(
            await self._uploads.read_tensors(request, admitted),
            self._turns,
            max_images=self._most,
            what="the body",
        )
        body = text.decode(_Body, "the body")
        if (body.instances == _ABSENT) == (body.inputs == _ABSENT):
            raise InvalidRequest("give exactly one of 'instances' (rows) and 'inputs' (columns)")
        if body.inputs == _ABSENT:
            return _numbered(await self._values.rows(text, body.instances, inputs, "instances"))
        return _numbered(await self._values.columns(text, body.inputs, inputs, "inputs"))

    async def _binary(self, request: Request, admitted: Admitted) -> list[InferItem]:
        data = await self._uploads.read_tensors(request, admitted)
        length = header_length(request)
        return _numbered(await self._named.read(request, data, length, admitted, admitted.served))

    @property
    def _most(self) -> int:
        return self._config.batching.max_queue


def _numbered(items: list[dict[str, Part]]) -> list[InferItem]:
    return [(str(number), item) for number, item in enumerate(items)]


def _is_json(request: Request) -> bool:
    kind = request.headers.get(hdrs.CONTENT_TYPE, "")
    return kind[:16].lower() == "application/json"
