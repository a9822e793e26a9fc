"""The routes of a protocol: how requests get to a model, and how errors are written."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, cast

from aiohttp import HttpVersion11, hdrs, web

from fingerpost.client.wire import SUSPECT_HEADER
from fingerpost.errors import DeadlineExceeded, FingerpostError, InvalidRequest, Overloaded
from fingerpost.registry import LOAD_HEADER
from fingerpost.registry.http.app import error_response, internal_error
from fingerpost.security.grant import NO_LIMITS
from fingerpost.worker.engine.fairness.flow import DEFAULT_FLOW
from fingerpost.worker.serving.admission import DEFAULT_DEADLINE_S
from fingerpost.worker.serving.deadlines import LONG_S, Deadlines
from fingerpost.worker.serving.fast_path import json_body
from fingerpost.worker.serving.reference import model_reference
from fingerpost.worker.telemetry.request import CLIENT_LEFT

if TYPE_CHECKING:
    from fingerpost.registry import LoadReport, ModelReference
    from fingerpost.registry.http.app import ErrorForm, Handler
    from fingerpost.registry.http.request import Request
    from fingerpost.registry.http.request_head import RequestHead
    from fingerpost.security.grant import Grant
    from fingerpost.security.leases.verifier import Permit
    from fingerpost.worker.engine.fairness.flow import Flow
    from fingerpost.worker.repository.manager import ModelManager, ServedVersion
    from fingerpost.worker.serving.admission import Admission, Check
    from fingerpost.worker.serving.errors import ErrorForms
    from fingerpost.worker.serving.fast_path import Answer, FastPath
    from fingerpost.worker.serving.lease_gate import LeaseGate
    from fingerpost.worker.serving.memory import BodyMemory
    from fingerpost.worker.serving.quarantine import Quarantine
    from fingerpost.worker.serving.tenancy import Tenancy
    from fingerpost.worker.telemetry.observer import Observer
    from fingerpost.worker.telemetry.request import RequestRecord

__all__ = ["Admitted", "ProtocolRoutes", "RouteContext"]

logger = logging.getLogger(__name__)

_BEGUN: Final = b"HTTP/1.1 102 Processing\r\n\r\n"


class Admitted:
    """An admitted request: the version that answers it, and its deadline by the loop's clock.

    Attributes:
        grant: what its tenant may do here.
        flow: its tenant and class.
        images: how many images it has; whoever reads more than one says so.
    """

    __slots__ = ("alone", "body_bytes", "deadline", "flow", "grant", "images", "served")

    def __init__(self, served: ServedVersion, deadline: float, grant: Grant, flow: Flow) -> None:
        self.served = served
        self.deadline = deadline
        self.grant = grant
        self.flow = flow
        self.images = 1
        self.alone = False  # its image is suspect, and it is its turn
        self.body_bytes = 0  # held of its body, see `BodyMemory`


class _Load(Protocol):
    def __call__(self, request: RequestHead | None = None, /) -> LoadReport: ...


_Respond = Callable[["Request", "ModelReference", "RequestRecord"], Awaitable["Answer"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteContext:
    """What the routes of all protocols share.

    Attributes:
        app: gets the routes.
        manager: the models.
        admission: decides which requests are accepted.
        memory: counts the bytes of their bodies.
        quarantine: takes suspect images one at a time.
        observer: counts, logs and traces every request for a model.
        fast_path: learns the paths that were answered.
        load: makes this moment's load report, for the sender of a request where one is given.
        error_forms: learns how each protocol writes its errors.
        tenancy: tells requests apart by tenant and class.
        leases: lets in only requests with a lease; None lets all in.
        deadlines: ends requests at theirs.
    """

    app: web.Application
    manager: ModelManager
    admission: Admission
    memory: BodyMemory
    quarantine: Quarantine
    observer: Observer
    fast_path: FastPath
    load: _Load
    error_forms: ErrorForms
    tenancy: Tenancy
    leases: LeaseGate | None = None
    deadlines: Deadlines = field(default_factory=Deadlines)

    def overloaded(self, request: RequestHead, error: Overloaded) -> None:
        """Record that a request was refused for overload; see `Admission.overloaded`."""
        self.admission.overloaded(request, error)
        self.tenancy.refused(request, error.limit)


class ProtocolRoutes:
    """The routes of one protocol.

    Args:
        prefix: the path of which all paths below belong to the protocol.
        error_form: how errors are written there, also for paths without a route.
    """

    def __init__(self, context: RouteContext, prefix: str, error_form: ErrorForm) -> None:
        context.error_forms.add(prefix, error_form)
        self._context = context
        self._error_form = error_form

    def get(self, path: str, handler: Handler) -> None:
        """Add a route for `GET` and `HEAD`; what the handler raises is written in the form."""
        self._context.app.router.add_get(path, handler)

    def post(self, path: str, handler: Handler) -> None:
        """Add a route for `POST` that is not for images."""
        self._context.app.router.add_post(path, handler)

    def put(self, path: str, handler: Handler) -> None:
        """Add a route for `PUT`."""
        self._context.app.router.add_put(path, handler)

    def inference(
        self,
        path: str,
        direct: Callable[[Request, Admitted], Awaitable[Answer]],
        *,
        check: Check,
    ) -> None:
        """Add a `POST` route for images, whose requests are admitted before their body is sent.

        Args:
            path: may have the variables `model`, `version` and `alias`; see `model_reference`.
            direct: answers an admitted request before its deadline.
            check: raises where the headers show that the request cannot be answered.
        """
        admission, manager = self._context.admission, self._context.manager
        memory, quarantine = self._context.memory, self._context.quarantine
        leases, tenancy = self._context.leases, self._context.tenancy
        deadlines = self._context.deadlines

        async def quarantined(request: Request, admitted: Admitted) -> Answer:
            limit_s = admitted.served.engine.alone_limit_s
            async with quarantine.turn(partial(_begin, request), limit_s) as admitted.alone:
                return await direct(request, admitted)

        async def respond(
            request: Request, reference: ModelReference, record: RequestRecord
        ) -> Answer:
            admission.check_boot_id(request)  # another process would not have this model either
            grant = NO_LIMITS if leases is None else leases.permit(request, reference.model).grant
            with manager.acquire(reference) as served:
                record.served_by(served.model, served.version)
                flow = tenancy.flow(request, grant)
                left_s = admission.admit(request, served, check, flow)
                deadline = asyncio.get_running_loop().time() + left_s
                admitted = Admitted(served, deadline, grant, flow)
                plain = flow is DEFAULT_FLOW and grant is NO_LIMITS
                if not plain:
                    tenancy.enter(grant, flow, request.content_length or 0)
                admission.enter()
                work = quarantined if SUSPECT_HEADER in request.headers else direct
                try:
                    if left_s >= DEFAULT_DEADLINE_S:  # none of its own: the engine's bound is less
                        return await work(request, admitted)
                    if left_s >= LONG_S:
                        with deadlines.until(deadline):
                            return await work(request, admitted)
                    try:
                        async with asyncio.timeout_at(admitted.deadline):
                            return await work(request, admitted)
                    except TimeoutError:
                        raise DeadlineExceeded(
                            "the deadline passed before the request was answered"
                        ) from None
                finally:
                    admission.leave()
                    if not plain:
                        more = admitted.body_bytes - (request.content_length or 0)
                        more = more if more > 0 else 0
                        tenancy.leave(grant, flow, admitted.images, more)
                    memory.give(admitted)

        self._add(path, respond, check)

    def stream(
        self,
        path: str,
        work: Callable[[web.Request, RequestRecord, Permit | None], Awaitable[web.StreamResponse]],
        *,
        check: Check,
    ) -> None:
        """Add a `POST` route for streams, whose images `work` counts one by one.

        Args:
            path: has the variable `model`.
            work: answers the stream, which has the lease in the last argument, if any.
            check: raises where the headers show that it is not a valid stream.
        """
        admission, manager = self._context.admission, self._context.manager
        leases, tenancy = self._context.leases, self._context.tenancy

        async def respond(
            request: Request, reference: ModelReference, record: RequestRecord
        ) -> Answer:
            admission.check_boot_id(request)
            permit = None if leases is None else leases.permit(request, reference.model)
            grant = NO_LIMITS if permit is None else permit.grant
            flow = tenancy.flow(request, grant)
            with manager.acquire(reference) as served:
                admission.admit_stream(request, served, check, flow)
            # It answers bit by bit, so its path is never remembered.
            return await work(cast("web.Request", request), record, permit)

        self._add(path, respond, check)

    def _add(self, path: str, respond: _Respond, check: Check) -> None:
        context, error_form = self._context, self._error_form

        async def answer(request: Request, reference: ModelReference | None = None) -> Answer:
            with context.observer.request(request) as record:
                try:
                    named = reference or self._reference(cast("web.Request", request))
                    found = await respond(request, named, record)
                except FingerpostError as error:
                    if isinstance(error, Overloaded):
                        context.overloaded(request, error)
                    record.failed(error)
                    return error_response(error, form=error_form)
                except ConnectionError:  # the client went away: this response is not sent
                    record.status = CLIENT_LEFT
                    return web.Response(status=CLIENT_LEFT)
                except web.HTTPException:
                    raise
                except Exception:
                    logger.exception("%s %s failed", request.method, request.path)
                    return error_response(internal_error(), form=error_form)
                record.status = 200 if isinstance(found, bytes) else found.status
                return found

        async def handler(request: web.Request) -> web.StreamResponse:
            found = await answer(request)
            if isinstance(found, bytes):
                if "model" in request.match_info:  # else it is the default one, which may change
                    context.fast_path.remember(request, self._reference(request), answer)
                return json_body(found)
            return found

        async def expect(request: web.Request) -> web.StreamResponse | None:
            """Answer `Expect: 100-continue` with an error, or let the client send its body."""
            try:
                if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
                    raise InvalidRequest("Expect: only 100-continue is supported")
                context.admission.check_boot_id(request)
                reference, grant = self._reference(request), NO_LIMITS
                if context.leases is not None:
                    grant = context.leases.permit(request, reference.model).grant
                flow = context.tenancy.flow(request, grant)
                with context.manager.acquire(reference) as served:
                    context.admission.admit(request, served, check, flow)
            except FingerpostError as error:
                if isinstance(error, Overloaded):
                    context.overloaded(request, error)
                context.observer.refused(request, error)
                response = error_response(error, form=error_form)
                response.headers[LOAD_HEADER] = context.load(request).to_header()
                response.force_close()  # the body will not be read
                return response
            if request.transport is not None:  # else the client went away already
                request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None

        context.app.router.add_post(path, handler, expect_handler=expect)

    def _reference(self, request: web.Request) -> ModelReference:
        return model_reference(request, self._context.manager)


def _begin(request: Request) -> None:
    """Tell a client that the worker begins with its suspect image."""
    if request.transport is not None and request.version >= HttpVersion11:
        request.transport.write(_BEGUN)
