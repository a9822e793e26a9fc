"""Step 2: one image to one worker, and what its answer says about both."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import aiohttp
import msgspec
from yarl import URL

from fingerpost.client.routing import Outcome
from fingerpost.client.wire import DEADLINE_HEADER, ClassifyAnswer
from fingerpost.registry import (
    LOAD_HEADER,
    BadAnswer,
    CallerError,
    DeadlineExceeded,
    Draining,
    FingerpostError,
    LoadReport,
    Overloaded,
    Unreachable,
    error_from_json,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fingerpost.client.config import ClientConfig

__all__ = ["Reply", "Transport"]

# aiohttp writes bytes in one piece; above this it asks for a file, which it writes in chunks.
_ONE_PIECE_BYTES: Final = 1 << 20

_decoder: Final = msgspec.json.Decoder(ClassifyAnswer)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """How one attempt ended: with an `answer`, or with an `error`."""

    outcome: Outcome
    answer: ClassifyAnswer | None = None
    error: FingerpostError | None = None
    load: LoadReport | None = None


class Transport:
    """The connections to all workers. Make it inside a running loop."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=config.connections_per_worker),
            cookie_jar=aiohttp.DummyCookieJar(),
            # No total: the caller has the deadline, and an upload that moves is not killed.
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=config.connect_s, sock_read=config.silence_s
            ),
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept"),
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def classify(
        self, address: str, model: str, top: int, image: bytes, *, left_s: float
    ) -> Reply:
        """Send one image to the worker at `address`; every failure is a `Reply` too."""
        headers = {
            "Content-Type": "application/octet-stream",
            DEADLINE_HEADER: str(max(1, int(left_s * 1000))),
        }
        body = image if len(image) <= _ONE_PIECE_BYTES else io.BytesIO(image)
        try:
            async with self._session.post(
                _url(address, model, top), data=body, headers=headers, allow_redirects=False
            ) as response:
                content = await response.read()
                status, fields = response.status, response.headers
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            # Refused, no such host, no route, or no answer to the connection attempt.
            return Reply(outcome=Outcome.REFUSED, error=_unreachable(address, error))
        except (aiohttp.ClientResponseError, aiohttp.ClientPayloadError) as error:
            return Reply(outcome=Outcome.FAILED, error=BadAnswer(f"{address}: {error}"))
        except (aiohttp.ClientError, OSError) as error:
            return Reply(outcome=Outcome.FAILED, error=_unreachable(address, error))
        return _read(address, status, fields, content)


@lru_cache(maxsize=4096)
def _url(address: str, model: str, top: int) -> URL:
    # Made once for each worker: parsing a URL costs more than routing the request.
    return URL(f"http://{address}/v1/classify/{model}?top={top}", encoded=True)


def _unreachable(address: str, error: Exception) -> Unreachable:
    return Unreachable(f"{address}: {error or type(error).__name__}")


def _read(address: str, status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    try:
        report = headers.get(LOAD_HEADER)
        load = None if report is None else LoadReport.from_header(report)
    except BadAnswer:
        load = None  # an answer without a usable report is still an answer
    if status != 200:
        error = error_from_json(body, status=status, retry_after_s=_retry_after_s(headers))
        return Reply(outcome=_outcome(error), error=error, load=load)
    try:
        answer = _decoder.decode(body)
    except msgspec.MsgspecError as cause:
        error = BadAnswer(f"{address}: {body[:200]!r} is no answer to a classification: {cause}")
        return Reply(outcome=Outcome.FAILED, error=error, load=load)
    if len(answer.results) != 1 or answer.results[0].error is not None:
        error = BadAnswer(f"{address}: {body[:200]!r} is no answer to one image")
        return Reply(outcome=Outcome.FAILED, error=error, load=load)
    return Reply(outcome=Outcome.ANSWERED, answer=answer, load=load)


def _outcome(error: FingerpostError) -> Outcome:
    match error:
        case Overloaded():
            return Outcome.OVERLOADED
        case Draining():
            return Outcome.DRAINING
        case CallerError():
            return Outcome.ANSWERED
        case DeadlineExceeded():
            return Outcome.ABANDONED
        case _:
            return Outcome.FAILED


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    # RFC 9110 also allows a date; Fingerpost's workers send seconds, and a date needs a clock.
    value = headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else None
