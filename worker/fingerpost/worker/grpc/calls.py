"""Calls of gRPC on their way to a model: what `ProtocolRoutes` is for HTTP.

A call for a model is read as a stream of one message, so that it can be refused by its metadata
before the message is sent. Only the message names the model, so the lease is checked twice: first
that it is one, then that it is for this model.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import grpc

from fingerpost.errors import (
    DeadlineExceeded,
    FingerpostError,
    ImageTooLarge,
    InvalidRequest,
    Overloaded,
)
from fingerpost.registry import ModelReference
from fingerpost.registry.grpc.call_head import CallHead
from fingerpost.registry.grpc.status import status_code
from fingerpost.registry.http.app import internal_error
from fingerpost.security.grant import NO_LIMITS
from fingerpost.worker.engine.fairness.flow import DEFAULT_FLOW
from fingerpost.worker.grpc.request import call_head
from fingerpost.worker.grpc.schema.decode import decode_message
from fingerpost.worker.grpc.status import error_trailer
from fingerpost.worker.serving.admission import DEFAULT_DEADLINE_S
from fingerpost.worker.serving.deadlines import LONG_S
from fingerpost.worker.serving.routes import Admitted

if TYPE_CHECKING:
    from grpc.aio import ServicerContext
    from prometheus_client import Counter

    from fingerpost.security.grant import Grant
    from fingerpost.worker.config import RequestConfig
    from fingerpost.worker.grpc.orca import OrcaReports
    from fingerpost.worker.repository.manager import ModelManager, ServedVersion
    from fingerpost.worker.serving.admission import Uploading
    from fingerpost.worker.serving.routes import RouteContext

    Context: TypeAlias = ServicerContext[Any, Any]

__all__ = [
    "Answer",
    "Arrival",
    "Calls",
    "Context",
    "Decode",
    "Model",
    "Simple",
    "message_bytes",
    "reference_of",
]

logger = logging.getLogger(__name__)

# Decodes the message of a request.
Decode = Callable[[bytes], Any]
# Which model a request is for.
Model = Callable[[Any], ModelReference]
# Answers a request for a model, of a call with that head, by a message or its bytes.
Answer = Callable[[Any, Admitted, CallHead], Awaitable[Any]]
# Answers a request that is for no model.
Simple = Callable[[Any, CallHead], Awaitable[Any]]

# The least rate of an upload, in bytes a second, which sets the longest time of a message.
_UPLOAD_PER_S: Final = 500_000
# Of a request that has no tensors.
_MAX_SIMPLE_BYTES: Final = 1 << 16


class Calls:
    """Makes handlers of gRPC that admit, count, log and limit calls as HTTP's are.

    Args:
        context: what all protocols share.
        limits: the limits of requests.
        orca: writes the load report of each answer.
        answered: counts calls by `method` and `code`.
    """

    def __init__(
        self, context: RouteContext, limits: RequestConfig, orca: OrcaReports, answered: Counter
    ) -> None:
        self._context = context
        self._orca = orca
        self._answered = answered
        self._counters: dict[tuple[str, grpc.StatusCode], Counter] = {}
        self._max_upload_s = max(limits.body_timeout_s, limits.max_bytes / _UPLOAD_PER_S)

    def simple(self, path: str, name: str, work: Simple) -> Any:
        """A handler of a unary call that is for no model.

        Args:
            path: of the method.
            name: of the request's message.
            work: returns the answer's message.
        """

        async def handler(data: bytes, context: Context) -> bytes:
            head = call_head(path, context)
            head.total_bytes = len(data)

            async def answer() -> Any:
                self._context.admission.check_boot_id(head)
                if len(data) > _MAX_SIMPLE_BYTES:
                    raise InvalidRequest(
                        f"the message has {len(data):,} bytes, and no such request has over "
                        f"{_MAX_SIMPLE_BYTES:,}"
                    )
                return await work(decode_message(name, data), head)

            return await self.finish(context, head, await self.caught(path, answer))

        return grpc.unary_unary_rpc_method_handler(handler)

    def inference(self, path: str, decode: Decode, model: Model, answer: Answer) -> Any:
        """A handler of a unary call for a model.

        Args:
            path: of the method.
            decode: makes the request of a message.
            model: which model a request is for.
            answer: returns the answer's message.
        """

        async def handler(_: Any, context: Context) -> bytes:
            head = call_head(path, context)

            async def respond() -> Any:
                arrival = self.begin(head)
                with arrival.upload:
                    data = await self.receive(head, context)
                    return await self.answer(arrival, decode, data, model, answer)

            return await self.finish(context, head, await self.caught(path, respond))

        return grpc.stream_unary_rpc_method_handler(handler)

    def begin(self, head: CallHead) -> Arrival:
        """Check the metadata of a call; its message counts as an upload until that is closed.

        Raises:
            FingerpostError: it is refused; that is counted and logged here.
        """
        context = self._context
        try:
            context.admission.check_boot_id(head)
            left_s = context.admission.admit_head(head)
            if context.leases is not None:
                context.leases.permit(head, None)
        except FingerpostError as error:
            if isinstance(error, Overloaded):
                context.overloaded(head, error)
            context.observer.refused(head, error)
            raise
        ends_at = asyncio.get_running_loop().time() + left_s
        upload = context.admission.uploading()
        return Arrival(head=head, left_s=left_s, ends_at=ends_at, upload=upload)

    async def receive(self, head: CallHead, context: Context) -> bytes:
        """The one message of a call.

        Raises:
            InvalidRequest: there is none, or it does not arrive in time.
            Overloaded: too many unfinished uploads of this client.
        """
        until = asyncio.get_running_loop().time() + self._max_upload_s
        try:
            with (
                self._context.memory.upload(head.remote or ""),
                self._context.deadlines.until(until),
            ):
                data: Any = await context.read()
        except DeadlineExceeded:
            raise InvalidRequest(
                f"the message did not arrive within {self._max_upload_s:g} s"
            ) from None
        if not isinstance(data, bytes):
            raise InvalidRequest("the call ended without a message: send one")
        return data

    async def answer(
        self, arrival: Arrival, decode: Decode, data: bytes, model: Model, answer: Answer
    ) -> Any:
        """Answer a message for a model; counted, logged and traced as a request of its own."""
        context, held, head = self._context, _Held(), arrival.head
        with context.observer.request(head) as record:
            head.total_bytes += len(data)
            try:
                if context.leases is not None:
                    held.grant = context.leases.permit(head, None).grant
                context.memory.take(held, len(data))
                request = decode(data)
                reference = model(request)
                if context.leases is not None:
                    context.leases.permit(head, reference.model)
                    _check_size(len(data), held.grant)
                with context.manager.acquire(reference) as served:
                    record.served_by(served.model, served.version)
                    found = await self._run(
                        arrival, served, held, lambda admitted: answer(request, admitted, head)
                    )
            except FingerpostError as error:
                if isinstance(error, Overloaded):
                    context.overloaded(head, error)
                record.failed(error)
                raise
            finally:
                context.memory.give(held)
            record.status = 200
        return found

    async def _run(
        self,
        arrival: Arrival,
        served: ServedVersion,
        held: _Held,
        answer: Callable[[Admitted], Awaitable[Any]],
    ) -> Any:
        admission, tenancy = self._context.admission, self._context.tenancy
        grant, left_s, ends_at = held.grant, arrival.left_s, arrival.ends_at
        flow = tenancy.flow(arrival.head, grant)
        admission.admit_body(arrival.head, served, left_s, flow)
        admitted = Admitted(served, ends_at, grant, flow)
        plain = flow is DEFAULT_FLOW and grant is NO_LIMITS
        if not plain:
            tenancy.enter(grant, flow, held.body_bytes)
        admission.enter()
        try:
            arrival.upload.close()
            if left_s >= DEFAULT_DEADLINE_S:
                return await answer(admitted)
            if left_s > LONG_S:
                with self._context.deadlines.until(ends_at):
                    return await answer(admitted)
            async with asyncio.timeout_at(ends_at):
                return await answer(admitted)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the request was answered") from None
        finally:
            admission.leave()
            if not plain:
                tenancy.leave(grant, flow, admitted.images, admitted.body_bytes)
            self._context.memory.give(admitted)  # of regions of shared memory

    async def caught(self, path: str, work: Callable[[], Awaitable[Any]]) -> Any:
        """What `work` returns, or the error that it raises; a fault of ours is logged."""
        try:
            return await work()
        except FingerpostError as error:
            return error
        except Exception:
            logger.exception("%s failed", path)
            return internal_error()

    async def finish(self, context: Context, head: CallHead, result: Any) -> bytes:
        """The bytes of an answer, with the load report; or the end of the call with an error.

        Args:
            result: an answer's message or its bytes, an error, or None at the end of a stream.
        """
        load = self._orca.trailer(self._context.load(head))
        code = status_code(result) if isinstance(result, FingerpostError) else grpc.StatusCode.OK
        self._count(head.path, code)
        if isinstance(result, FingerpostError):
            message, trailer = error_trailer(result)
            await context.abort(code, message, (*trailer, load))
        context.set_trailing_metadata((load,))
        return message_bytes(result)

    def _count(self, path: str, code: grpc.StatusCode) -> None:
        counter = self._counters.get((path, code))
        if counter is None:
            counter = self._answered.labels(path.rpartition("/")[2], code.name)
            self._counters[path, code] = counter
        counter.inc()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A call whose metadata are right.

    Attributes:
        head: its metadata.
        left_s, ends_at: the seconds until its deadline, and when that is by the loop's clock.
        upload: counts its message as an upload; closed once it counts as a request.
    """

    head: CallHead
    left_s: float
    ends_at: float
    upload: Uploading

    def again(self) -> Arrival:
        """The same for one of several messages of a call, whose bytes count by themselves."""
        left_s = self.left_s
        if left_s < DEFAULT_DEADLINE_S:
            left_s = self.ends_at - asyncio.get_running_loop().time()
            ends_at = self.ends_at
        else:
            ends_at = asyncio.get_running_loop().time() + left_s
        return Arrival(head=self.head.again(), left_s=left_s, ends_at=ends_at, upload=self.upload)


