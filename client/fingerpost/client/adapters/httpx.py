"""Services as hosts in URLs of httpx2 and httpx: `http://flowers/any/path`.

::

    transport = FingerpostTransport(client, httpx2.AsyncHTTPTransport())
    async with httpx2.AsyncClient(transport=transport) as http:
        answer = await http.post("http://flowers/any/path", json=question)

Neither library is imported: the transport that does the sending is the caller's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fingerpost.client.adapters.retrying import names_service, send_routed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AsyncExitStack

    from fingerpost.client.client import Client
    from fingerpost.client.dispatch.connect import ConnectedWorker

__all__ = ["FingerpostTransport"]

_REFUSED: Final = frozenset({"ConnectError", "ConnectTimeout"})
_FAILED: Final = frozenset({"TransportError"})


class FingerpostTransport:
    """A transport of httpx2 or httpx that sends requests for a service to a picked worker.

    A host without a dot and without a port is the name of a service (`http://flowers/`); all other
    URLs go on unchanged. `https://flowers/` is refused where the worker has no TLS. The worker
    counts as busy until the answer is read or closed. Retries are those of `send_routed`: a body
    that is an iterator is sent once.

    Args:
        client: picks the workers; the caller closes it.
        transport: sends; `AsyncHTTPTransport()` of either library. It is closed with this one.
    """

    def __init__(self, client: Client, transport: Any) -> None:
        self._client = client
        self._transport = transport

    async def __aenter__(self) -> FingerpostTransport:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._transport.__aexit__(*error)

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._transport.aclose()

    async def handle_async_request(self, request: Any) -> Any:
        """See `AsyncBaseTransport` of httpx."""
        url, host = request.url, request.url.host
        if not names_service(host, url.port):
            return await self._transport.handle_async_request(request)

        async def send(worker: ConnectedWorker) -> Any:
            request.url = url.copy_with(
                scheme="https" if worker.instance.speaks_tls else "http",
                host=worker.host,
                port=worker.port,
            )
            request.headers["Host"] = worker.address
            request.headers.update(worker.headers)
            return await self._transport.handle_async_request(request)

        try:
            answer, stack = await send_routed(
                self._client,
                host,
                scheme=url.scheme,
                method=request.method,
                headers=request.headers,
                send=send,
                status=lambda response: response.status_code,
                failure=_failure,
                discard=lambda response: response.aclose(),
                again=lambda: hasattr(request.stream, "__iter__"),
            )
        finally:
            request.url = url
        answer.stream = _stream_class(type(answer.stream))(answer.stream, stack)
        return answer


def _stream_class(kind: type) -> type[_Stream]:
    """`_Stream` as a subclass of the library's own class of streams, which the library wants."""
    base = next(each for each in kind.__mro__ if each.__name__ == "AsyncByteStream")
    made = _CLASSES.get(base)
    if made is None:
        made = _CLASSES[base] = type("RoutedStream", (_Stream, base), {})
    return made


_CLASSES: Final[dict[type, type[_Stream]]] = {}


def _failure(error: BaseException) -> str:
    """By the names of the classes, which are those of both libraries."""
    names = {each.__name__ for each in type(error).__mro__}
    if names & _REFUSED:
        return "refused"
    return "failed" if names & _FAILED else "abandoned"


class _Stream:
    """An answer's body, whose end releases the worker."""

    def __init__(self, stream: Any, stack: AsyncExitStack) -> None:
        self._stream = stream
        self._stack = stack

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            yield piece

    async def aclose(self) -> None:
        """Close the body, and release the worker."""
        try:
            await self._stream.aclose()
        finally:
            await self._stack.aclose()
