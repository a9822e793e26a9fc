"""The client for programs without an event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import queue
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from fingerpost.basics.renames import renamed_arguments
from fingerpost.client.client import Client
from fingerpost.client.credential import Secret
from fingerpost.client.streaming.concurrency import LimitSemaphore
from fingerpost.client.streaming.options import check_images, keyed
from fingerpost.client.streaming.window import StreamWindow
from fingerpost.client.sync_connect import SyncConnectMixin

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
    from types import TracebackType

    from fingerpost.client.config import ClientConfig
    from fingerpost.client.dispatch.call import CallOptions
    from fingerpost.client.images.load import ImageSource
    from fingerpost.client.result import Result, Stats
    from fingerpost.client.streaming.concurrency import Concurrency
    from fingerpost.client.streaming.options import Item, OnError, StreamOptions
    from fingerpost.client.tasks.inputs import InferSource
    from fingerpost.client.tasks.results import TaskResult
    from fingerpost.client.tracing import Tracing
    from fingerpost.registry import Registry, Snapshot
    from fingerpost.registry.config import RegistryConfig
    from fingerpost.security.tls import TlsConfig

__all__ = ["SyncClient"]

T = TypeVar("T")

_END: Final[Any] = object()
_CLOSED: Final = "this client was closed: make a new one"


class SyncClient(SyncConnectMixin):
    """`Client` for threads: the same arguments, methods and errors, without `async`.

    ::

        with SyncClient() as client:
            for result in client.stream(paths, model="flowers"):
                print(result.key, result.label)

    An event loop runs in a daemon thread from the first call until `close`, or until the client is
    garbage-collected. Several threads may use one client at the same time; they share its
    connections and what it knows about the workers.

    After a fork the child process gets an event loop, connections and `stats` of its own with its
    first call, and does not touch those of its parent. A client can be pickled at any time: the
    copy is a new client with the same arguments. Neither works with a `Registry` object: pass the
    registry's URL.
    """

    @renamed_arguments("SyncClient", registry_options="registry_config")
    def __init__(
        self,
        *sources: str | Sequence[str] | Registry,
        registry: str | Registry | None = None,
        registry_config: RegistryConfig | None = None,
        config: ClientConfig | None = None,
        tracing: Tracing | None = None,
        api_key: str | None = None,
        token: str | None = None,
        token_file: str | None = None,
        tls: TlsConfig | None = None,
        priority: str | None = None,
    ) -> None:
        self._make = partial(
            Client,
            *sources,
            registry=registry,
            registry_config=registry_config,
            config=config,
            tls=tls,
            tracing=tracing,
            priority=priority,
            api_key=None if api_key is None else Secret(api_key),
            token=None if token is None else Secret(token),
            token_file=token_file,
        )
        self._client = self._make()
        self._lock = threading.Lock()
        self._runner: _Runner | None = None
        self._closed = ""  # the reason, once it is closed
        _clients.add(self)

    def __reduce__(self) -> tuple[partial[SyncClient], tuple[()]]:
        if self._holds_registry:
            raise TypeError(
                "a client of a Registry object cannot be pickled: pass the registry's URL"
            )
        return partial(type(self), *self._make.args, **self._make.keywords), ()

    def __del__(self) -> None:
        if (runner := getattr(self, "_runner", None)) is not None:
            runner.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the event loop and its thread; calls in progress in other threads fail."""
        with self._lock:
            self._closed = self._closed or _CLOSED
            runner, self._runner = self._runner, None
        if runner is not None:
            runner.stop()

    @property
    def stats(self) -> Stats:
        """The client's counters; see `Client.stats`."""
        return self._client.stats

    def classify(
        self,
        image: ImageSource,
        model: str,
        *,
        top: int = 5,
        timeout_s: float | None = None,
        shrink: bool = False,
        sticky: str | None = None,
        priority: str | None = None,
    ) -> Result:
        """Classify one image and wait for the result; see `Client.classify`."""
        return self._call(
            lambda: self._client.classify(
                image,
                model,
                top=top,
                timeout_s=timeout_s,
                shrink=shrink,
                sticky=sticky,
                priority=priority,
            )
        )

    def infer(self, image: InferSource, model: str, *, top: int = 5, **options: Any) -> TaskResult:
        """The answer of a model's task for one image; the options are those of `Client.infer`."""
        return self._call(lambda: self._client.infer(image, model, top=top, **options))

    def resolve(self, model: str) -> Snapshot:
        """The healthy workers that serve `model` now; see `Client.resolve`."""
        return self._call(lambda: self._client.resolve(model))

    def services(self) -> tuple[str, ...]:
        """The names of all services; see `Client.services`."""
        return self._call(self._client.services)

    def stream(
        self,
        images: Iterable[Item],
        model: str,
        *,
        top: int = 5,
        concurrency: Concurrency = "auto",
        timeout_s: float | None = None,
        on_error: OnError = "yield",
        ordered: bool = False,
        shrink: bool = False,
        priority: str | None = None,
    ) -> Generator[Result]:
        """Classify many images; see `Client.stream`.

        `images` is read in the calling thread, between the results.
        """
        check_images(images)
        client = self._client
        stream_options = client._stream_options(concurrency, on_error, ordered=ordered)
        options = client._call_options(
            model, top=top, timeout_s=timeout_s, shrink=shrink, priority=priority
        )
        return self._stream(images, stream_options, options)

    def _stream(
        self, images: Iterable[Item], stream_options: StreamOptions, options: CallOptions
    ) -> Generator[Result]:
        client = self._client
        source = iter(images)
        window = StreamWindow(stream_options)
        limit = window.limit
        semaphore = LimitSemaphore(limit)
        finished: queue.SimpleQueue[concurrent.futures.Future[Result]] = queue.SimpleQueue()
        sent: set[concurrent.futures.Future[Result]] = set()

        async def limited(index: int, key: str, image: ImageSource) -> Result:
            async with semaphore.slot():
                result = await client._classify(index, key, image, options)
                limit.answered(asyncio.get_running_loop().time(), semaphore.in_use, result)
                return result

        def start(index: int, item: Item) -> None:
            key, image = keyed(item, index)
            future = self._start(lambda: limited(index, key, image))
            sent.add(future)
            future.add_done_callback(finished.put)

        try:
            while True:
                # Read on while there is room, unless a result is ready to be returned.
                while window.has_room():
                    window.claim()
                    item = next(source, _END)
                    if item is _END:
                        window.end()
                        break
                    start(window.read(), item)
                    if not finished.empty():
                        break
                if window.done:
                    return
                if client is not self._client:
                    raise RuntimeError("this stream was begun before a fork: begin one here")
                future = finished.get()
                sent.discard(future)
                window.add(_result(future))
                while (result := window.take()) is not None:
                    yield result
        finally:
            if client is self._client:  # otherwise these belong to the parent process
                for future in sent:
                    future.cancel()

    def _call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        future = self._start(make)
        try:
            return _result(future)
        finally:
            future.cancel()  # if this thread was interrupted; otherwise the call has ended

    def _start(self, make: Callable[[], Coroutine[Any, Any, T]]) -> concurrent.futures.Future[T]:
        with self._lock:
            if self._closed:
                raise RuntimeError(self._closed)
            if self._runner is None:
                try:
                    self._runner = _Runner(self._client)
                except BaseException:  # such as Ctrl-C: the thread may have started
                    self._client = self._make()
                    raise
            return asyncio.run_coroutine_threadsafe(make(), self._runner.loop)

    @property
    def _holds_registry(self) -> bool:
        sources = (*self._make.args, self._make.keywords["registry"])
        return not all(isinstance(each, str | list | tuple | None) for each in sources)

    def _hold(self) -> None:
        """Before a fork: take the lock, and stop the thread between two callbacks."""
        if self._lock.acquire(timeout=_HOLD_S):
            _held.append(self)
            if self._runner is not None:
                self._runner.hold()

    def _let_go(self) -> None:
        if self._runner is not None:
            self._runner.let_go()
        self._lock.release()

    def _forked(self) -> None:
        """Start afresh in the child, which has neither the thread nor the holder of the lock."""
        self._lock = threading.Lock()
        if self._runner is None:
            return
        _abandoned.append(self._runner)
        self._runner = None
        self._client = self._make()
        if self._holds_registry and not self._closed:
            self._closed = (
                "this client's Registry belongs to the parent process: pass the registry's URL "
                "instead, or make a new client in this process"
            )


