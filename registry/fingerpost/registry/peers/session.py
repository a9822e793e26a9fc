"""HTTP to peers that are not trusted: workers, and proxies that tell where workers are.

An address in a registry may belong to any server, also to one that an attacker controls. So nothing
that it answers makes us go elsewhere or use much memory:

- redirects are not followed: they would make a proxy fetch pages that only it can reach (SSRF);
- cookies are neither kept nor sent, and proxies and credentials of the environment are not used;
- no compression is asked for, and a compressed body is refused: 1 MB can become 1 GB;
- an answer is limited in size, whatever its bytes are: header fields, informational answers,
  newlines before it, a chunk's extension, trailers. aiohttp limits some of them, and not in every
  release that we run with, so the bytes of the connection are counted.

The caller limits the time, by `asyncio.timeout` around all of it: a peer may send a byte now and
then.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import re
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.resolver import ThreadedResolver

from fingerpost.errors import BadAnswer, ConnectionRefused, TlsFailed, Unreachable
from fingerpost.registry.address_policy import never_allowed
from fingerpost.registry.peers.answer import check_encoding
from fingerpost.security.tls.problems import tls_problem

if TYPE_CHECKING:
    import asyncio
    import socket
    import ssl
    from collections.abc import AsyncGenerator, Mapping

    from aiohttp.abc import ResolveResult

    from fingerpost.errors import PeerError

__all__ = ["LimitedConnector", "PeerSession", "connection_problem", "peer_error"]

_MAX_HEAD_BYTES: Final = 1 << 17
# How a system error of several addresses is written in the text of one for all of them.
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)


class PeerSession:
    """A pool of connections to peers. They are made on first use, in the running loop.

    Args:
        max_bytes: the largest body that is read. A connection on which twice as many bytes and
            128 KB come for one answer is cut.
        keep_alive_s: how long an idle connection is kept for the next request, in seconds; 0 opens
            a new one each time, which finds out whether the peer still accepts connections.
        workers: whether the peers are workers. A host name that resolves to an address that no
            worker can have is then not connected to: see `address_policy`, rule 1.
    """

    def __init__(self, *, max_bytes: int, keep_alive_s: float = 0.0, workers: bool = True) -> None:
        self._max_bytes = max_bytes
        self._keep_alive_s = keep_alive_s
        self._workers = workers
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. A later request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @contextlib.asynccontextmanager
    async def request(
        self,
        method: str,
        url: Any,
        *,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: aiohttp.ClientTimeout = _NO_TIMEOUT,
        tls: ssl.SSLContext | bool | None = None,
        server_name: str | None = None,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """One request; leaving the block before the body was read closes the connection.

        `tls` is for `https` only; None, as True, trusts the authorities of the system.
        `server_name` is the host name in the certificate, if not that of the URL.

        Failures are aiohttp's, `OSError` and `TimeoutError`: see `peer_error`.
        """
        async with self._connected().request(
            method,
            url,
            data=data,
            headers={hdrs.ACCEPT_ENCODING: "identity", **(headers or {})},
            timeout=timeout,
            allow_redirects=False,
            ssl=tls or True,
            server_hostname=server_name,
        ) as response:
            yield response

    async def read(self, response: aiohttp.ClientResponse, peer: str) -> bytes:
        """The body of an answer.

        Raises:
            BadAnswer: it has more than `max_bytes`, or is compressed.
        """
        check_encoding(", ".join(response.headers.getall(hdrs.CONTENT_ENCODING, ())), peer)
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > self._max_bytes:
                raise BadAnswer(f"{peer}: an answer of more than {self._max_bytes} bytes")
        return bytes(body)

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=LimitedConnector(
                    self._max_bytes,
                    limit=0,
                    resolver=_WorkersResolver() if self._workers else None,
                    **(
                        {"keepalive_timeout": self._keep_alive_s}
                        if self._keep_alive_s
                        else {"force_close": True}
                    ),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=_NO_TIMEOUT,
                auto_decompress=False,
            )
        return self._session


def peer_error(error: Exception, peer: str) -> PeerError:
    """The typed error for a failure of a request, which is of `aiohttp`, `OSError` or `ValueError`.

    `ConnectionRefused` where no process listens, `BadAnswer` for an answer that is not valid HTTP,
    `TlsFailed` for a certificate that is not accepted, and `Unreachable` for everything else.
    """
    if (problem := tls_problem(error)) is not None:
        return TlsFailed(f"{peer}: {problem}")
    text = f"{peer}: {connection_problem(error)}"
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.InvalidURL | _AnswerTooLarge):
        return BadAnswer(text)
    refused = isinstance(getattr(error, "os_error", error), ConnectionRefusedError)
    return (ConnectionRefused if refused else Unreachable)(text)


def connection_problem(error: BaseException) -> str:
    """What is wrong with a connection, in the system's words: `Connection refused`.

    aiohttp writes `Cannot connect to host h:1 ssl:default [Connect call failed ('10.0.0.7', 1)]`,
    which names the address again, and TLS where there is none.
    """
    if isinstance(error, aiohttp.ClientResponseError):  # without its own status and URL
        return f"not an HTTP answer: {' '.join(error.message.split())}"
    cause = getattr(error, "os_error", error)
    if isinstance(cause, OSError) and "[SSL" in str(cause):
        # Its number is OpenSSL's: as the system's, 1 would be `Operation not permitted`.
        return cause.strerror or str(cause)
    if isinstance(cause, OSError):
        numbers = {cause.errno} if cause.errno else set(map(int, _ERRNO.findall(str(cause))))
        known = sorted(os.strerror(each) for each in numbers if each and each > 0)
        if known:
            return " and ".join(known)
        if cause.strerror:  # of a name that cannot be resolved
            return cause.strerror
    return str(cause) or type(cause).__name__


class _AnswerTooLarge(aiohttp.ClientError):
    pass


class LimitedConnector(aiohttp.TCPConnector):
    """Connections that are cut once far more bytes than the largest body have come for one answer.

    Twice as many, because a body in chunks has more, and 128 KB for the head. Make it inside a
    running event loop.
    """

    def __init__(self, max_body_bytes: int, **options: Any) -> None:
        super().__init__(**options)
        max_bytes = 2 * max_body_bytes + _MAX_HEAD_BYTES
        limited: Any = functools.partial(_LimitedHandler, max_bytes, loop=self._loop)
        self._factory = limited


class _LimitedHandler(ResponseHandler):
    def __init__(self, max_bytes: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._max_bytes = max_bytes
        self._received_bytes = 0

    def set_response_params(self, **params: Any) -> None:
        """Called at the beginning of each request on the connection."""
        self._received_bytes = 0
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Called for all bytes that come in."""
        self._received_bytes += len(data)
        if self._received_bytes > self._max_bytes:
            self.set_exception(_AnswerTooLarge(f"an answer of more than {self._max_bytes} bytes"))
            if self.transport is not None:
                self.transport.abort()
            return
        super().data_received(data)


class _WorkersResolver(AbstractResolver):
    """Resolves host names, without the addresses that no worker can have.

    A registry checks an address, but cannot check what a name will resolve to.
    """

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily | Any = 0
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        allowed = [
            each for each in found if never_allowed(ipaddress.ip_address(each["host"])) is None
        ]
        if found and not allowed:
            raise OSError(f"{host} is {found[0]['host']}: no worker can have that address")
        return allowed

    async def close(self) -> None:
        await self._resolver.close()
