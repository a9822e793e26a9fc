"""`ModelStreamInfer`: many requests up one call, answered in their order.

Each message is a request of its own: it is admitted, counted and logged by itself, and its error is
an answer with `error_message`, after which the stream goes on. At most `streams.window` of them
are worked on at once; then the next message is not read, and gRPC's flow control holds the client
up. When the worker drains, it answers what it has read, and ends the stream with UNAVAILABLE.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import grpc

from fingerpost.errors import Draining, FingerpostError, Overloaded
from fingerpost.worker.grpc.calls import message_bytes
from fingerpost.worker.grpc.infer_message import varint
from fingerpost.worker.grpc.request import call_head
from fingerpost.worker.grpc.schema.messages import message_class

if TYPE_CHECKING:
    from fingerpost.worker.grpc.calls import Answer, Arrival, Calls, Context, Decode, Model
    from fingerpost.worker.serving.admission import Admission

__all__ = ["StreamHandler"]

_INFER_RESPONSE_TAG: Final = b"\x12"  # infer_response = 2


class StreamHandler:
    """Handles the calls of one method that streams both ways.

    Args:
        calls: admit and answer each message.
        admission: counts the open streams.
        path: of the method.
        name: of the messages that come in.
        decode, model, answer: see `Calls.inference`.
        window: most requests of a stream at once.
        max_streams: most streams at once.
        idle_timeout_s: a stream that sends nothing for so long is ended.
    """

    def __init__(
        self,
        calls: Calls,
        admission: Admission,
        *,
        path: str,
        name: str,
        decode: Decode,
        model: Model,
        answer: Answer,
        window: int,
        max_streams: int,
        idle_timeout_s: float,
    ) -> None:
        self._calls = calls
        self._admission = admission
        self._path = path
        self._name = name
        self._decode = decode
        self._model = model
        self._answer = answer
        self._window = window
        self._max_streams = max_streams
        self._idle_timeout_s = idle_timeout_s
        self._open = 0
        self._response = message_class("inference.ModelStreamInferResponse")

    def handler(self) -> Any:
        """The handler for gRPC."""

        async def handle(_: Any, context: Context) -> None:
            head = call_head(self._path, context)

            async def serve() -> Any:
                arrival = self._calls.begin(head)
                arrival.upload.close()  # its messages count one by one
                if self._open >= self._max_streams:
                    raise Overloaded(
                        f"{self._open} streams are open here already: use another worker",
                        retry_after_s=1.0,
                    )
                self._open += 1
                try:
                    return await self._serve(arrival, context)
                finally:
                    self._open -= 1

            await self._calls.finish(context, head, await self._calls.caught(self._path, serve))

        return grpc.stream_stream_rpc_method_handler(handle)

    async def _serve(self, arrival: Arrival, context: Context) -> FingerpostError | None:
        """Answer a stream; returns what it ends with."""
        ended = asyncio.Event()
        free = asyncio.Semaphore(self._window)
        answers: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue()
        with self._admission.streaming(ended.set):
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._write(answers, free, context))
                try:
                    error = await self._read(arrival, context, group, answers, free, ended)
                finally:
                    answers.put_nowait(None)
                await writing
        return error

    async def _read(
        self,
        arrival: Arrival,
        context: Context,
        group: asyncio.TaskGroup,
        answers: asyncio.Queue[asyncio.Task[Any] | None],
        free: asyncio.Semaphore,
        ended: asyncio.Event,
    ) -> FingerpostError | None:
        """Read messages until the client has sent all, or the worker drains."""
        draining = group.create_task(ended.wait())
        try:
            while True:
                await free.acquire()
                reading: asyncio.Task[Any] = group.create_task(_next(context))
                done, _ = await asyncio.wait(
                    (reading, draining),
                    timeout=self._idle_timeout_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if reading not in done:
                    reading.cancel()
                    if draining in done:
                        return Draining("this worker is leaving: send what is left to another one")
                    return Draining(f"the stream was idle for {self._idle_timeout_s:g} s")
                data = reading.result()
                if data is None:
                    return None
                answers.put_nowait(group.create_task(self._one(arrival, data)))
        finally:
            draining.cancel()

    async def _one(self, arrival: Arrival, data: bytes) -> Any:
        """The answer to one message, which may be an error."""

        async def work() -> Any:
            return await self._calls.answer(
                arrival.again(), self._decode, data, self._model, self._answer
            )

        found = await self._calls.caught(self._path, work)
        if isinstance(found, FingerpostError):
            response = self._response(error_message=found.message)
            # Triton names the request of an error by its id in an empty response.
            response.infer_response.id = _id_of(self._name, data)
            return response
        if isinstance(found, bytes):
            return _INFER_RESPONSE_TAG + varint(len(found)) + found
        return self._response(infer_response=found)

    async def _write(
        self,
        answers: asyncio.Queue[asyncio.Task[Any] | None],
        free: asyncio.Semaphore,
        context: Context,
    ) -> None:
        """Write the answers in the order of their requests."""
        while (task := await answers.get()) is not None:
            response = await task
            await context.write(message_bytes(response))
            free.release()


async def _next(context: Context) -> bytes | None:
    data: Any = await context.read()
    return data if isinstance(data, bytes) else None


def _id_of(name: str, data: bytes) -> str:
    """The id of a request that failed, as far as it can be read."""
    try:
        return str(message_class(name).FromString(data).id)[:255]
    except Exception:
        return ""
