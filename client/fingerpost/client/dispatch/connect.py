"""Picks a worker for a request that the caller sends by himself, and learns how it ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from fingerpost.client.dispatch.call import Call, CallOptions
from fingerpost.client.dispatch.endings import check_served, too_late
from fingerpost.client.routing import Outcome, Pick
from fingerpost.client.wire import BOOT_ID_HEADER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet
    from ssl import SSLContext

    from fingerpost.client.dispatch.dispatcher import Dispatcher
    from fingerpost.client.dispatch.service import Service
    from fingerpost.registry import Instance, ModelReference

__all__ = ["ConnectedWorker", "may_retry", "pick_worker"]

# Requests that the client does not see have no size: each is one unit, so that the expected time of
# a worker is that of a request.
_ONE_MB: Final = 1.0
_OUTCOMES: Final = {
    "answered": Outcome.ANSWERED,
    "failed": Outcome.FAILED,
    "refused": Outcome.REFUSED,
    "overloaded": Outcome.OVERLOADED,
    "abandoned": Outcome.ABANDONED,
}


class ConnectedWorker:
    """A worker for one request, which counts as in flight there until it is released.

    `async with` releases it: as answered where the block ends; as refused or failed where an
    `OSError` or `TimeoutError` leaves it; and as abandoned, which says nothing of the worker, where
    something else does. `release` says it differently.

    Attributes:
        instance: its entry in the registry.
        headers: what a request to it carries: a lease and the process that is meant; empty for a
            foreign worker. They are secret.
        ssl_context: for `https`, checks its certificate; None without TLS.
    """

    def __init__(
        self,
        service: Service,
        pick: Pick,
        headers: Mapping[str, str],
        ssl_context: SSLContext | None,
    ) -> None:
        self._service = service
        self._pick = pick
        self._released = False
        self.instance: Instance = pick.endpoint.instance
        self.headers = headers
        self.ssl_context = ssl_context

    @property
    def id(self) -> str:
        """Its id."""
        return self.instance.id

    @property
    def host(self) -> str:
        """Its host."""
        return self.instance.host

    @property
    def port(self) -> int:
        """Its port."""
        return self.instance.ports["http"]

    @property
    def address(self) -> str:
        """`host:port`."""
        return self.instance.address

    @property
    def url(self) -> str:
        """`http://host:port` or `https://host:port`."""
        return self.instance.url

    def release(self, outcome: str = "answered", *, retry_after_s: float | None = None) -> None:
        """Record how the request ended; a second call has no effect.

        Args:
            outcome: `answered`; `refused`: no connection; `failed`: it broke off, was late, or
                answered nonsense; `overloaded`: it takes no more now; `abandoned`: no sign of it.
            retry_after_s: with `overloaded`, how long it is left out.

        Raises:
            ValueError: another outcome.
        """
        ended = _OUTCOMES.get(outcome)
        if ended is None:
            raise ValueError(f"{outcome!r} is not a valid outcome: use {', '.join(_OUTCOMES)}")
        if not self._released:
            self._released = True
            self._service.released(
                self._pick,
                ended,
                sent_mb=_ONE_MB if ended is Outcome.ANSWERED else 0.0,
                retry_after_s=retry_after_s,
            )

    async def __aenter__(self) -> ConnectedWorker:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if isinstance(error, ConnectionRefusedError):
            self.release("refused")
        elif isinstance(error, OSError | TimeoutError):
            self.release("failed")
        else:
            self.release("answered" if error is None else "abandoned")


async def pick_worker(
    dispatcher: Dispatcher,
    reference: ModelReference,
    *,
    timeout_s: float,
    tried: AbstractSet[str],
    sticky: str | None = None,
) -> ConnectedWorker:
    """A worker of a service for one request; waits for one, `timeout_s` seconds at most.

    Raises:
        UnknownService, UnknownModel, NoWorker, RegistryError, DeadlineExceeded: as
            `Client.classify`.
        TlsFailed: the worker speaks no TLS, and must.
    """
    options = CallOptions.checked(reference, top=1, timeout_s=timeout_s, priority=None)
    call = Call(options, began=asyncio.get_running_loop().time())
    service: Service | None = None
    dispatcher._budget.request(call.began, 0)
    try:
        async with asyncio.timeout_at(call.deadline):
            # A routing table of its own: these requests say nothing of the time that images take.
            service = await dispatcher._service(reference.model, key=f"{reference.model} requests")
            return await _picked(dispatcher, service, call, tried, sticky)
    except TimeoutError:
        raise too_late(call, service) from None


def may_retry(dispatcher: Dispatcher) -> bool:
    """Take one retry out of the client's budget; False where there is none left."""
    return dispatcher._budget.spend(asyncio.get_running_loop().time(), 0)


async def _picked(
    dispatcher: Dispatcher,
    service: Service,
    call: Call,
    tried: AbstractSet[str],
    sticky: str | None,
) -> ConnectedWorker:
    config, rng = dispatcher._config, dispatcher._rng
    clock = asyncio.get_running_loop().time
    no_worker_until: float | None = None
    rounds = 0
    while True:
        now = clock()
        dispatcher._refresh(service, now)
        pick = service.balancer.pick(call.reference, tried=tried, now=now, rng=rng, key=sticky)
        if isinstance(pick, Pick):
            return _connected(dispatcher, service, call, pick)
        if pick is None:
            if no_worker_until is None:
                no_worker_until = now + config.wait_for_ready_s
            check_served(service, call, late=now >= no_worker_until)
            await service.changed(no_worker_until - now)
            continue
        call.left_out = pick.overloaded
        pause_s = max(0.0, pick.until - now) + config.routing.retries.backoff_s(rounds, rng)
        rounds += 1
        tried = frozenset()
        await service.changed(pause_s)


def _connected(dispatcher: Dispatcher, service: Service, call: Call, pick: Pick) -> ConnectedWorker:
    instance = pick.endpoint.instance
    try:
        context = dispatcher._transport.context(instance.target)
    except BaseException:
        service.released(pick, Outcome.REFUSED, sent_mb=0.0)
        raise
    headers = {}
    if not instance.foreign:
        if lease := dispatcher._leases.of(call.reference.model):
            headers["Authorization"] = f"Bearer {lease}"
        if instance.boot_id:
            headers[BOOT_ID_HEADER] = str(instance.boot_id)
    dispatcher._stats.attempts += 1
    return ConnectedWorker(service, pick, headers, context)