_clients: Final[weakref.WeakSet[SyncClient]] = weakref.WeakSet()
# Kept, because closing a copy of the parent's event loop would remove sockets from the epoll set
# that both processes share.
_abandoned: Final[list[_Runner]] = []

# A lock that another thread holds during a fork stays locked in the child: for example that of a
# module which it is importing. So the clients' threads are stopped where they hold no lock during a
# fork, unless one of them takes longer than this to get there.
_HOLD_S: Final = 1.0
_forking: Final = threading.RLock()
_held: Final[list[SyncClient]] = []


def _before_fork() -> None:
    _forking.acquire()
    for client in list(_clients):
        client._hold()


def _after_fork() -> None:
    while _held:
        _held.pop()._let_go()
    _forking.release()


def _after_fork_in_child() -> None:
    _held.clear()
    for client in list(_clients):
        client._forked()
    _forking.release()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork,
        after_in_child=_after_fork_in_child,
    )


class _Runner:
    """A daemon thread that runs the client's event loop until `stop` or `end`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stop = asyncio.Event()
        self._go = threading.Event()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fingerpost client", daemon=True)
        try:
            self._thread.start()
        except BaseException:  # such as Ctrl-C: the thread may run, and nobody would end it
            self.end()
            raise

    def end(self) -> None:
        """Close the client and cancel what is left, without waiting."""
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self.loop.call_soon_threadsafe(self._stop.set)

    def stop(self) -> None:
        """Close the client, cancel what is left, and wait for the end of the thread."""
        self.end()
        self._thread.join()

    def hold(self) -> None:
        """Stop the thread between two callbacks until `let_go`; wait until it has stopped."""
        if threading.current_thread() is self._thread:
            return
        self._go.clear()
        there = threading.Event()

        def stay() -> None:
            there.set()
            self._go.wait()

        with contextlib.suppress(RuntimeError):  # the loop was closed
            self.loop.call_soon_threadsafe(stay)
            there.wait(_HOLD_S)

    def let_go(self) -> None:
        self._go.set()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        async with self._client:
            await self._stop.wait()


def _result(future: concurrent.futures.Future[T]) -> T:
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        raise RuntimeError("the client was closed during this call") from None
