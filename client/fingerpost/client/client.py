"""The asynchronous client: where a program that has images begins."""

from __future__ import annotations

import asyncio
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from fingerpost.client.config import ClientConfig
from fingerpost.client.dispatch.call import Job
from fingerpost.client.dispatch.dispatcher import Dispatcher
from fingerpost.client.images.load import image_key
from fingerpost.client.resolver import ProxyResolver, RegistryResolver, proxy_url
from fingerpost.client.result import Result, Stats
from fingerpost.client.route.relayed import Relayed
from fingerpost.client.route.route import DIRECT
from fingerpost.client.streaming.stream import Stream, StreamOptions, check_several
from fingerpost.client.transport.deadlines import Sweep
from fingerpost.client.transport.transport import Transport
from fingerpost.errors import ConfigurationError, FingerpostError
from fingerpost.registry import ModelReference
from fingerpost.registry.factory import open_registry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Coroutine, Iterable, Mapping
    from types import TracebackType

    from fingerpost.client.images.load import ImageSource
    from fingerpost.client.resolver import Resolver
    from fingerpost.client.route.route import Way
    from fingerpost.client.streaming.concurrency import Concurrency
    from fingerpost.client.streaming.stream import Item, OnError
    from fingerpost.client.tracing import Tracing
    from fingerpost.registry import Registry, Snapshot
    from fingerpost.registry.config import RegistryConfig

__all__ = ["DEFAULT_PROXY", "Client", "Request"]

DEFAULT_PROXY: Final = "http://127.0.0.1:12480"

