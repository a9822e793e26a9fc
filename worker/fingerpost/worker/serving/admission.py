"""Admission control: which requests are accepted, by their headers, and how many are in flight."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

from fingerpost.client.wire import BOOT_ID_HEADER, DEADLINE_HEADER, WAITED_HEADER
from fingerpost.errors import DeadlineExceeded, InvalidRequest, Misdirected, Overloaded
from fingerpost.registry import WorkerState
from fingerpost.worker.engine.fairness.flow import DEFAULT_FLOW, Flow
from fingerpost.worker.serving.oldest_first import OldestFirst
from fingerpost.worker.serving.tenancy import flow_of

if TYPE_CHECKING:
    from fingerpost.errors import FingerpostError
    from fingerpost.registry.http.request import Request
    from fingerpost.registry.http.request_head import RequestHead
    from fingerpost.worker.repository.manager import ServedVersion

__all__ = ["DEFAULT_DEADLINE_S", "Admission", "Check", "Uploading", "deadline_s"]

# The deadline of a request that has none of its own, in seconds.
DEFAULT_DEADLINE_S: Final = 600.0

# Tenants and classes whose refusals are remembered.
_MAX_FLOWS: Final = 1024
# After a refusal, where too little is known of the model's times.
_RETRY_AFTER_S: Final = 0.1

_Request = TypeVar("_Request", bound="RequestHead")

# Raises where the headers show that a request cannot be answered.
Check = Callable[["Request"], None]


class Admission:
    """Refuses what can be refused by the headers, and counts requests until they end.

    Args:
        max_in_flight: most requests at once; likewise most streams.
        boot_id: the number of this process.

    Attributes:
        rif: requests in flight, from their headers on; of streams, the images.
        uploads: requests whose body is to name the model, and has not arrived.
        refusal: what all new work is refused with, by its headers; None lets it in. A draining
            worker sets it only when no client can hold its address any more.
    """

    def __init__(self, max_in_flight: int, boot_id: int = 0) -> None:
        self._max_in_flight = max_in_flight
        self._boot_id = str(boot_id)
        self._idle = asyncio.Event()
        self._idle.set()
        self._streams: set[Callable[[], object]] = set()
        self._state = WorkerState.STARTING
        self._followers: list[Callable[[], object]] = []
        self._contended: dict[Flow, OldestFirst] = {}  # of the flows that were refused some
        self.rif = 0
        self.uploads = 0
        self.refusal: FingerpostError | None = None

    @property
    def state(self) -> WorkerState:
        """The worker's state, which the worker sets; open streams end when it begins to drain."""
        return self._state

    @state.setter
    def state(self, state: WorkerState) -> None:
        self._state = state
        for follower in self._followers:
            follower()
        if state is WorkerState.DRAINING:
            for end in tuple(self._streams):
                end()

    def follow_state(self, follower: Callable[[], object]) -> None:
        """Call `follower` whenever the state is set."""
        self._followers.append(follower)

    def check_boot_id(self, request: RequestHead) -> None:
        """Refuse a request that is meant for another process.

        Raises:
            Misdirected: it names another one.
        """
        wanted = request.headers.get(BOOT_ID_HEADER)
        if wanted is not None and wanted != self._boot_id:
            raise Misdirected(
                f"meant for the process with boot id {wanted[:20]}, which had this address before: "
                f"this one is {self._boot_id}; look up the workers again"
            )

    def admit(
        self,
        request: _Request,
        served: ServedVersion,
        check: Callable[[_Request], object],
        flow: Flow = DEFAULT_FLOW,
    ) -> float:
        """Check the headers of a request; return the seconds until its deadline.

        Args:
            served: the version that will answer it.
            check: raises what else its headers give away.
            flow: its tenant and class.

        Raises:
            Draining, Overloaded, DeadlineExceeded, InvalidRequest, and what `check` raises.
        """
        if self.refusal is not None:
            raise self.refusal.with_traceback(None)
        left_s = deadline_s(request)
        if left_s is None:
            left_s = DEFAULT_DEADLINE_S
        elif left_s <= 0:
            raise DeadlineExceeded("the deadline had passed when the request arrived")
        check(request)
        if self.rif >= self._max_in_flight:
            raise Overloaded(
                f"{self.rif} requests are in flight here already: use another worker, "
                "or try again later",
                retry_after_s=served.engine.expected_s() or _RETRY_AFTER_S,
            )
        older = self._contended.get(flow)
        if older is not None and older.contended(time.monotonic()):
            self._defer(request, served, flow)
        served.engine.admit(left_s, flow)
        return left_s

    def admit_head(self, request: RequestHead) -> float:
        """Check what `admit` does that needs no model, for protocols that name it in the body.

        Raises:
            Draining, Overloaded, DeadlineExceeded, InvalidRequest.
        """
        if self.refusal is not None:
            raise self.refusal.with_traceback(None)
        left_s = deadline_s(request)
        if left_s is not None and left_s <= 0:
            raise DeadlineExceeded("the deadline had passed when the request arrived")
        if self.rif + self.uploads >= self._max_in_flight:
            raise Overloaded(
                f"{self.rif + self.uploads} requests are in flight here already: use another "
                "worker, or try again later",
                retry_after_s=_RETRY_AFTER_S,
            )
        return DEFAULT_DEADLINE_S if left_s is None else left_s

    def uploading(self) -> Uploading:
        """Count a request whose model is not known yet, until that is closed."""
        self.uploads += 1
        self._idle.clear()
        return Uploading(self)

    def uploaded(self) -> None:
        """Count one such request less."""
        self.uploads -= 1
        self._update_idle()

    def admit_body(
        self, request: RequestHead, served: ServedVersion, left_s: float, flow: Flow
    ) -> None:
        """Check the rest of what `admit` does, once the model is known.

        A request that began before this worker drained is still answered.

        Raises:
            Overloaded, DeadlineExceeded.
        """
        older = self._contended.get(flow)
        if older is not None and older.contended(time.monotonic()):
            self._defer(request, served, flow)
        served.engine.admit(left_s, flow)

    def overloaded(self, request: RequestHead, error: Overloaded) -> None:
        """Record that a request was refused; sets when it should come back.

        `refusal`, which is raised for every request, stays as it was set, and so does the error of
        a tenant's own limit.
        """
        if error is self.refusal or error.limit:
            return
        flow = flow_of(request)
        retry_after_s = _RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s
        if flow not in self._contended and len(self._contended) >= _MAX_FLOWS:
            self._contended.clear()
        self._contended.setdefault(flow, OldestFirst())
        error.retry_after_s = self._contended[flow].refused(
            _waited_s(request), retry_after_s, time.monotonic()
        )

    def _defer(self, request: RequestHead, served: ServedVersion, flow: Flow) -> None:
        """Refuse a request that would take the place of older ones of its tenant and class."""
        older = self._contended[flow].defers(_waited_s(request))
        if older and served.engine.crowded(flow):
            raise Overloaded(
                "others have waited longer for this worker, which is overloaded: use another "
                "worker, or try again later",
                retry_after_s=served.engine.expected_s() or _RETRY_AFTER_S,
            )

    def admit_stream(
        self,
        request: _Request,
        served: ServedVersion,
        check: Callable[[_Request], object],
        flow: Flow = DEFAULT_FLOW,
    ) -> None:
        """Check the headers of a stream as `admit` does, and the number of open streams."""
        self.admit(request, served, check, flow)
        if len(self._streams) >= self._max_in_flight:
            raise Overloaded(
                f"{len(self._streams)} streams are open here already: use another worker",
                retry_after_s=1.0,
            )

    def enter(self) -> None:
        """Count one more request in flight; call `leave` once when it ends."""
        if not self.rif:
            self._idle.clear()
        self.rif += 1

    def leave(self) -> None:
        """Count one request less."""
        self.rif -= 1
        self._update_idle()

    @contextlib.contextmanager
    def count(self) -> Iterator[None]:
        """Count one more request in flight inside the `with` block."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    @contextlib.contextmanager
    def streaming(self, end: Callable[[], object]) -> Iterator[None]:
        """Count an open stream inside the `with` block.

        Args:
            end: ends the stream; called, perhaps more than once, when this worker drains.
        """
        self._streams.add(end)
        self._idle.clear()
        if self._state is WorkerState.DRAINING:
            end()
        try:
            yield
        finally:
            self._streams.discard(end)
            self._update_idle()

    async def idle(self, timeout_s: float) -> bool:
        """Wait until no request is in flight and no stream open; False at the timeout."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _update_idle(self) -> None:
        if not self.rif and not self._streams and not self.uploads:
            self._idle.set()


class Uploading:
    """A request that counts as an upload until `close`, or the end of a `with` block."""

    __slots__ = ("_admission",)

    def __init__(self, admission: Admission) -> None:
        self._admission: Admission | None = admission

    def close(self) -> None:
        """Count it no more; does nothing the second time."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.uploaded()

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self.close()


def deadline_s(request: RequestHead) -> float | None:
    """Seconds until the deadline of a request; None where it has none.

    Raises:
        InvalidRequest: the header is not a finite number of milliseconds.
    """
    text = request.headers.get(DEADLINE_HEADER)
    if text is None:
        return None
    try:
        left_ms = float(text)
    except ValueError:
        left_ms = math.nan
    if not math.isfinite(left_ms):
        raise InvalidRequest(f"{DEADLINE_HEADER}: {text!r} is not a number of milliseconds")
    return left_ms / 1000


def _waited_s(request: RequestHead) -> float:
    """For how many seconds its client has waited with this request; 0 where it does not say."""
    text = request.headers.get(WAITED_HEADER, "")
    return int(text) / 1000 if text.isdecimal() and len(text) < 10 else 0.0
