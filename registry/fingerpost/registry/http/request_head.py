"""What is read of a request before its body, whichever protocol it came by.

aiohttp's requests have all of it. Those of gRPC have it too, so that leases, callers, limits, logs
and traces are the same for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from aiohttp import web
    from multidict import CIMultiDict, CIMultiDictProxy
    from yarl import URL

__all__ = ["PeerInfo", "ReceivedBody", "RequestFacts", "RequestHead"]


class PeerInfo(Protocol):
    """A connection's facts, such as `peername` and `ssl_object`."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """A fact by its name, as `asyncio.BaseTransport` has it."""
        ...


class ReceivedBody(Protocol):
    """How much of a body has arrived."""

    @property
    def total_bytes(self) -> int:
        """The bytes that have arrived."""
        ...


class RequestFacts(Protocol):
    """What is read of a request that is not aiohttp's; keeps values for who works on it, by a key.

    Its attributes are those of `aiohttp.web.Request`, and mean the same.
    """

    @property
    def method(self) -> str:
        """HTTP's; POST for gRPC."""
        ...

    @property
    def path(self) -> str:
        """The path; for gRPC that of the method, `/package.Service/Method`."""
        ...

    @property
    def rel_url(self) -> URL:
        """The path and the query."""
        ...

    @property
    def headers(self) -> CIMultiDict[str] | CIMultiDictProxy[str]:
        """The headers; for gRPC its metadata."""
        ...

    @property
    def remote(self) -> str | None:
        """The address of the peer."""
        ...

    @property
    def transport(self) -> PeerInfo | None:
        """The connection; None where it is gone."""
        ...

    @property
    def content_length(self) -> int | None:
        """The bytes of the body; None where that is not announced, as for gRPC."""
        ...

    @property
    def content(self) -> ReceivedBody:
        """The body as far as it has arrived."""
        ...

    def __setitem__(self, key: Any, value: Any, /) -> None:
        """Keep a value."""
        ...

    def get(self, key: Any, default: Any, /) -> Any:
        """The value that is kept under a key."""
        ...


# aiohttp's has them all, but pyright does not see that its cached properties are properties.
RequestHead: TypeAlias = "web.Request | RequestFacts"
