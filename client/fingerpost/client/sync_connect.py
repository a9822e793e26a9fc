"""Requests of any protocol for programs without an event loop: `connect` of `SyncClient`."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from fingerpost.client.dispatch.connect import ConnectedWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from collections.abc import Set as AbstractSet
    from contextlib import AbstractAsyncContextManager

    from fingerpost.client.client import Client

    _Call = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]

__all__ = ["SyncConnectMixin"]

T = TypeVar("T")


class _SyncWorker(ConnectedWorker):
    """A `ConnectedWorker` whose `release` may be called in any thread."""

    def __init__(
        self,
        worker: ConnectedWorker,
        call: Callable[[Callable[[], Coroutine[Any, Any, None]]], None],
    ) -> None:
        super().__init__(worker._service, worker._pick, worker.headers, worker.ssl_context)
        self._worker = worker
        self._call = call

    def release(self, outcome: str = "answered", *, retry_after_s: float | None = None) -> None:
        """See `ConnectedWorker.release`."""

        async def release() -> None:
            self._worker.release(outcome, retry_after_s=retry_after_s)

        self._call(release)


class SyncConnectMixin:
    """`connect` of the client for threads."""

    _client: Client

    @contextmanager
    def connect(
        self,
        service: str,
        *,
        timeout_s: float | None = None,
        tried: AbstractSet[str] = frozenset(),
        sticky: str | None = None,
    ) -> Iterator[ConnectedWorker]:
        """A worker for one request of any protocol, which the caller sends; see `Client.connect`.

        ::

            with client.connect("flowers") as worker:
                answer = requests.post(f"{worker.url}/any/path", json=question, timeout=10)

        An `OSError` that leaves the block, such as those of `requests` and `urllib`, says that the
        worker failed.
        """
        context = self._client.connect(service, timeout_s=timeout_s, tried=tried, sticky=sticky)
        worker = self._call(context.__aenter__)
        try:
            yield _SyncWorker(worker, self._call)
        except BaseException as error:
            # It comes back as it is, and goes on from here.
            if not self._call(partial(_leave, context, error)):
                raise
        else:
            self._call(partial(_leave, context, None))

    def _call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        raise NotImplementedError


async def _leave(context: AbstractAsyncContextManager[Any], error: BaseException | None) -> bool:
    """Leave the block of `Client.connect`; whether it keeps the error."""
    kind, traceback = (None, None) if error is None else (type(error), error.__traceback__)
    try:
        return bool(await context.__aexit__(kind, error, traceback))
    except BaseException as raised:
        if raised is error:
            return False
        raise
