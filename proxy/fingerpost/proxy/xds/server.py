"""The gRPC server of a proxy that serves xDS: the aggregated discovery service (ADS)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc.aio import server as make_server

from fingerpost.basics.log_limit import LogLimit
from fingerpost.basics.printable import one_line
from fingerpost.errors import ConfigurationError, FingerpostError
from fingerpost.proxy.xds.catalog import TYPES, target_of
from fingerpost.proxy.xds.messages import message_class
from fingerpost.proxy.xds.resources import CLUSTER, ROUTES
from fingerpost.proxy.xds.session import Session, TooManyNames
from fingerpost.registry.http_server import bind
from fingerpost.registry.instance import format_address
from fingerpost.registry.supervision import supervise

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable
    from typing import Self

    from fingerpost.proxy.directory import Directory
    from fingerpost.proxy.metrics import ProxyMetrics
    from fingerpost.proxy.xds.catalog import XdsCatalog
    from fingerpost.proxy.xds_config import XdsConfig

__all__ = ["XdsServer"]

logger = logging.getLogger(__name__)

_PACKAGE: Final = "envoy.service.discovery.v3"
_SERVICE: Final = f"{_PACKAGE}.AggregatedDiscoveryService"
_Request = message_class(f"{_PACKAGE}.DiscoveryRequest")
_Response = message_class(f"{_PACKAGE}.DiscoveryResponse")
_DeltaRequest = message_class(f"{_PACKAGE}.DeltaDiscoveryRequest")
_DeltaResponse = message_class(f"{_PACKAGE}.DeltaDiscoveryResponse")
_Resource = message_class(f"{_PACKAGE}.Resource")

_MAX_REQUEST_BYTES: Final = 1 << 20  # a thousand names of the longest kind have a quarter of that
_KEEPALIVE_MS: Final = 30_000
_LOG_EVERY_S: Final = 10.0
_GRACE_S: Final = 1.0


class XdsServer:
    """Tells each client of the workers of the models that it follows, whenever they change.

    Args:
        directory: the snapshots of services.
        catalog: the resources that exist.
        config: its settings.
        metrics: the proxy's metrics.
    """

    def __init__(
        self,
        directory: Directory,
        catalog: XdsCatalog,
        config: XdsConfig,
        metrics: ProxyMetrics,
    ) -> None:
        self._directory = directory
        self._catalog = catalog
        self._config = config
        self._metrics = metrics.xds
        self._streams: set[_Stream] = set()
        self._states: dict[str, Hashable] = {}
        self._models: Hashable = None
        self._rejections = LogLimit(_LOG_EVERY_S)
        self._server = make_server(
            options=[
                # The successor of a proxy that hands over listens on the same port.
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", _MAX_REQUEST_BYTES),
                ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
                ("grpc.http2.min_ping_interval_without_data_ms", 5000),
            ]
        )
        methods = {
            name: grpc.stream_stream_rpc_method_handler(
                work,
                request_deserializer=request.FromString,
                response_serializer=response.SerializeToString,
            )
            for name, work, request, response in (
                ("StreamAggregatedResources", self._whole, _Request, _Response),
                ("DeltaAggregatedResources", self._delta, _DeltaRequest, _DeltaResponse),
            )
        }
        handler = grpc.method_handlers_generic_handler(_SERVICE, methods)
        self._server.add_generic_rpc_handlers((handler,))
        self._watcher: asyncio.Task[None] | None = None
        self._leaving = False
        self.port = 0

    async def start(self, host: str, port: int, *, shared: bool) -> Self:
        """Listen.

        Args:
            host, port: where; port 0 picks a free one.
            shared: whether a predecessor, which hands over, may listen there too.

        Raises:
            ConfigurationError: the port is in use, or the address is not one of this machine.
        """
        address = format_address(host, port)
        try:
            if port and not shared:
                bind(host, port).close()  # gRPC would share it with any process of this user
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

    async def _whole(
        self, request_iterator: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """State of the world: a response has all resources that are asked for."""
        stream = _WholeStream(self._config.max_names, self._catalog)
        await self._serve(stream, request_iterator, context)

    async def _delta(
        self, request_iterator: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Incremental: a response has what is new, changed or gone."""
        stream = _DeltaStream(self._config.max_names, self._catalog)
        await self._serve(stream, request_iterator, context)

    async def _serve(
        self, stream: _Stream, requests: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        if len(self._streams) >= self._config.max_streams:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{len(self._streams)} clients follow this proxy already: ask another one",
            )
        self._streams.add(stream)
        self._metrics.streams.set(len(self._streams))
        reader = asyncio.create_task(self._read(stream, requests, context), name="xds reader")
        try:
            while not (reader.done() or self._leaving):
                await stream.wake.wait()
                stream.wake.clear()
                for type_url in TYPES:
                    response = stream.response(type_url)
                    if response is not None:
                        self._metrics.responses.labels(type_url.rpartition(".")[2]).inc()
                        await context.write(response)
            if reader.done() and not reader.cancelled() and (error := reader.exception()):
                if isinstance(error, TooManyNames):
                    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
                raise error
        finally:
            self._streams.discard(stream)
            self._metrics.streams.set(len(self._streams))
            self._count_rejecting()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(
        self, stream: _Stream, requests: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        try:
            async for request in requests:
                if request.HasField("error_detail"):
                    self._rejected(request, stream, context.peer())
                if stream.judge(request):
                    self._count_rejecting()
                names = stream.take(request)
                await self._know(names)
                self._note(names)
                stream.wake.set()
        finally:
            stream.wake.set()

    def _rejected(self, request: Any, stream: _Stream, peer: str) -> None:
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

    async def _know(self, names: Iterable[str]) -> None:
        """Let the directory follow models that it has not been asked for before."""
        for name in names:
            target = target_of(name)
            if target is not None and self._directory.snapshot(target.reference.model) is None:
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
            followed = {name for stream in self._streams for name in stream.followed}
            states = {name: self._catalog.state(name) for name in followed}
            changed = {name for name, each in states.items() if each != self._states.get(name)}
            self._states = states
            models = self._catalog.models()
            every, self._models = models != self._models, models
            for stream in self._streams:
                if (every and stream.follows_every) or not changed.isdisjoint(stream.followed):
                    stream.wake.set()


class _Stream:
    """One client: takes its requests, and makes its responses.

    Attributes:
        wake: set when there may be something to tell.
        node: what the client calls itself.
        followed: the names of clusters and endpoints that it follows.
        follows_every: whether it follows all clusters, or the routes of an Envoy.
        rejects: the types of which it has refused what it was told last.
    """

    def __init__(self, max_names: int, catalog: XdsCatalog) -> None:
        self._session = Session(max_names)
        self._catalog = catalog
        self._zone = ""
        self.wake = asyncio.Event()
        self.node = ""
        self.followed: frozenset[str] = frozenset()
        self.follows_every = False
        self.rejects: set[str] = set()

    def judge(self, request: Any) -> bool:
        """Note whether a request refuses or accepts a response; returns whether that is new."""
        type_url, before = request.type_url, len(self.rejects)
        if request.HasField("error_detail") and type_url in TYPES:
            self.rejects.add(type_url)
        elif self._accepts(request):
            self.rejects.discard(type_url)
        return len(self.rejects) != before

    def take(self, request: Any) -> frozenset[str]:
        """Take a request; returns the names that it follows now."""
        if request.HasField("node"):  # in the first request only
            self.node = request.node.id
            self._zone = request.node.locality.zone
        if request.type_url in TYPES:
            self._follow(request)
            session = self._session
            self.followed = frozenset().union(
                *(session.names(each) for each in TYPES if each != ROUTES)
            )
            self.follows_every = session.follows_every(CLUSTER) or ROUTES in session.types
        return self.followed

    def response(self, type_url: str) -> Any:
        """The next response of a type, or None where there is nothing to tell."""
        session = self._session
        if type_url not in session.types:
            return None
        current = self._catalog.current(
            type_url,
            session.names(type_url),
            every=session.follows_every(type_url),
            zone=self._zone,
        )
        changes = session.changes(type_url, {name: each.version for name, each in current.items()})
        if changes is None:
            return None
        changed, gone = changes
        return self._respond(type_url, current, changed, gone)

    def _accepts(self, request: Any) -> bool:
        raise NotImplementedError

    def _follow(self, request: Any) -> None:
        raise NotImplementedError

    def _respond(self, type_url: str, current: Any, changed: list[str], gone: list[str]) -> Any:
        raise NotImplementedError


class _WholeStream(_Stream):
    """A client of the state of the world."""

    def _accepts(self, request: Any) -> bool:
        # One that only changes its names repeats the last nonce, and the version that it has taken.
        return bool(request.response_nonce) and request.version_info == request.response_nonce

    def _follow(self, request: Any) -> None:
        if not self._session.is_stale(request.type_url, request.response_nonce):
            self._session.set_names(request.type_url, request.resource_names)

    def _respond(self, type_url: str, current: Any, changed: list[str], gone: list[str]) -> Any:
        versions = [(name, each.version) for name, each in sorted(current.items())]
        nonce = self._session.sent(type_url, versions, gone)
        return _Response(
            version_info=nonce,
            type_url=type_url,
            nonce=nonce,
            resources=[current[name].packed for name, _ in versions],
        )


class _DeltaStream(_Stream):
    """A client of the incremental variant."""

    def _accepts(self, request: Any) -> bool:
        return bool(request.response_nonce)

    def _follow(self, request: Any) -> None:
        self._session.change_names(
            request.type_url,
            request.resource_names_subscribe,
            request.resource_names_unsubscribe,
            dict(request.initial_resource_versions),
        )

    def _respond(self, type_url: str, current: Any, changed: list[str], gone: list[str]) -> Any:
        versions = [(name, current[name].version) for name in sorted(changed)]
        nonce = self._session.sent(type_url, versions, gone)
        return _DeltaResponse(
            system_version_info=nonce,
            type_url=type_url,
            nonce=nonce,
            removed_resources=sorted(gone),
            resources=[
                _Resource(name=name, version=version, resource=current[name].packed)
                for name, version in versions
            ],
        )
