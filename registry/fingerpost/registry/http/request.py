"""A request on a known path, without the parts of an aiohttp application's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from aiohttp import hdrs
from multidict import MultiDict, MultiDictProxy
from yarl import URL

if TYPE_CHECKING:
    import asyncio

    from aiohttp import HttpVersion, web
    from multidict import CIMultiDictProxy

    from fingerpost.registry.http.body import Body

__all__ = ["PlainRequest", "Request"]

# What handlers of images get.
Request: TypeAlias = "web.Request | PlainRequest"

_NO_QUERY: MultiDictProxy[str] = MultiDictProxy(MultiDict())


class Peer(Protocol):
    """The other end of a connection."""

    @property
    def remote(self) -> str:
        """The host of the client, or its user."""
        ...

    @property
    def transport(self) -> asyncio.Transport | None:
        """The connection; None when it is gone."""
        ...


class PlainRequest:
    """What handlers of images need of a request; a `RequestHead` with a body.

    Its attributes are those of `aiohttp.web.Request`, and mean the same.

    Args:
        peer: who sent it.

    Attributes:
        raw_path: path and query, as they came.
        memo: kept for later requests of the connection with the same head, and shared with them.
            What its handler keeps here must hold whatever the `numbers` of the `ServerContext` are.
    """

    __slots__ = (
        "_kept",
        "_peer",
        "_url",
        "content",
        "content_length",
        "headers",
        "keep_alive",
        "memo",
        "method",
        "raw_path",
        "version",
    )

    def __init__(
        self,
        peer: Peer,
        method: str,
        raw_path: str,
        headers: CIMultiDictProxy[str],
        version: HttpVersion,
        *,
        keep_alive: bool,
        content: Body,
        memo: dict[Any, Any] | None = None,
    ) -> None:
        self._peer = peer
        self._kept: dict[Any, Any] | None = None
        self._url: URL | None = None
        self.method = method
        self.raw_path = raw_path
        self.headers = headers
        self.version = version
        self.keep_alive = keep_alive
        self.content = content
        self.memo: dict[Any, Any] = {} if memo is None else memo
        length = headers.get(hdrs.CONTENT_LENGTH)
        self.content_length = None if length is None else int(length)

    @property
    def path(self) -> str:
        """The path, without the query."""
        return self.raw_path.partition("?")[0]

    @property
    def rel_url(self) -> URL:
        """The path and the query."""
        if self._url is None:
            self._url = URL(self.raw_path, encoded=True)
        return self._url

    @property
    def query_string(self) -> str:
        """The query, decoded; empty where there is none."""
        return self.rel_url.query_string if "?" in self.raw_path else ""

    @property
    def query(self) -> MultiDictProxy[str]:
        """The parameters of the query."""
        return self.rel_url.query if "?" in self.raw_path else _NO_QUERY

    @property
    def content_type(self) -> str:
        """The media type of the body, without parameters, in small letters."""
        value = self.headers.get(hdrs.CONTENT_TYPE, "application/octet-stream")
        return value.partition(";")[0].strip().lower()

    @property
    def remote(self) -> str | None:
        """The address of the peer."""
        return self._peer.remote

    @property
    def transport(self) -> asyncio.Transport | None:
        """The connection; None where it is gone."""
        return self._peer.transport

    def __setitem__(self, key: Any, value: Any) -> None:
        if self._kept is None:
            self._kept = {}
        self._kept[key] = value

    def get(self, key: Any, default: Any = None) -> Any:
        """What was kept under a key."""
        return default if self._kept is None else self._kept.get(key, default)
