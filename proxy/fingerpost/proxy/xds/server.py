"""The gRPC server of a proxy that serves xDS: the aggregated discovery service (ADS)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import server as make_server

from fingerpost.basics.log_limit import LogLimit
from fingerpost.basics.printable import one_line
from fingerpost.basics.supervision import supervise
from fingerpost.errors import ConfigurationError, FingerpostError
from fingerpost.proxy.xds.catalog import TYPES, target_of
from fingerpost.proxy.xds.messages import message_class
from fingerpost.proxy.xds.session import TooManyNames
from fingerpost.proxy.xds.stream import DeltaStream, WholeStream
from fingerpost.registry.access.callers import may_see
from fingerpost.registry.grpc.call_head import CallHead
from fingerpost.registry.grpc.credentials import server_credentials
from fingerpost.registry.grpc.status import status_code
from fingerpost.registry.http.app import bind
from fingerpost.registry.instance import format_address
from fingerpost.security.callers.refusal import NotAllowed

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Hashable, Iterable
    from typing import Self, TypeAlias

    from fingerpost.proxy.directory import Directory
    from fingerpost.proxy.metrics import ProxyMetrics
    from fingerpost.proxy.xds.catalog import XdsCatalog
    from fingerpost.proxy.xds.stream import Stream
    from fingerpost.proxy.xds_config import XdsConfig
    from fingerpost.registry.access import Callers
    from fingerpost.security.tls import TlsConfig

    _Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

__all__ = ["XdsServer"]

logger = logging.getLogger(__name__)

_PACKAGE: Final = "envoy.service.discovery.v3"
_SERVICE: Final = f"{_PACKAGE}.AggregatedDiscoveryService"
_PATH: Final = f"/{_SERVICE}"  # in logs; both variants are the same there
_ACTION: Final = "xds"
_Request = message_class(f"{_PACKAGE}.DiscoveryRequest")
_Response = message_class(f"{_PACKAGE}.DiscoveryResponse")
_DeltaRequest = message_class(f"{_PACKAGE}.DeltaDiscoveryRequest")
_DeltaResponse = message_class(f"{_PACKAGE}.DeltaDiscoveryResponse")

_MAX_REQUEST_BYTES: Final = 1 << 20  # a thousand names of the longest kind have a quarter of that
_KEEPALIVE_MS: Final = 30_000
_HANDSHAKE_MS: Final = 10_000
_LOG_EVERY_S: Final = 10.0
_GRACE_S: Final = 1.0


class XdsServer:
    """Tells each client of the workers of the models that it follows, whenever they change.

    Args:
        directory: the snapshots of services.
        catalog: the resources that exist.
        config: its settings.
        metrics: the proxy's metrics.
        callers: who may ask, and for which models.
    """

    def __init__(
        self,
        directory: Directory,
        catalog: XdsCatalog,
        config: XdsConfig,
        metrics: ProxyMetrics,
        callers: Callers,
    ) -> None:
        self._directory = directory
        self._catalog = catalog
        self._config = config
        self._metrics = metrics.xds
        self._callers = callers
        self._streams: set[Stream] = set()
        self._states: dict[str, Hashable] = {}
        self._models: Hashable = None
        self._rejections = LogLimit(_LOG_EVERY_S)
        self._server = make_server(
            options=[
                # The successor of a proxy that hands over listens on the same port.
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", _MAX_REQUEST_BYTES),
                ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
                ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
                ("grpc.http2.min_ping_interval_without_data_ms", 5000),
            ]
        )
        methods = {
            name: grpc.stream_stream_rpc_method_handler(
                work, response_serializer=response.SerializeToString
            )
            for name, work, response in (
                ("StreamAggregatedResources", self._whole, _Response),
                ("DeltaAggregatedResources", self._delta, _DeltaResponse),
            )
        }
        handler = grpc.method_handlers_generic_handler(_SERVICE, methods)
        self._server.add_generic_rpc_handlers((handler,))
        self._watcher: asyncio.Task[None] | None = None
        self._leaving = False
        self.port = 0

    async def start(self, host: str, port: int, tls: TlsConfig, *, shared: bool) -> Self:
        """Listen.

        Args:
            host, port: where; port 0 picks a free one.
            tls: with a certificate, it speaks TLS.
            shared: whether a predecessor, which hands over, may listen there too.

        Raises:
            ConfigurationError: the port is in use, or the address is not one of this machine.
        """
        address = format_address(host, port)
        try:
            if port and not shared:
                bind(host, port).close()  # gRPC would share it with any process of this user
            if tls.serves:
                self.port = self._server.add_secure_port(address, server_credentials(tls))
            else:
                self.port = self._server.add_insecure_port(address)
        except (ConfigurationError, RuntimeError) as error:
            await self._server.stop(None)
            raise ConfigurationError(
                f"cannot listen on {address} for xDS: give another port (--xds-port), or 0 for a "
                "free one"
            ) from error
        await self._server.start()
        self._watcher = asyncio.create_task(supervise(self._watch, "xds"), name="xds")
        return self

    async def leave(self) -> None:
        """End all streams: their clients go to another proxy, and keep what they know meanwhile."""
        self._leaving = True
        for stream in self._streams:
            stream.wake.set()
        await self._server.stop(_GRACE_S)

    async def aclose(self) -> None:
        """Stop at once."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self._server.stop(None)

    async def _whole(self, request_iterator: Any, context: _Context) -> None:
        """State of the world: a response has all resources that are asked for."""
        await self._serve(WholeStream, _decoded(_Request, request_iterator), context)

    async def _delta(self, request_iterator: Any, context: _Context) -> None:
        """Incremental: a response has what is new, changed or gone."""
        await self._serve(DeltaStream, _decoded(_DeltaRequest, request_iterator), context)

    def callers_changed(self) -> None:
        """Find out again who the clients are, and what they may use."""
        for stream in self._streams:
            stream.identify_again = True
            stream.wake.set()

    async def _serve(self, kind: type[Stream], requests: Any, context: _Context) -> None:
        head = CallHead(_PATH, context)
        stream = kind(self._config.max_names, self._catalog, head)
        await self._identify(stream, context)
        if len(self._streams) >= self._config.max_streams:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{len(self._streams)} clients follow this proxy already: ask another one",
            )
        self._streams.add(stream)
        self._metrics.streams.set(len(self._streams))
        reader = asyncio.create_task(self._read(stream, requests, context), name="xds reader")
        try:
            await self._tell(stream, reader, context)
            if reader.done() and not reader.cancelled() and (error := reader.exception()):
                if isinstance(error, TooManyNames):
                    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
                if isinstance(error, DecodeError):
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
                raise error
        finally:
            self._streams.discard(stream)
            self._metrics.streams.set(len(self._streams))
            self._count_rejecting()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _identify(self, stream: Stream, context: _Context) -> None:
        """Find out who a client is, or end its call."""
        stream.identify_again = False
        try:
            stream.caller = await self._callers.identify(stream.head, _ACTION)
        except FingerpostError as error:
            await context.abort(status_code(error), error.message)
        left_s = self._callers.seconds_left(stream.head)
        loop = asyncio.get_running_loop()
        stream.ends_at = None if math.isinf(left_s) else loop.time() + left_s

    async def _tell(self, stream: Stream, reader: asyncio.Task[None], context: _Context) -> None:
        """Send what there is to tell, until its requests end."""
        while not (reader.done() or self._leaving):
            try:
                async with asyncio.timeout_at(stream.ends_at):
                    await stream.wake.wait()
            except TimeoutError:
                await context.abort(
                    grpc.StatusCode.UNAUTHENTICATED,
                    "the token has expired: connect again with a new one",
                )
            stream.wake.clear()
            if stream.identify_again:
                await self._identify(stream, context)
            for type_url in TYPES:
                response = stream.response(type_url)
                if response is not None:
                    self._metrics.responses.labels(type_url.rpartition(".")[2]).inc()
                    await context.write(response)

    async def _read(self, stream: Stream, requests: Any, context: _Context) -> None:
        try:
            async for request in requests:
                if request.HasField("error_detail"):
                    self._rejected(request, stream, context.peer())
                if stream.judge(request):
                    self._count_rejecting()
                known = stream.followed
                names = stream.take(request)
                self._refuse(stream, names - known)
                await self._know(stream, names)
                self._note(names)
                stream.wake.set()
        finally:
            stream.wake.set()

    def _refuse(self, stream: Stream, names: Iterable[str]) -> None:
        """Write down which models a client asks for that it may not use."""
        for name in names:
            target = target_of(name)
            if target is not None:
                with contextlib.suppress(NotAllowed):
                    model = target.reference.model
                    self._callers.require_model(stream.head, stream.caller, model, _ACTION)

    def _rejected(self, request: Any, stream: Stream, peer: str) -> None:
        """Count and log that a client has refused a response; it keeps what it had."""
        kind = one_line(request.type_url.rpartition(".")[2], 60)
        known = {each.rpartition(".")[2] for each in TYPES}
        self._metrics.rejected.labels(kind if kind in known else "other").inc()
        if count := self._rejections.count(time.monotonic()):
            logger.warning(
                "xDS: the client %s at %s refuses %s: %s%s",
                one_line(stream.node, 100) or "without an id",
                one_line(peer, 100),
                kind,
                one_line(request.error_detail.message, 300),
                f" ({count - 1} others since the last such line)" if count > 1 else "",
            )

    def _count_rejecting(self) -> None:
        self._metrics.rejecting.set(sum(bool(each.rejects) for each in self._streams))

    async def _know(self, stream: Stream, names: Iterable[str]) -> None:
        """Let the directory follow models that it has not been asked for before."""
        for name in names:
            target = target_of(name)
            if target is None or not may_see(stream.caller, target.reference.model):
                continue
            if self._directory.snapshot(target.reference.model) is None:
                with contextlib.suppress(FingerpostError):
                    await self._directory.resolve(target.reference.model)

    def _note(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._states:
                self._states[name] = self._catalog.state(name)

    async def _watch(self) -> None:
        """Wake the clients for whom something has changed, again and again until cancelled."""
        while True:
            await asyncio.sleep(self._config.look_every_s)
            self._catalog.look_again()
            followed = {name for stream in self._streams for name in stream.followed}
            states = {name: self._catalog.state(name) for name in followed}
            changed = {name for name, each in states.items() if each != self._states.get(name)}
            self._states = states
            models = self._catalog.models()
            every, self._models = models != self._models, models
            for stream in self._streams:
                if (every and stream.follows_every) or not changed.isdisjoint(stream.followed):
                    stream.wake.set()


async def _decoded(kind: Any, requests: AsyncIterable[bytes]) -> AsyncIterator[Any]:
    """The messages of a stream. What is none raises `DecodeError`."""
    async for data in requests:
        try:
            request = kind.FromString(data)
        except DecodeError:
            raise DecodeError(f"a message of {len(data):,} bytes is no {kind.__name__}") from None
        yield request