def message_bytes(message: Any) -> bytes:
    """The bytes of a message, which may be bytes already, or None, which has none."""
    if isinstance(message, bytes):
        return message
    data: bytes = b"" if message is None else message.SerializeToString()
    return data


class _Held:
    """How many bytes of a message are held, for whom; see `BodyMemory`."""

    __slots__ = ("body_bytes", "grant")

    def __init__(self) -> None:
        self.body_bytes = 0
        self.grant: Grant = NO_LIMITS


def reference_of(model: str, version: str, manager: ModelManager) -> ModelReference:
    """The model that a request names, or the only one.

    Raises:
        InvalidName: a name that is not valid.
        InvalidRequest: a version that is not a number; no name, and there are several models.
    """
    model = model or manager.default
    if version and not version.isascii():
        raise InvalidRequest(f"version {version[:40]!r} is not a number")
    found = ModelReference.parse(f"{model}@{version}" if version else model)
    if version and found.version is None:
        raise InvalidRequest(
            f"version {version!r} is not a number: an alias stands in the model's name, such as "
            f"{found.model}@{version}"
        )
    return found


def _check_size(count: int, grant: Grant) -> None:
    most = grant.max_body_bytes
    if most is not None and count > most:
        raise ImageTooLarge(
            f"the message has {count:,} bytes, over the limit of {most:,} of this lease: send less"
        )
