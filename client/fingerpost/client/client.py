"""The asynchronous client."""

from __future__ import annotations

import asyncio
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from fingerpost.basics.renames import renamed_arguments
from fingerpost.client.config import ClientConfig
from fingerpost.client.connect import ConnectMixin
from fingerpost.client.credential import Credential
from fingerpost.client.dispatch.call import Call, CallOptions, check_priority
from fingerpost.client.dispatch.dispatcher import Dispatcher
from fingerpost.client.images.load import image_key
from fingerpost.client.infer import InferMixin
from fingerpost.client.result import Result, Stats
from fingerpost.client.routing.policies.catalog import check_policy
from fingerpost.client.source import Source
from fingerpost.client.streaming.options import StreamOptions, check_images
from fingerpost.client.streaming.stream import Stream
from fingerpost.client.transport.deadlines import DeadlineScheduler
from fingerpost.client.transports import make_transport
from fingerpost.errors import ConfigurationError, FingerpostError
from fingerpost.registry import ModelReference

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterable,
        Coroutine,
        Iterable,
        Mapping,
        Sequence,
    )
    from types import TracebackType

    from fingerpost.client.images.load import ImageSource
    from fingerpost.client.resolver import Resolver
    from fingerpost.client.streaming.concurrency import Concurrency
    from fingerpost.client.streaming.options import Item, OnError
    from fingerpost.client.tracing import Tracing
    from fingerpost.client.transport.transport import Transport
    from fingerpost.registry import Registry, Snapshot
    from fingerpost.registry.config import RegistryConfig
    from fingerpost.security.tls import TlsConfig

__all__ = ["Client"]

_parse: Final = lru_cache(maxsize=256)(ModelReference.parse)


