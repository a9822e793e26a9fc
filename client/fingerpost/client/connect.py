"""Requests of any protocol at a worker that the client picks: `connect` of the client."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fingerpost.client.dispatch.connect import may_retry, pick_worker
from fingerpost.errors import ConfigurationError
from fingerpost.registry import ModelReference

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from collections.abc import Set as AbstractSet

    from fingerpost.client.config import ClientConfig
    from fingerpost.client.dispatch.connect import ConnectedWorker
    from fingerpost.client.dispatch.dispatcher import Dispatcher

__all__ = ["ConnectMixin"]


class ConnectMixin:
    """`connect` of the asynchronous client."""

    _config: ClientConfig

    @asynccontextmanager
    async def connect(
        self,
        service: str,
        *,
        timeout_s: float | None = None,
        tried: AbstractSet[str] = frozenset(),
        sticky: str | None = None,
    ) -> AsyncIterator[ConnectedWorker]:
        """A worker for one request of any protocol, which the caller sends by himself.

        ::

            async with client.connect("flowers") as worker:
                async with session.post(f"{worker.url}/any/path", json=question) as answer:
                    ...

        It counts as one request in flight until the block ends. A worker that fails is left out,
        by the same rules as for images.

        Args:
            service: `flowers`, `flowers@3` or `flowers@canary`.
            timeout_s: how many seconds to wait for a worker; `ClientConfig.timeout_s` if None.
            tried: ids of workers that failed on this request, to be asked last.
            sticky: requests with the same text go to the same worker while that is usable.

        Raises:
            ConfigurationError: the client relays, and so reaches no worker.
            InvalidName, UnknownService, NoWorker, RegistryError, DeadlineExceeded: see `classify`.
            TlsFailed: the worker speaks no TLS, and must (`TlsConfig.ca`).
        """
        if self._config.relay:
            raise ConfigurationError(
                "connect: this client relays its images, so that it cannot reach workers; use one "
                "without ClientConfig.relay"
            )
        worker = await pick_worker(
            self._open(),
            ModelReference.parse(service),
            timeout_s=self._config.timeout_s if timeout_s is None else timeout_s,
            tried=tried,
            sticky=sticky,
        )
        async with worker:
            yield worker

    def _may_retry(self) -> bool:
        """Take a retry out of the budget; False where there is none left."""
        return may_retry(self._open())

    def _open(self) -> Dispatcher:
        raise NotImplementedError