_parse: Final = lru_cache(maxsize=256)(ModelReference.parse)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of each image of a call: see `Client.classify`."""

    reference: ModelReference
    top: int
    timeout_s: float
    shrink: bool = False
    sticky: str | None = None


class Client:
    """Asks where the workers are, and sends images straight to them.

    ::

        async with Client("http://proxy-1:12480", "http://proxy-2:12480") as client:
            result = await client.classify("cat.jpg", "flowers")
            print(result.label, result.score)

    It learns of workers from proxies, in the order given, or straight from a registry: a URL such
    as `consul://127.0.0.1:8500`, with `registry_config` to be let in there, or a `Registry`,
    which stays the caller's to close. Without either it asks a proxy on this machine. Nothing is
    read from the environment, and the constructor does no I/O. A client belongs to the event loop
    in which it is first used. With `tracing` each image is an OpenTelemetry span.

    A client that cannot reach the workers sends its images through proxies that relay:
    `Client("http://proxy-1:12480", config=ClientConfig(relay=True))`.

    Raises:
        ConfigurationError: an address that is none, both proxies and a registry, or a registry
            for a client that needs proxies, to relay.
    """

    def __init__(
        self,
        *proxies: str,
        registry: str | Registry | None = None,
        registry_config: RegistryConfig | None = None,
        config: ClientConfig | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        if proxies and registry is not None:
            raise ConfigurationError("both proxies and a registry were given: use either")
        self._proxies = [proxy_url(each) for each in proxies or (DEFAULT_PROXY,)]
        self._config = config or ClientConfig()
        self._way: Way = DIRECT
        if self._config.relay:
            if registry is not None:
                raise ConfigurationError(
                    "images are relayed by proxies, and a registry was given: name the proxies"
                )
            self._way = Relayed(self._proxies)
        self._tracing = tracing
        self._stats = Stats()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._resolver: Resolver | None = None
        if isinstance(registry, str):
            self._resolver = RegistryResolver(open_registry(registry, registry_config), owned=True)
        elif registry is not None:
            self._resolver = RegistryResolver(registry, owned=False)
        self._transport: Transport | None = None
        self._dispatcher: Dispatcher | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End all streams, watches and connections. Calling it again does nothing.

        Calls of `classify` that are still waiting fail; end them first.
        """
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._dispatcher is not None:
            await self._dispatcher.aclose()
        resolver, self._resolver = self._resolver, None
        transport, self._transport = self._transport, None
        try:
            if resolver is not None:
                await resolver.aclose()
        finally:
            if transport is not None:
                self._sweep.close()
                await transport.aclose()

    @property
    def stats(self) -> Stats:
        """The counters; the same object every time, brought up to date by this call."""
        if self._dispatcher is not None:
            self._stats.lookups = self._dispatcher.lookups
        return self._stats

    async def classify(
        self,
        image: ImageSource,
        model: str,
        *,
        top: int = 5,
        timeout_s: float | None = None,
        shrink: bool = False,
        sticky: str | None = None,
    ) -> Result:
        """Classify one image on whichever worker answers.

        Failed attempts go to another worker at once, as far as the budget of retries allows; after
        all were tried, again after a pause, until the deadline.

        Args:
            image: a path, encoded bytes, a file object, a PIL image, or a uint8 array `[H, W]`,
                `[H, W, 1]`, `[H, W, 3]` or `[H, W, 4]`; the last two are sent as PNG. A file
                object that cannot seek, or an iterator of bytes, sync or async, is sent as it
                is read, and cannot be sent again once that has begun.
            model: `digits`, `digits@3` or `digits@canary`.
            top: how many labels to ask for, 1 or more.
            timeout_s: seconds from this call to the result; `ClientConfig.timeout_s` if None.
            shrink: make the image as small as the model wants it before it is sent.
            sticky: requests of the same word go to the same worker while it is usable.

        Raises:
            ImageError: the image is none, is broken or too large; no worker would take it.
            InvalidName: `model` is no model reference.
            UnknownService, UnknownModel: nobody serves it, or not that version or alias.
            Unauthorized: no proxy relays, and that was asked of them (`ClientConfig.relay`).
            NoWorker: known, but no worker came within `no_worker_s`.
            RegistryError: no proxy or registry answered within `no_worker_s`, at first use.
            DeadlineExceeded: no answer in time; its cause is the last attempt's error.
            ModelFailed: the model itself failed on this image.
            Unreachable, BadAnswer: `RetryConfig.max_attempts` workers began on it and broke off,
                or one did and the image can be read only once.
        """
        request = self.request(model, top=top, timeout_s=timeout_s, shrink=shrink, sticky=sticky)
        result = await self.outcome(0, image_key(image, 0), image, request)
        if result.error is not None:
            raise result.error
        return result

    def stream(
        self,
        images: Iterable[Item] | AsyncIterable[Item],
        model: str,
        *,
        top: int = 5,
        concurrency: Concurrency = "auto",
        timeout_s: float | None = None,
        on_error: OnError = "yield",
        ordered: bool = False,
        shrink: bool = False,
    ) -> AsyncGenerator[Result]:
        """Classify many images; the results come as they are ready.

        At most `concurrency` images are in flight, and at most twice as many are read and not yet
        handed out: memory does not grow with the stream, and a slow consumer slows the reading. A
        plain iterable is read in the event loop, so one that blocks should be an async iterable.
        Leaving the loop early cancels what is in flight; to wait for that, use `async with
        contextlib.aclosing(client.stream(...)) as results`.

        Args:
            images: what `classify` takes, or pairs `(key, image)`, in any iterable, endless ones
                too.
            model, top, timeout_s, shrink: as in `classify`; the time counts for each image on its
                own.
            concurrency: images in flight; `auto` raises it while that brings more answers a
                second, within `ClientConfig.stream_mb`.
            on_error: `yield` gives a failed image's error in its result; `raise` raises it.
            ordered: results in the order of the images; one slow image then holds up the others.

        Raises:
            ConfigurationError, InvalidName: at once, by this call.
        """
        check_several(images)
        options = self.stream_options(concurrency, on_error, ordered=ordered)
        request = self.request(model, top=top, timeout_s=timeout_s, shrink=shrink)
        classify = partial(self.outcome, request=request)
        return Stream(images, classify, options, self._tasks).results()

    async def resolve(self, model: str) -> Snapshot:
        """The workers that serve `model` now, with the age of that knowledge.

        Raises:
            InvalidName, UnknownService, RegistryError: see `classify`.
        """
        reference = _parse(model)
        view = await self._open().resolve(reference.model)
        return msgspec.structs.replace(view, instances=view.matching(reference))

    async def services(self) -> tuple[str, ...]:
        """The names of all services. Raises `RegistryError`."""
        self._open()
        if self._resolver is None:
            raise RuntimeError("the client was closed")
        return await self._resolver.services()

    def stream_options(
        self, concurrency: Concurrency, on_error: OnError, *, ordered: bool
    ) -> StreamOptions:
        """Check how a stream shall run. Raises `ConfigurationError`."""
        return StreamOptions(
            concurrency=concurrency,
            on_error=on_error,
            ordered=ordered,
            most_bytes=self._config.stream_mb * 1e6,
        )

    def request(
        self,
        model: str,
        *,
        top: int,
        timeout_s: float | None,
        shrink: bool = False,
        sticky: str | None = None,
    ) -> Request:
        """Check what is asked of each image. Raises `InvalidName`, `ConfigurationError`."""
        timeout_s = self._config.timeout_s if timeout_s is None else timeout_s
        if top < 1:
            raise ConfigurationError(f"top={top}: use 1 or more")
        if not 0 < timeout_s < float("inf"):
            raise ConfigurationError(f"timeout_s={timeout_s}: use a number above 0")
        return Request(
            reference=_parse(model), top=top, timeout_s=timeout_s, shrink=shrink, sticky=sticky
        )

    def outcome(
        self, index: int, key: str, image: ImageSource, request: Request
    ) -> Coroutine[Any, Any, Result]:
        """Classify one image of a stream; a `FingerpostError` becomes the result's `error`."""
        if self._tracing is None:
            return self._outcome(index, key, image, request)
        return self._traced(self._tracing, index, key, image, request)

    async def _traced(
        self, tracing: Tracing, index: int, key: str, image: ImageSource, request: Request
    ) -> Result:
        span, headers = tracing.begin(str(request.reference))
        try:
            result = await self._outcome(index, key, image, request, headers)
            tracing.note(span, result)
            return result
        finally:
            span.end()

    async def _outcome(
        self,
        index: int,
        key: str,
        image: ImageSource,
        request: Request,
        headers: Mapping[str, str] | None = None,
    ) -> Result:
        dispatcher = self._open()
        loop = asyncio.get_running_loop()
        started = loop.time()
        job = Job(
            request.reference,
            top=request.top,
            deadline=started + request.timeout_s,
            shrink=request.shrink,
            sticky=request.sticky,
            headers=headers,
        )
        try:
            answer = await dispatcher.run(job, image)
        except FingerpostError as error:
            origin = dispatcher.origin(job)
            return Result(
                index=index,
                key=key,
                error=error,
                worker=origin.worker,
                address=origin.address,
                relay=origin.relay,
                attempts=job.attempts,
                elapsed_s=loop.time() - started,
                retried=job.retried,
                image_bytes=job.image_bytes,
            )
        one = answer.results[0]
        origin = dispatcher.origin(job)
        return Result(
            index=index,
            key=key,
            predictions=one.predictions,
            model=answer.model,
            version=answer.version,
            worker=origin.worker,
            address=origin.address,
            relay=origin.relay,
            attempts=job.attempts,
            elapsed_s=loop.time() - started,
            retried=job.retried,
            image_bytes=job.image_bytes,
            timings_ms=one.timings_ms,
        )

    def _open(self) -> Dispatcher:
        """What needs a running loop is made at first use."""
        loop = asyncio.get_running_loop()
        if self._closed:
            raise RuntimeError("this client was closed: make a new one")
        if self._dispatcher is None:
            self._loop = loop
            if self._resolver is None:
                self._resolver = ProxyResolver(self._proxies, connect_s=self._config.connect_s)
            self._sweep = Sweep()
            self._transport = Transport(self._config, self._sweep, self._way)
            self._dispatcher = Dispatcher(
                self._resolver, self._transport, self._sweep, self._config, self._stats, self._way
            )
        elif self._loop is not loop:
            raise RuntimeError("this client belongs to another event loop: make one for each")
        return self._dispatcher
