"""Step 2 over ZeroMQ: images of one model share a stream to a worker."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
import zmq

from fingerpost.client.images.load import load_image
from fingerpost.client.images.oneshot import OneShot
from fingerpost.client.tasks.wire import HEADER_LENGTH
from fingerpost.client.transport.reply import Reply
from fingerpost.client.transport.transport import Transport, failed
from fingerpost.client.wire import CLASS_HEADER, SUSPECT_HEADER, WAITED_HEADER
from fingerpost.client.zmq.messages import ImageHead, OpenStream
from fingerpost.client.zmq.session import Exchange, ZmqSession
from fingerpost.errors import (
    BadAnswer,
    Draining,
    ImageError,
    ImageTooLarge,
    TlsFailed,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from fingerpost.client.config import ClientConfig
    from fingerpost.client.images.frames import ImageData
    from fingerpost.client.images.load import ImageSource
    from fingerpost.client.transport.attempt import Attempt
    from fingerpost.client.transport.deadlines import DeadlineScheduler
    from fingerpost.client.zmq.route import Place, ZmqRoute
    from fingerpost.security.curve_keys import CurveKeys
    from fingerpost.security.tls import ClientTls

    Headers: TypeAlias = Mapping[str, str]

__all__ = ["ZmqTransport"]

# As connections of HTTP; a worker ends a stream that is idle for 60 s.
_MAX_IDLE_S: Final = 15.0
_TIDY_S: Final = 5.0
_SOCKETS: Final = 8192
# An image whose source can be read once is in memory as a whole here.
_MAX_ONE_SHOT_BYTES: Final = 256_000_000


@dataclass(frozen=True, slots=True)
class _Stream:
    """What images of one stream have in common."""

    address: str
    place: Place
    order: OpenStream


class ZmqTransport(Transport):
    """Streams to all workers. Load reports go over HTTP as ever.

    Make it inside a running loop.
    """

    def __init__(
        self, config: ClientConfig, deadlines: DeadlineScheduler, route: ZmqRoute, tls: ClientTls
    ) -> None:
        super().__init__(config, deadlines, route, tls)
        self._zmq_route = route
        self._zmq: zmq.Context[Any] = zmq.Context()
        self._zmq.set(zmq.MAX_SOCKETS, _SOCKETS)
        self._sessions: dict[_Stream, ZmqSession] = {}
        self._keys = route.keys
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_TIDY_S, self._tidy)

    async def aclose(self) -> None:
        """Close all connections."""
        self._timer.cancel()
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        await super().aclose()
        await asyncio.to_thread(self._zmq.term)

    def retain(self, addresses: Collection[str]) -> None:
        """Close the connections to all other addresses, once nothing is in flight on them."""
        super().retain(addresses)
        self._zmq_route.retain(addresses)
        self._tidy_now(max_idle_s=0.0, kept=addresses)

    async def frame(self, image: ImageSource, model: str) -> ImageData:
        """The image, encoded: frames are mapped over HTTP alone."""
        return await load_image(image)

    def abort(self, address: str, reason: str) -> None:
        """Abort the attempts there."""
        super().abort(address, reason)
        for stream, session in tuple(self._sessions.items()):
            if stream.address == address:
                session.abort(reason)

    async def classify(
        self,
        address: str,
        model: str,
        top: int,
        attempt: Attempt,
        headers: Headers | None = None,
        *,
        boot_id: int = 0,
        lease: str = "",
        infer: bool = False,
    ) -> Reply:
        """See `Transport.classify`.

        Raises:
            ImageError: the source of a one-shot image failed.
        """
        place = self._zmq_route.place(address)
        if place is None:
            return failed(Unreachable(f"{address} has no ZeroMQ port any more"), address, attempt)
        data = await attempt.encoded()
        if isinstance(data, OneShot):
            data = attempt.data = await _whole(data)
        headers = headers or {}
        priority = headers.get(CLASS_HEADER, "")
        stream = _Stream(address, place, _order(model, top, lease, priority, boot_id, infer=infer))
        exchange = Exchange(attempt, len(data), address)
        self._deadlines.add(exchange)
        try:
            answer = await self._exchange_on(stream, headers, exchange)
        except (Draining, ImageTooLarge) as error:
            outcome, told = self._route.classify_error(address, error.status, error)
            return Reply(outcome=outcome, error=told)
        except (OSError, Unreachable, TlsFailed, BadAnswer) as error:
            return failed(error, address, attempt)
        finally:
            self._deadlines.discard(exchange)
        return self._read(address, answer, infer=infer)

    async def _exchange_on(
        self, stream: _Stream, headers: Mapping[str, str], exchange: Exchange
    ) -> Any:
        """One image and its answer; once more if the worker had ended an idle stream."""
        again = True
        while True:
            session = self._sessions.get(stream)
            if session is None or session.closed:
                session = self._sessions[stream] = self._open(stream)
            head = ImageHead(
                deadline_ms=exchange.attempt.clock.left_ms(self._clock()),
                waited_ms=int(headers.get(WAITED_HEADER, 0)),
                suspect=SUSPECT_HEADER in headers,
                traceparent=headers.get("traceparent", ""),
                json_bytes=int(headers[HEADER_LENGTH]) if HEADER_LENGTH in headers else None,
            )
            try:
                return await session.exchange(msgspec.json.encode(head), exchange)
            except Unreachable:
                if not (again and session.stale):
                    raise
                again = False
                self._deadlines.discard(exchange)
                exchange = Exchange(exchange.attempt, exchange.size, exchange.peer)
                self._deadlines.add(exchange)

    def _open(self, stream: _Stream) -> ZmqSession:
        return ZmqSession(
            self._zmq,
            stream.place.endpoint,
            stream.address,
            msgspec.json.encode(stream.order),
            self._curve(stream.place.key),
            self._config.connect_timeout_s,
        )

    def _curve(self, key: bytes) -> Mapping[int, bytes]:
        """The options of a socket for a worker with this public key."""
        if not key:
            return {}
        if self._keys is None:
            self._keys = _made_up()
        return {
            zmq.CURVE_SERVERKEY: key,
            zmq.CURVE_PUBLICKEY: self._keys.public,
            zmq.CURVE_SECRETKEY: self._keys.secret,
        }

    def _tidy(self) -> None:
        self._tidy_now(max_idle_s=_MAX_IDLE_S)
        self._timer = self._loop.call_later(_TIDY_S, self._tidy)

    def _tidy_now(self, *, max_idle_s: float, kept: Collection[str] = ()) -> None:
        now = self._loop.time()
        for stream, session in tuple(self._sessions.items()):
            idle = now - session.idle_since > max_idle_s and stream.address not in kept
            if idle or session.closed:
                session.close()
                del self._sessions[stream]


@lru_cache(maxsize=4096)
def _order(
    model: str, top: int, lease: str, priority: str, boot_id: int, *, infer: bool
) -> OpenStream:
    return OpenStream(
        model=model,
        top=top,
        lease=lease,
        priority=priority,
        boot_id=boot_id,
        infer=infer,
        binary=infer,
    )


def _made_up() -> CurveKeys:
    from fingerpost.security.curve_keys import CurveKeys

    return CurveKeys(*zmq.curve_keypair())


async def _whole(source: OneShot) -> bytes:
    """All of an image that can be read only once.

    Raises:
        ImageError: reading it failed, or it is too large.
    """
    found = bytearray()
    try:
        async with contextlib.aclosing(source.chunks()) as chunks:
            async for chunk in chunks:
                found += chunk
                if len(found) > _MAX_ONE_SHOT_BYTES:
                    raise ImageTooLarge(
                        f"the image has more than {_MAX_ONE_SHOT_BYTES:,} bytes: send a smaller one"
                    )
    except ImageError:
        raise
    except Exception as cause:  # the chunks are the caller's own code, which may raise anything
        raise ImageError(f"reading the image failed: {cause!r}") from cause
    return bytes(found)