class Client(InferMixin, ConnectMixin):
    """Finds the workers that serve a model, and sends images straight to them.

    ::

        async with Client("http://proxy-1:12480", "http://proxy-2:12480") as client:
            result = await client.classify("cat.jpg", "flowers")
            print(result.label, result.score)

    A client belongs to the event loop in which it is first used. It reads nothing from the
    environment, and the constructor does no I/O.

    Args:
        sources: where to look up workers: URLs of proxies (`http://` or `https://`), as several
            arguments or as a list, which are asked in this order; or the URL of a registry, such
            as `consul://127.0.0.1:8500`, `zookeeper://HOST:PORT/PATH`, `static://HOST:PORT` or
            `embedded`, or several, whose workers are then one list; or a `Registry`, which the
            caller closes. By default the proxy on this machine.
        registry: a registry by its URL or as a `Registry`. Here an `http://` URL is one of Consul.
        registry_config: credentials, TLS and more for a registry named by its URL. Its
            `allow_networks` also applies to the workers that proxies name.
        config: see `ClientConfig`.
        tls: certificates; see `TlsConfig`. With its `ca`, no image is sent to a worker without a
            certificate of that authority. The same for `https://` URLs of proxies.
        tracing: makes an OpenTelemetry span of each image; see `Tracing`.
        priority: the class of all images that name none, such as `batch`; see `classify`.
        api_key: sent to the proxies, where they ask who calls; never to workers.
        token: a token of an OIDC issuer, instead.
        token_file: a file that holds either; it is read again when it changes.

    A client that cannot reach the workers sends its images through proxies that relay them:
    `Client("http://proxy-1:12480", config=ClientConfig(relay=True))`.

    Raises:
        ConfigurationError: a URL is not valid; proxies and a registry were both given; a registry
            was given to a client that relays or has an API key, and so needs proxies; or a
            credential is not valid.
    """

    @renamed_arguments("Client", registry_options="registry_config")
    def __init__(
        self,
        *sources: str | Sequence[str] | Registry,
        registry: str | Registry | None = None,
        registry_config: RegistryConfig | None = None,
        config: ClientConfig | None = None,
        tls: TlsConfig | None = None,
        tracing: Tracing | None = None,
        priority: str | None = None,
        api_key: str | None = None,
        token: str | None = None,
        token_file: str | None = None,
    ) -> None:
        credential = Credential.of(api_key=api_key, token=token, token_file=token_file)
        self._source = Source.of(sources, registry, registry_config, tls, credential=credential)
        self._config = ClientConfig() if config is None else config
        if not isinstance(self._config, ClientConfig):
            raise ConfigurationError(f"config={config!r} is not valid: use a ClientConfig")
        check_policy(self._config.routing)
        self._route = self._source.route(self._config)
        check_priority(priority)
        self._priority = priority
        self._tracing = tracing
        self._stats = Stats()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._resolver: Resolver | None = self._source.registry
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
        """End all streams, watches and connections. Calling it again has no effect.

        Calls of `classify` that are still in progress fail; await them first.
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
                self._deadlines.close()
                await transport.aclose()

    @property
    def stats(self) -> Stats:
        """The client's counters: the same object at every call, which updates it."""
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
        priority: str | None = None,
    ) -> Result:
        """Classify one image on a worker that the client chooses.

        A failed attempt is repeated at once on another worker, as far as the retry budget allows.
        When all workers were tried, the client waits and tries them again, until the deadline.

        Args:
            image: a path, encoded bytes, a file object, a PIL image, or a uint8 array `[H, W]`,
                `[H, W, 1]`, `[H, W, 3]` or `[H, W, 4]`. The last two are sent as PNG; to a worker
                on this host NumPy's `[H, W, 3]` goes as it is. A file object that cannot seek, or
                an iterator of bytes (also an async one), is sent while it is read, and once only.
            model: `digits`, `digits@3` or `digits@canary`.
            top: how many labels to return, 1 or more.
            timeout_s: seconds from this call to the result; `ClientConfig.timeout_s` if None.
            shrink: reduce the image to the size that the model needs before it is sent.
            sticky: images with the same text go to the same worker while that is usable.
            priority: the class, such as `batch`; that of the client if None.

        Raises:
            ImageError: the image is broken, too large, or of an unsupported kind.
            InvalidName: `model` is not a valid model reference.
            UnknownService, UnknownModel: no worker serves the model, or the version or alias.
            Unauthenticated: the proxies do not know the API key or token.
            Forbidden: they know it, and it may not use this model.
            Unauthorized: no proxy relays images (`ClientConfig.relay`).
            NoWorker: the service is known, but no healthy worker came within `wait_for_ready_s`.
            RegistryError: no proxy or registry answered the first lookup within `wait_for_ready_s`.
            DeadlineExceeded: no answer in time; its cause is the error of the last attempt.
            ModelFailed: the model failed on this image.
            Unreachable, BadAnswer: `RetryConfig.max_attempts` workers began on the
                image and broke off, or one did and the image can be read only once.
        """
        options = self._call_options(
            model, top=top, timeout_s=timeout_s, shrink=shrink, sticky=sticky, priority=priority
        )
        result = await self._classify(0, image_key(image, 0), image, options)
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
        priority: str | None = None,
    ) -> AsyncGenerator[Result]:
        """Classify many images; the results come as they are ready.

        At most `concurrency` images are in flight, and at most twice as many are read and not yet
        returned: memory does not grow with the length of the stream, and a slow consumer slows the
        reading down. A plain iterable is read in the event loop, so an iterable that blocks should
        be an async one. Leaving the loop early cancels what is in flight; to wait for that, use
        `async with contextlib.aclosing(client.stream(...)) as results`.

        Args:
            images: what `classify` takes, or pairs `(key, image)`, in any iterable, also an endless
                one.
            model: `digits`, `digits@3` or `digits@canary`.
            top: how many labels to return for each image, 1 or more.
            timeout_s: seconds from the start of an image, when it is read, to its result;
                `ClientConfig.timeout_s` if None.
            shrink: reduce each image to the size that the model needs before it is sent.
            concurrency: images in flight. `auto` raises it while that raises the number of answers
                a second, within `ClientConfig.stream_max_bytes`.
            on_error: `yield` returns the error of a failed image in its result; `raise` raises it.
            ordered: return the results in the order of the images; one slow image then delays the
                others.
            priority: see `classify`.

        Raises:
            ConfigurationError, InvalidName: at once, by this call.
        """
        check_images(images)
        stream_options = self._stream_options(concurrency, on_error, ordered=ordered)
        options = self._call_options(
            model, top=top, timeout_s=timeout_s, shrink=shrink, priority=priority
        )
        classify = partial(self._classify, options=options)
        return Stream(images, classify, stream_options, self._tasks).results()

    async def resolve(self, model: str) -> Snapshot:
        """The healthy workers that serve `model` now, and the age of that information.

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

    # The next three are for `SyncClient` too.

    def _stream_options(
        self, concurrency: Concurrency, on_error: OnError, *, ordered: bool
    ) -> StreamOptions:
        return StreamOptions(
            concurrency=concurrency,
            on_error=on_error,
            ordered=ordered,
            max_bytes=self._config.stream_max_bytes,
        )

    def _call_options(
        self,
        model: str,
        *,
        top: int,
        timeout_s: float | None,
        shrink: bool = False,
        sticky: str | None = None,
        priority: str | None = None,
    ) -> CallOptions:
        return CallOptions.checked(
            _parse(model),
            top=top,
            timeout_s=self._config.timeout_s if timeout_s is None else timeout_s,
            priority=self._priority if priority is None else priority,
            shrink=shrink,
            sticky=sticky,
        )

    def _classify(
        self, index: int, key: str, image: ImageSource, options: CallOptions
    ) -> Coroutine[Any, Any, Result]:
        """Classify one image of a stream; a `FingerpostError` becomes the result's `error`."""
        if self._tracing is None:
            return self._outcome(index, key, image, options)
        return self._traced(self._tracing, index, key, image, options)

    async def _traced(
        self, tracing: Tracing, index: int, key: str, image: ImageSource, options: CallOptions
    ) -> Result:
        span, headers = tracing.begin(str(options.reference))
        try:
            result = await self._outcome(index, key, image, options, headers)
            tracing.note(span, result)
            return result
        finally:
            span.end()

    async def _outcome(
        self,
        index: int,
        key: str,
        image: ImageSource,
        options: CallOptions,
        headers: Mapping[str, str] | None = None,
    ) -> Result:
        dispatcher = self._open()
        loop = asyncio.get_running_loop()
        started = loop.time()
        call = Call(options, began=started, headers=headers)
        try:
            answer = await dispatcher.run(call, image)
        except FingerpostError as error:
            origin = dispatcher.origin(call)
            return Result(
                index=index,
                key=key,
                error=error,
                worker=origin.worker,
                address=origin.address,
                relay=origin.relay,
                attempts=call.attempts,
                elapsed_s=loop.time() - started,
                retried=call.retried,
                image_bytes=call.image_bytes,
            )
        one = answer.results[0]
        origin = dispatcher.origin(call)
        return Result(
            index=index,
            key=key,
            predictions=one.predictions,
            model=answer.model,
            version=answer.version,
            worker=origin.worker,
            address=origin.address,
            relay=origin.relay,
            attempts=call.attempts,
            elapsed_s=loop.time() - started,
            retried=call.retried,
            image_bytes=call.image_bytes,
            timings_ms=one.timings_ms,
            answer=answer.typed,
        )

    def _open(self) -> Dispatcher:
        """Make what needs a running event loop, at first use."""
        loop = asyncio.get_running_loop()
        if self._closed:
            raise RuntimeError("this client was closed: make a new one")
        if self._dispatcher is None:
            self._loop = loop
            if self._resolver is None:
                self._resolver = self._source.resolver(self._config.connect_timeout_s)
            self._stats.rejected_entries = self._resolver.rejected_entries.by_reason
            self._deadlines = DeadlineScheduler()
            config, route, tls = self._config, self._route, self._source.tls
            self._transport = make_transport(config, self._deadlines, route, tls)
            self._dispatcher = Dispatcher(
                self._resolver,
                self._transport,
                self._deadlines,
                self._config,
                self._stats,
                self._route,
            )
        elif self._loop is not loop:
            raise RuntimeError("this client belongs to another event loop: make one for each")
        return self._dispatcher
