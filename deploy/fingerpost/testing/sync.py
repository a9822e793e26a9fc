"""A cluster for tests without an event loop of their own: it runs in a thread."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Self, TypeVar

from fingerpost.testing.cluster import FakeCluster, fake_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from typing import Any

    from fingerpost.registry import Instance
    from fingerpost.testing.behaviour import ReceivedImage
    from fingerpost.testing.models import FakeModel
    from fingerpost.testing.worker import FakeWorker

__all__ = ["SyncFakeCluster", "SyncFakeWorker", "sync_fake_cluster"]

T = TypeVar("T")


def sync_fake_cluster(
    models: Mapping[str, FakeModel],
    *,
    workers: int = 1,
    aliases: Mapping[str, Mapping[str, str]] | None = None,
    check_images: bool = False,
    relay: bool = False,
) -> SyncFakeCluster:
    """A cluster for `with`; the arguments and errors are those of `fake_cluster`.

    ::

        with sync_fake_cluster({"flowers": "daisy"}) as cluster:
            with SyncClient(cluster.proxy_url) as client:
                assert client.classify(b"an image", "flowers").label == "daisy"
    """
    return SyncFakeCluster(
        fake_cluster(
            models, workers=workers, aliases=aliases, check_images=check_images, relay=relay
        )
    )


class SyncFakeCluster:
    """A `FakeCluster` in a thread with an event loop; every method blocks until it is done."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster
        self._loop = _LoopThread()
        self._workers: list[SyncFakeWorker] = []

    def __enter__(self) -> Self:
        """Start everything; return once the proxy lists all workers."""
        self._loop.start()
        try:
            self._loop.call(self._cluster.__aenter__)
        except BaseException:
            self._loop.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._loop.call(lambda: self._cluster.__aexit__(None, None, None))
        finally:
            self._loop.stop()

    @property
    def proxy_url(self) -> str:
        """See `FakeCluster.proxy_url`."""
        return self._cluster.proxy_url

    @property
    def registry_url(self) -> str:
        """See `FakeCluster.registry_url`."""
        return self._cluster.registry_url

    @property
    def workers(self) -> list[SyncFakeWorker]:
        """The workers, in the order in which they were added."""
        for worker in self._cluster.workers[len(self._workers) :]:
            self._workers.append(SyncFakeWorker(worker, self._loop))
        return list(self._workers)

    def add_worker(
        self,
        models: Mapping[str, FakeModel] | None = None,
        *,
        aliases: Mapping[str, Mapping[str, str]] | None = None,
        zone: str = "",
        weight: int = 1,
    ) -> SyncFakeWorker:
        """See `FakeCluster.add_worker`."""
        add = self._cluster.add_worker
        self._loop.call(lambda: add(models, aliases=aliases, zone=zone, weight=weight))
        return self.workers[-1]

    def settled(self, *, timeout_s: float = 10.0) -> None:
        """See `FakeCluster.settled`."""
        self._loop.call(lambda: self._cluster.settled(timeout_s=timeout_s))

    def stop_proxy(self) -> None:
        """See `FakeCluster.stop_proxy`."""
        self._loop.call(self._cluster.stop_proxy)

    def start_proxy(self) -> None:
        """See `FakeCluster.start_proxy`."""
        self._loop.call(self._cluster.start_proxy)

    def stop_registry(self) -> None:
        """See `FakeCluster.stop_registry`."""
        self._loop.call(self._cluster.stop_registry)

    def start_registry(self) -> None:
        """See `FakeCluster.start_registry`."""
        self._loop.call(self._cluster.start_registry)


class SyncFakeWorker:
    """A `FakeWorker` of a `SyncFakeCluster`; every method blocks until it is done."""

    def __init__(self, worker: FakeWorker, loop: _LoopThread) -> None:
        self._worker = worker
        self._loop = loop

    @property
    def url(self) -> str:
        """See `FakeWorker.url`."""
        return self._worker.url

    @property
    def instances(self) -> tuple[Instance, ...]:
        """See `FakeWorker.instances`."""
        return self._worker.instances

    @property
    def draining(self) -> bool:
        """See `FakeWorker.draining`."""
        return self._worker.draining

    @property
    def received(self) -> tuple[ReceivedImage, ...]:
        """See `FakeWorker.received`."""
        return self._worker.received

    @property
    def in_flight(self) -> int:
        """See `FakeWorker.in_flight`."""
        return self._worker.in_flight

    @property
    def delay_s(self) -> float:
        """See `FakeWorker.delay_s`."""
        return self._worker.delay_s

    @delay_s.setter
    def delay_s(self, delay_s: float) -> None:
        self._worker.delay_s = delay_s

    def pause(self) -> None:
        """See `FakeWorker.pause`."""
        self._worker.pause()

    def resume(self) -> None:
        """See `FakeWorker.resume`."""
        self._worker.resume()

    def fail(self, error: Exception, *, times: int | None = None) -> None:
        """See `FakeWorker.fail`."""
        self._worker.fail(error, times=times)

    def overload(self, *, retry_after_s: float = 1.0) -> None:
        """See `FakeWorker.overload`."""
        self._worker.overload(retry_after_s=retry_after_s)

    def recover(self) -> None:
        """See `FakeWorker.recover`."""
        self._worker.recover()

    def drain(self) -> None:
        """See `FakeWorker.drain`."""
        self._loop.call(self._worker.drain)

    def kill(self) -> None:
        """See `FakeWorker.kill`."""
        self._loop.call(self._worker.kill)

    def restart(self) -> None:
        """See `FakeWorker.restart`."""
        self._loop.call(self._worker.restart)


class _LoopThread:
    """An event loop in a thread, for coroutines of other threads."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._ended: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="fake cluster", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._started.wait()

    def call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in the loop, and wait for its result."""
        if self._loop is None:
            raise RuntimeError("the cluster is not running: use it within its `with` block")
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result()

    def stop(self) -> None:
        if self._loop is not None and self._ended is not None:
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop = None

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._started.set()
        await self._ended.wait()
