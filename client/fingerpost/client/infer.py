"""Inference by models of any task: `infer` of the client."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from fingerpost.client.images.load import image_key

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from fingerpost.client.dispatch.call import CallOptions
    from fingerpost.client.images.load import ImageSource
    from fingerpost.client.result import Result
    from fingerpost.client.tasks.inputs import InferSource, InputValue
    from fingerpost.client.tasks.results import TaskResult

__all__ = ["InferMixin"]


class InferMixin:
    """`infer` of the asynchronous client."""

    async def infer(
        self,
        image: InferSource,
        model: str,
        *,
        top: int = 5,
        timeout_s: float | None = None,
        sticky: str | None = None,
        priority: str | None = None,
    ) -> TaskResult:
        """The answer of a model's task for one item, on a worker that the client chooses.

        Args:
            image: see `classify`. For a model of several inputs a dictionary with each of them by
                its name: images, arrays of any type, numbers and lists of numbers, for one item:
                `{"left": "a.jpg", "right": "b.jpg", "weights": [0.2, 0.3, 0.5]}`.
            model: `faces`, `faces@3` or `faces@canary`.
            top: most labels, of a classification or multilabel model.
            timeout_s, sticky, priority: see `classify`.

        Returns:
            What the model's task is: `Classification`, `Multilabel`, `Embedding`, `Regression`,
            `Detection`, `Segmentation` or `Tensors`, of `fingerpost.client`.

        Raises:
            InvalidRequest: an input is missing, unknown, or of another type or shape than the
                model takes; the message names it.
            BadOutput: the model's task cannot read its output.
            FingerpostError: as `classify`.
        """
        options = self._call_options(
            model, top=top, timeout_s=timeout_s, sticky=sticky, priority=priority
        )
        options = msgspec.structs.replace(options, infer=True)
        key = "0"
        if isinstance(image, Mapping):
            image, options = await _loaded(image, options)
        else:
            key = image_key(image, 0)
        result = await self._classify(0, key, image, options)
        if result.error is not None:
            raise result.error
        assert result.answer is not None  # noqa: S101 - of a call with `infer`
        return msgspec.structs.replace(
            result.answer,
            worker=result.worker,
            address=result.address,
            relay=result.relay,
            attempts=result.attempts,
            elapsed_s=result.elapsed_s,
        )

    # The next two are those of `Client`.

    def _call_options(
        self,
        model: str,
        *,
        top: int,
        timeout_s: float | None,
        shrink: bool = False,
        sticky: str | None = None,
        priority: str | None = None,
    ) -> CallOptions:
        raise NotImplementedError

    def _classify(
        self, index: int, key: str, image: ImageSource, options: CallOptions
    ) -> Coroutine[Any, Any, Result]:
        raise NotImplementedError


async def _loaded(
    inputs: Mapping[str, InputValue], options: CallOptions
) -> tuple[bytes, CallOptions]:
    """The body of named inputs, and the options for it, with the time that is left."""
    from fingerpost.client.tasks.inputs import load_inputs

    began = time.monotonic()
    loaded = await load_inputs(inputs, options.timeout_s)
    left_s = max(0.001, options.timeout_s - (time.monotonic() - began))
    return loaded.body, msgspec.structs.replace(
        options, head_bytes=loaded.head_bytes, timeout_s=left_s
    )
