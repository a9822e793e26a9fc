"""A stream and an image of ZeroMQ, in the form that leases, limits, logs and traces read."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

from fingerpost.client.wire import (
    BOOT_ID_HEADER,
    CLASS_HEADER,
    DEADLINE_HEADER,
    SUSPECT_HEADER,
    WAITED_HEADER,
)

if TYPE_CHECKING:
    from fingerpost.client.zmq.messages import ImageHead, OpenStream
    from fingerpost.security.grant import Grant
    from fingerpost.worker.telemetry.request import RequestRecord

__all__ = ["ReceivedImage", "open_head"]

_url: Final = lru_cache(maxsize=64)(URL)


class _Head:
    """A `RequestHead`: what HTTP has as header fields is in the messages here."""

    __slots__ = ("_kept", "content_length", "headers", "path", "peer", "remote", "total_bytes")

    method = "POST"

    def __init__(self, path: str, remote: str, peer: str) -> None:
        self.path = path
        self.remote: str | None = remote
        self.peer = peer
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.content_length: int | None = None
        self.total_bytes = 0
        self._kept: dict[Any, Any] | None = None

    @property
    def rel_url(self) -> URL:
        """The path."""
        return _url(self.path)

    @property
    def content(self) -> _Head:
        """Itself, which counts the bytes."""
        return self

    @property
    def transport(self) -> _Head:
        """Itself, which knows the connection."""
        return self

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`peername`; there are no certificates."""
        return self.peer if name == "peername" else default

    def __setitem__(self, key: Any, value: Any, /) -> None:
        """Keep a value."""
        if self._kept is None:
            self._kept = {}
        self._kept[key] = value

    def get(self, key: Any, default: Any, /) -> Any:
        """The value that is kept under a key."""
        return default if self._kept is None else self._kept.get(key, default)


def open_head(order: OpenStream, model: str, remote: str, peer: str) -> _Head:
    """The head of a stream.

    Args:
        order: the client's first message.
        model: the model of the stream.
        remote: the client's address.
        peer: names its connection.
    """
    head = _Head(f"/zmq/{model}", remote, peer)
    if order.lease:
        head.headers[hdrs.AUTHORIZATION] = f"Bearer {order.lease}"
    if order.priority:
        head.headers[CLASS_HEADER] = order.priority
    if order.boot_id:
        head.headers[BOOT_ID_HEADER] = str(order.boot_id)
    return head


class ReceivedImage(_Head):
    """The head of one image.

    Attributes:
        key: the client's.
        size: bytes of the image.
        body_bytes, grant: how many are held, for whom; see `BodyMemory`.
        json_bytes: of named inputs, how many bytes of them are JSON; None for an image.
        arrays: those of its answer, as bytes; None where the answer is JSON alone.
        record: the request that it is; None while it was not begun.
    """

    __slots__ = ("arrays", "body_bytes", "grant", "json_bytes", "key", "record", "size")

    def __init__(self, opened: _Head, key: bytes, size: int, grant: Grant) -> None:
        super().__init__(opened.path, opened.remote or "", opened.peer)
        if (priority := opened.headers.get(CLASS_HEADER)) is not None:
            self.headers[CLASS_HEADER] = priority
        self.key = key
        self.size = self.content_length = self.total_bytes = size
        self.body_bytes = 0
        self.grant = grant
        self.json_bytes: int | None = None
        self.arrays: bytes | None = None
        self.record: RequestRecord | None = None

    def set_head(self, head: ImageHead) -> None:
        """Take over what its client says of it."""
        headers = self.headers
        if head.deadline_ms is not None:
            headers[DEADLINE_HEADER] = str(head.deadline_ms)
        if head.waited_ms:
            headers[WAITED_HEADER] = str(head.waited_ms)
        if head.suspect:
            headers[SUSPECT_HEADER] = "1"
        if head.traceparent:
            headers["traceparent"] = head.traceparent
        self.json_bytes = head.json_bytes
