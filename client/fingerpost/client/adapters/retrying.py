"""A request of another HTTP client at a picked worker, and at another one if that fails."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, Protocol

from fingerpost.errors import ConfigurationError
from fingerpost.errors.retry_after import read_retry_after
from fingerpost.registry.names import is_service

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fingerpost.client.client import Client
    from fingerpost.client.dispatch.connect import ConnectedWorker

__all__ = ["Answered", "Failure", "names_service", "send_routed"]

# RFC 9110, 9.2.2; and what says itself that it may be sent twice.
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"})
_KEY: Final = "Idempotency-Key"
_BUSY: Final = frozenset({429, 503})
_BROKEN: Final = frozenset({502, 504})

# Whether an error is a refused connection (`refused`), another failure of the worker (`failed`), or
# neither (`abandoned`).
Failure = str


class Answered(Protocol):
    """An answer, as both HTTP clients have it."""

    @property
    def headers(self) -> Any:
        """Its header fields."""
        ...


def names_service(host: str | None, port: int | None) -> bool:
    """Whether a URL's host is the name of a service: no dot, no port, and not `localhost`."""
    return port is None and host is not None and host != "localhost" and is_service(host)


async def send_routed(
    client: Client,
    service: str,
    *,
    scheme: str,
    method: str,
    headers: Any,
    send: Callable[[ConnectedWorker], Awaitable[Any]],
    status: Callable[[Any], int],
    failure: Callable[[BaseException], Failure],
    discard: Callable[[Any], Awaitable[None]],
    again: Callable[[], bool],
) -> tuple[Any, AsyncExitStack]:
    """The answer, and what releases its worker; the caller closes that.

    A request is sent again, to another worker, where no connection was made; or where the
    connection broke, or the status is 429, 502, 503 or 504, and the method is idempotent or the
    request has an `Idempotency-Key`. There are `RetryConfig.max_attempts` attempts, and retries
    come out of the client's retry budget.

    Args:
        scheme: of the URL; `https` asks for TLS, and `http` takes it where the worker has it.
        send: sends it to a worker.
        status: of an answer.
        failure: what an exception of `send` says of the worker.
        discard: gives an answer up.
        again: whether the body can be sent again.

    Raises:
        ConfigurationError: the URL is `https`, and the worker has no TLS: nothing was sent.
        whatever `send` raises; and as `Client.connect`.
    """
    config = client._config.routing.retries
    repeatable = method.upper() in _IDEMPOTENT or _KEY in headers
    tried: frozenset[str] = frozenset()
    for left in range(config.max_attempts - 1, -1, -1):
        async with AsyncExitStack() as stack:
            worker = await stack.enter_async_context(client.connect(service, tried=tried))
            tried |= {worker.id}
            if scheme == "https" and not worker.instance.speaks_tls:
                worker.release("abandoned")
                raise ConfigurationError(
                    f"https://{service}/ asks for TLS, which the worker {worker.address} does not "
                    f"have: give it a certificate, or write http://{service}/"
                )
            try:
                answer = await send(worker)
            except BaseException as error:
                kind = failure(error)
                worker.release(kind)
                allowed = kind == "refused" or (kind == "failed" and repeatable)
                if not (allowed and left and again() and client._may_retry()):
                    raise
                continue
            code = status(answer)
            if code in _BUSY:
                worker.release("overloaded", retry_after_s=_retry_after_s(answer))
            elif code >= 500:
                worker.release("failed")
            repeat = repeatable and code in _BUSY | _BROKEN
            if repeat and left and again() and client._may_retry():
                await discard(answer)
                continue
            return answer, stack.pop_all()
    raise RuntimeError("no attempt was made")


def _retry_after_s(answer: Answered) -> float | None:
    return read_retry_after(str(answer.headers.get("Retry-After", "")), time.time())
