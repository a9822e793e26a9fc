"""Inference by models of any task over ZeroMQ: the items and answers of `POST /v1/infer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

from fingerpost.errors import InvalidRequest
from fingerpost.worker.protocols.infer_one import BinaryItems, infer_one, inputs_of
from fingerpost.worker.serving.turns import Turns
from fingerpost.worker.tasks.items import AnswerOptions, inputs_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fingerpost.client.wire import ImageAnswer
    from fingerpost.client.zmq.messages import OpenStream
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.engine.fairness.flow import Flow
    from fingerpost.worker.protocols.streams.link import StreamImage
    from fingerpost.worker.protocols.v2.shared_memory import SharedMemory
    from fingerpost.worker.repository.manager import ServedVersion
    from fingerpost.worker.tasks.items import Part
    from fingerpost.worker.zmq.heads import ReceivedImage

    # See `StreamOrder.infer`.
    Infer = Callable[[StreamImage, ServedVersion, float, bool], Awaitable[ImageAnswer]]

__all__ = ["ZmqInference"]


class ZmqInference:
    """Answers the items of streams that were opened for inference."""

    def __init__(self, config: WorkerConfig, shared: SharedMemory) -> None:
        self._images = config.images
        self._items = BinaryItems(config, Turns(), shared)

    def of(self, order: OpenStream, flow: Flow) -> Infer:
        """What answers the items of one stream.

        Args:
            order: its first message.
            flow: its tenant and class.
        """
        options = AnswerOptions(mask=order.mask, model_size=order.size == "model")

        async def infer(
            image: StreamImage,
            served: ServedVersion,
            deadline: float,
            alone: bool,  # noqa: FBT001 - see `StreamOrder.infer`
        ) -> ImageAnswer:
            received = cast("ReceivedImage", image.mark)
            parts = await self._parts(received, image.body, served)
            answer, timings = await infer_one(
                served,
                parts,
                order.top,
                options,
                self._images,
                deadline=deadline,
                alone=alone,
                flow=flow,
            )
            members: dict[str, Any]
            if order.binary:
                members, blobs = answer.to_binary()
                received.arrays = b"".join(blobs)
            else:
                members = answer.to_json()
            result = {"name": image.name, **members, "timings_ms": timings}
            return cast("ImageAnswer", msgspec.Raw(msgspec.json.encode(result)))

        return infer

    async def _parts(
        self, received: ReceivedImage, body: bytes | memoryview, served: ServedVersion
    ) -> dict[str, Part]:
        """The inputs of an item by their names: its image, or those in the binary form.

        Raises:
            InvalidRequest: it is not one item, or not one that the model takes.
        """
        if received.json_bytes is None:
            inputs = inputs_of(served)
            if len(inputs.images) != 1 or inputs.numbers:
                raise InvalidRequest(
                    f"this model takes {inputs_text(inputs.images, inputs.numbers)}: send them in "
                    "the binary form of the Open Inference Protocol, with json_bytes in the head"
                )
            return dict.fromkeys(inputs.images, body)
        items = await self._items.read(received, body, received.json_bytes, received, served)
        if len(items) != 1:
            raise InvalidRequest(
                f"the message has {len(items):,} items: send each in a message of its own"
            )
        return items[0]
