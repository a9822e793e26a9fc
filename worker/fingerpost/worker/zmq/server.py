"""The ZeroMQ server of a worker: a ROUTER, and a stream for each client."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import socket
import time
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final

import zmq

from fingerpost.basics.log_limit import LogLimit
from fingerpost.client.zmq.messages import (
    HEAD_ERRORS,
    MAX_HEAD_BYTES,
    MAX_KEY_BYTES,
    CancelImage,
    EndStream,
    OpenStream,
    read_client_order,
)
from fingerpost.client.zmq.reader import SocketReader
from fingerpost.errors import ConfigurationError, FingerpostError, InvalidRequest, Overloaded
from fingerpost.registry import ModelReference
from fingerpost.registry.http.app import internal_error
from fingerpost.registry.http.descriptors import descriptor_limit
from fingerpost.registry.http.guard import ConnectionGuard
from fingerpost.registry.instance import format_address
from fingerpost.security.grant import NO_LIMITS
from fingerpost.worker.protocols.streams.link import StreamOrder
from fingerpost.worker.protocols.streams.session import StreamSession
from fingerpost.worker.zmq.access import CurveAccess
from fingerpost.worker.zmq.connections import Connections
from fingerpost.worker.zmq.heads import open_head
from fingerpost.worker.zmq.inference import ZmqInference
from fingerpost.worker.zmq.link import ZmqLink, error_json

if TYPE_CHECKING:
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.protocols.v2.shared_memory import SharedMemory
    from fingerpost.worker.serving.routes import RouteContext
    from fingerpost.worker.telemetry.metrics import WorkerMetrics
    from fingerpost.worker.zmq.connections import Connection

__all__ = ["ZmqServer"]

logger = logging.getLogger(__name__)

# HTTP may have three quarters of a process's descriptors for its connections; each of ZeroMQ's
# takes two, and all of them an eighth.
_DESCRIPTORS: Final = 16
_MAX_FRAMES: Final = 3
# Whole messages of a connection that wait until the event loop reads them.
_MAX_WAITING: Final = 8
_LINGER_MS: Final = 200
# ZMTP's pings: a connection whose other end says nothing for so long is closed.
_PING_MS: Final = 5_000
_SILENCE_MS: Final = 15_000


class _Peer:
    """One connection that has sent a message.

    Attributes:
        descriptor: ZeroMQ's.
        link: its open stream; None where it has none.
        late: images since its stream ended, which it had sent before it knew.
    """

    __slots__ = ("connection", "descriptor", "late", "link", "name")

    def __init__(self, name: bytes, descriptor: int, connection: Connection) -> None:
        self.name = name
        self.descriptor = descriptor
        self.connection = connection
        self.link: ZmqLink | None = None
        self.late = 0


class ZmqServer:
    """Serves the models of a worker over ZeroMQ. Make it inside a running event loop.

    A client that breaks the rules is disconnected and counted: it sends what is not a message of
    the protocol, or images without credit, or does not read its answers.

    Args:
        context: what all protocols of the worker share.
        config: the worker's settings.
        metrics: the worker's metrics.
        shared: regions of shared memory that stand for bytes.

    Raises:
        ConfigurationError: a file of keys is not valid.
    """

    def __init__(
        self,
        context: RouteContext,
        config: WorkerConfig,
        metrics: WorkerMetrics,
        shared: SharedMemory,
    ) -> None:
        self._context = context
        self._config = config
        self._metrics = metrics
        self._zmq = zmq.Context(io_threads=1)
        self._zmq.set(zmq.MAX_SOCKETS, 64)
        self._peers: dict[bytes, _Peer] = {}
        self._descriptors: dict[int, _Peer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._said = LogLimit(60.0)
        self._inference = ZmqInference(config, shared)
        self._access: CurveAccess | None = None
        self._connections: Connections | None = None
        self._reader: SocketReader | None = None
        try:
            self._router = self._zmq.socket(zmq.ROUTER)
            self._set_options()
            if config.zmq.key is not None:
                self._access = CurveAccess(self._zmq, self._router, config.zmq, metrics.zmq_dropped)
        except BaseException:
            self._zmq.destroy(linger=0)
            raise

    def _set_options(self) -> None:
        config, router = self._config, self._router
        options = {
            zmq.IPV6: int(":" in config.host),
            zmq.LINGER: _LINGER_MS,
            zmq.MAXMSGSIZE: config.requests.max_bytes,
            zmq.RCVHWM: _MAX_WAITING,
            # An answer for each image of the window, and the orders.
            zmq.SNDHWM: 2 * config.streams.window + 16,
            zmq.ROUTER_MANDATORY: 1,
            zmq.HANDSHAKE_IVL: int(config.connections.headers_timeout_s * 1000),
            zmq.HEARTBEAT_IVL: _PING_MS,
            zmq.HEARTBEAT_TIMEOUT: _SILENCE_MS,
            zmq.HEARTBEAT_TTL: _SILENCE_MS,
        }
        for option, value in options.items():
            router.setsockopt(option, value)

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port.

        Raises:
            ConfigurationError: it is in use, or the address is not one of this machine.
        """
        router, config = self._router, self._config.connections
        if config.max_connections is None:
            most = max(16, descriptor_limit() // _DESCRIPTORS)
            config = dataclasses.replace(config, max_connections=most)
        self._connections = Connections(
            router,
            ConnectionGuard(config),
            self._context.memory,
            max_message_bytes=self._config.requests.max_bytes + MAX_HEAD_BYTES,
            max_waiting=_MAX_WAITING,
            ended=self._gone,
            waiting=lambda: self._reader is not None and self._reader.waiting(),
            dropped=self._count,
        )
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            router.bind(f"tcp://{format_address(str(found[0][4][0]), port)}")
        except (OSError, zmq.ZMQError) as error:
            raise ConfigurationError(
                f"cannot listen on {format_address(host, port)} for ZeroMQ ({error}): give another "
                "port (--zmq-port), or 0 for a free one"
            ) from error
        self._reader = SocketReader(router, self._message, max_frames=_MAX_FRAMES + 1)
        if self._access is not None:
            self._access.start()
        return int(router.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])

    async def aclose(self) -> None:
        """Stop at once; images in flight are not awaited."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._reader is not None:
            self._reader.close()
        if self._connections is not None:
            await self._connections.aclose()
        if self._access is not None:
            self._access.close()
        self._router.close(_LINGER_MS)
        await asyncio.to_thread(self._zmq.term)

    # Messages.

    def _message(self, frames: list[zmq.Frame]) -> None:
        peer = self._peer(frames)
        if peer is None or peer.connection.dropped:
            return
        peer.connection.count(frames[1:])
        count = len(frames) - 1
        if not 2 <= count <= _MAX_FRAMES:
            self._break(peer, "frames", "a message has two or three frames")
            return
        key = frames[1].bytes
        if len(key) > MAX_KEY_BYTES:
            self._break(peer, "frames", f"a key has at most {MAX_KEY_BYTES} bytes")
        elif count == _MAX_FRAMES:
            self._image(peer, key, frames)
        else:
            self._order(peer, key, frames[2].bytes)

    def _peer(self, frames: list[zmq.Frame]) -> _Peer | None:
        """Who sent a message; None where its connection is gone already."""
        name = frames[0].bytes
        peer = self._peers.get(name)
        if peer is not None or self._connections is None:
            return peer
        descriptor = int(frames[-1].get(zmq.SRCFD))
        self._connections.update()  # the one that had this descriptor before is gone
        connection = self._connections.of(descriptor)
        if connection is None:
            return None
        peer = self._peers[name] = self._descriptors[descriptor] = _Peer(
            name, descriptor, connection
        )
        return peer

    def _image(self, peer: _Peer, key: bytes, frames: list[zmq.Frame]) -> None:
        if peer.link is not None:
            problem = peer.link.take(key, frames[2].bytes, frames[3].buffer)
            if problem:
                self._break(peer, "credit", problem)
            return
        peer.late += 1
        if peer.late > self._config.streams.window:
            self._break(peer, "order", "open a stream first")

    def _order(self, peer: _Peer, key: bytes, data: bytes) -> None:
        if len(data) > MAX_HEAD_BYTES:
            self._break(peer, "order", f"an order has at most {MAX_HEAD_BYTES} bytes")
            return
        try:
            order = read_client_order(data)
        except HEAD_ERRORS as error:
            self._break(peer, "order", f"not a valid order: {error}")
            return
        match order:
            case OpenStream() if peer.link is None:
                self._open(peer, order)
            case OpenStream():
                self._break(peer, "order", "a stream is open already: end it first")
            case EndStream() if peer.link is not None:
                peer.link.finish()
            case CancelImage() if peer.link is not None:
                peer.link.give_up(key)
            case _:  # of a stream that has ended meanwhile
                pass

    # Streams.

    def _open(self, peer: _Peer, order: OpenStream) -> None:
        context = self._context
        head = open_head(order, "", peer.connection.address, peer.name.hex())
        try:
            reference = ModelReference.parse(order.model or context.manager.default)
            head.path = f"/zmq/{reference.model}"
            context.admission.check_boot_id(head)
            permit = None
            if context.leases is not None:
                permit = context.leases.permit(head, reference.model)
            grant = NO_LIMITS if permit is None else permit.grant
            flow = context.tenancy.flow(head, grant)
            if not order.infer and (order.binary or order.mask != "png" or order.size != "image"):
                raise InvalidRequest("binary, mask and size are for a stream with infer")
            with context.manager.acquire(reference) as served:
                context.admission.admit_stream(head, served, _nothing, flow)
        except FingerpostError as error:
            if isinstance(error, Overloaded):
                context.overloaded(head, error)
            context.observer.refused(head, error)
            self._refuse(peer, error)
            return
        except Exception:
            logger.exception("a stream over ZeroMQ could not be opened")
            self._refuse(peer, internal_error())
            return
        wanted = StreamOrder(
            reference=reference,
            top=order.top,
            grant=grant,
            flow=flow,
            left_s=None,
            lease_left_s=inf if permit is None else permit.ends_at - time.time(),
            classify_only=not order.infer,
            infer=self._inference.of(order, flow) if order.infer else None,
        )
        link = ZmqLink(context, self._config, wanted, head, partial(self._send, peer))
        session = StreamSession(
            link,
            wanted,
            manager=context.manager,
            admission=context.admission,
            config=self._config,
            metrics=self._metrics,
        )
        link.stop, link.cancel = session.stop, session.cancel
        peer.link, peer.connection.busy = link, True
        task = asyncio.create_task(self._run(peer, link, session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, peer: _Peer, link: ZmqLink, session: StreamSession) -> None:
        try:
            await session.run()
        except Exception:
            logger.exception("a stream over ZeroMQ failed")
            peer.connection.drop()
        finally:
            link.close()
            peer.link, peer.late = None, 0
            peer.connection.busy = False
            peer.connection.active_at = asyncio.get_running_loop().time()

    def _refuse(self, peer: _Peer, error: FingerpostError) -> None:
        """End a stream that was not opened."""
        ended = b'{"type":"ended","taken":0,"reason":"failed",' + error_json(error)[1:]
        self._send(peer, [b"", ended])

    def _send(self, peer: _Peer, frames: list[bytes | memoryview]) -> None:
        if self._reader is None or peer.connection.dropped:
            return
        try:
            self._reader.send([peer.name, *frames])
        except zmq.Again:
            self._drop(peer, "not_reading", "its client does not read its answers")
        except zmq.ZMQError:  # it is gone
            self._lose(peer, "the connection is gone")

    # Ends.

    def _break(self, peer: _Peer, reason: str, why: str) -> None:
        """Say what a client does wrong, and disconnect it."""
        self._refuse(peer, InvalidRequest(why))
        # Not at once, so that the reason can be sent.
        asyncio.get_running_loop().call_later(0.05, peer.connection.drop)
        self._drop(peer, reason, why, now=False)

    def _drop(self, peer: _Peer, reason: str, why: str, *, now: bool = True) -> None:
        if peer.connection.dropped:
            return
        if now:
            peer.connection.drop()
        peer.connection.dropped = True  # what it has sent is not read any more
        self._count(reason)
        if count := self._said.count(time.monotonic()):
            logger.warning(
                "dropped a client of ZeroMQ at %s (%d in the last minute): %s",
                peer.connection.address,
                count,
                why,
            )
        self._lose(peer, why)

    def _lose(self, peer: _Peer, why: str) -> None:
        if peer.link is not None:
            peer.link.lose(ConnectionAbortedError(why))

    def _gone(self, descriptor: int) -> None:
        """A connection is closed."""
        peer = self._descriptors.pop(descriptor, None)
        if peer is not None:
            self._peers.pop(peer.name, None)
            self._lose(peer, "the connection is gone")

    def _count(self, reason: str) -> None:
        self._metrics.zmq_dropped.labels(reason).inc()


def _nothing(_: object) -> None:
    """There are no more headers to check."""
