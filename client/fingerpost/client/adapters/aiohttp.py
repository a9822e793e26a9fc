"""Services as hosts in URLs of aiohttp: `http://flowers/any/path`.

::

    async with aiohttp.ClientSession(middlewares=[FingerpostMiddleware(client)]) as http:
        async with http.post("http://flowers/any/path", json=question) as answer:
            ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
from aiohttp import hdrs

from fingerpost.client.adapters.retrying import names_service, send_routed

if TYPE_CHECKING:
    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

    from fingerpost.client.client import Client
    from fingerpost.client.dispatch.connect import ConnectedWorker

__all__ = ["FingerpostMiddleware"]


class FingerpostMiddleware:
    """A client middleware of aiohttp that sends requests for a service to a picked worker.

    A host without a dot and without a port is the name of a service (`http://flowers/`); all other
    URLs go on unchanged. `https://flowers/` is refused where the worker has no TLS. The worker
    counts as busy until the answer's head has come. Retries are those of `send_routed`: a body that
    is an iterator or a file is sent once.

    Args:
        client: picks the workers; the caller closes it.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """See aiohttp's client middlewares."""
        url = request.url
        if not names_service(url.host, None if url.is_default_port() else url.port):
            return await handler(request)

        async def send(worker: ConnectedWorker) -> ClientResponse:
            scheme = "https" if worker.instance.speaks_tls else "http"
            request.url = url.with_scheme(scheme).with_host(worker.host).with_port(worker.port)
            request.headers[hdrs.HOST] = worker.address
            request.headers.update(worker.headers)
            if worker.ssl_context is not None:
                request._ssl = worker.ssl_context
            return await handler(request)

        async def discard(response: ClientResponse) -> None:
            response.release()

        answer: ClientResponse
        answer, stack = await send_routed(
            self._client,
            url.host or "",
            scheme=url.scheme,
            method=request.method,
            headers=request.headers,
            send=send,
            status=lambda response: response.status,
            failure=_failure,
            discard=discard,
            again=lambda: _again(request),
        )
        await stack.aclose()
        return answer


def _again(request: ClientRequest) -> bool:
    """Whether the body can be sent again: bytes and text, and none."""
    body = request.body
    return isinstance(body, bytes | aiohttp.BytesPayload)


def _failure(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return "refused"
    if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | TimeoutError):
        return "failed"
    return "abandoned"
