"""Step 2: one image to one worker, and what its answer says about both."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING, Final

import aiohttp
import msgspec
from yarl import URL

from fingerpost.client.pools import Pools
from fingerpost.client.routing import Outcome, Phase, PhaseClock
from fingerpost.client.sweep import Limited
from fingerpost.client.upload import Upload
from fingerpost.client.wire import DEADLINE_HEADER, ClassifyAnswer
from fingerpost.registry import (
    LOAD_HEADER,
    BadAnswer,
    CallerError,
    DeadlineExceeded,
    Draining,
    FingerpostError,
    ImageError,
    LoadReport,
    Overloaded,
    Unreachable,
    error_from_json,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from fingerpost.client.config import ClientConfig
    from fingerpost.client.oneshot import OneShot
    from fingerpost.client.sweep import Sweep

__all__ = ["Reply", "Transport"]

_decoder: Final = msgspec.json.Decoder(ClassifyAnswer)
_load_decoder: Final = msgspec.json.Decoder(LoadReport)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """How one attempt ended: with an `answer`, or with an `error`.

    `report` is the load report's header as it came; reading one takes 12 us.
    """

    outcome: Outcome
    answer: ClassifyAnswer | None = None
    error: FingerpostError | None = None
    report: str | None = None


class _Sending(Limited):
    """An attempt under way, which fails where one of its phases takes too long."""

    __slots__ = ("address", "upload")

    def __init__(self, address: str, upload: Upload) -> None:
        super().__init__()
        self.address = address
        self.upload = upload

    def check(self, now: float) -> None:
        """See `Sweep`; at the deadline it is the request that ends, and not this attempt."""
        clock = self.upload.clock
        if now < clock.expires_at() or now >= clock.deadline:
            return
        if clock.phase is not Phase.UPLOAD:
            self.cut(f"silent for {clock.compute_s:g} s (silence_s)")
        elif not self.upload.moved(now):
            self.cut(f"the upload stood still for {clock.progress_s:g} s (progress_s)")


class Transport:
    """The connections to all workers. Make it inside a running loop."""

    def __init__(self, config: ClientConfig, sweep: Sweep) -> None:
        self._config = config
        self._clock = asyncio.get_running_loop().time
        self._sweep = sweep
        self._pools = Pools(config)
        self._sending: set[_Sending] = set()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pools.aclose()

    def retain(self, addresses: Collection[str]) -> None:
        """Close the connections to all others, once nothing is in flight on them."""
        self._pools.retain(addresses)

    def upload(self, data: bytes | OneShot, *, deadline: float) -> Upload:
        """One attempt at sending an image."""
        now = self._clock
        clock = PhaseClock(
            now(),
            deadline=deadline,
            connect_s=inf,  # the pool's own limit: waiting for a connection is not connecting
            progress_s=self._config.progress_s,
            compute_s=self._config.silence_s,
        )
        return Upload(data, clock, now)

    async def classify(self, address: str, model: str, top: int, upload: Upload) -> Reply:
        """Send one image to the worker at `address`; every failure is a `Reply` too.

        Raises:
            ImageError: the source of a one-shot image failed.
        """
        left_ms = upload.clock.left_ms(self._clock())
        sending = _Sending(address, upload)
        self._sending.add(sending)
        pool = self._pools.take(address)
        self._sweep.add(sending)
        try:
            async with pool.session.post(
                _url(address, model, top),
                data=upload,
                headers={DEADLINE_HEADER: str(left_ms)},
                allow_redirects=False,
            ) as response:
                content = await response.read()
                status, fields = response.status, response.headers
        except asyncio.CancelledError:
            if sending.was_cut():
                error = Unreachable(f"{address}: {sending.reason}")
                return Reply(outcome=Outcome.FAILED, error=error)
            raise
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            # Refused, no such host, no route, or no answer to the connection attempt.
            return Reply(outcome=Outcome.REFUSED, error=_unreachable(address, error))
        except (aiohttp.ClientResponseError, aiohttp.ClientPayloadError) as error:
            return Reply(outcome=Outcome.FAILED, error=BadAnswer(f"{address}: {error}"))
        except (aiohttp.ClientError, OSError) as error:
            if (cause := upload.source_error) is not None:
                raise ImageError(f"reading the image failed: {cause!r}") from cause
            return Reply(outcome=Outcome.FAILED, error=_unreachable(address, error))
        finally:
            self._pools.release(address, pool)
            self._sweep.discard(sending)
            self._sending.discard(sending)
        return _read(address, status, fields, content)

    async def load(self, address: str) -> LoadReport:
        """Ask a worker for its load report; the caller sets the limit.

        Raises:
            Unreachable: no connection, or it broke.
            BadAnswer: it answered something else.
        """
        pool = self._pools.take(address)
        try:
            async with pool.session.get(_load_url(address), allow_redirects=False) as response:
                body = await response.read()
                if response.status != 200:
                    raise BadAnswer(f"{address}/load: HTTP {response.status}")
                return _load_decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise BadAnswer(f"{address}/load: {error}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(address, error) from error
        finally:
            self._pools.release(address, pool)

    def give_up(self, address: str, reason: str) -> None:
        """End the attempts that have sent their image there and wait for the answer."""
        for each in self._sending:
            if each.address == address and each.upload.sent_at is not None:
                each.cut(reason)


@lru_cache(maxsize=4096)
def _url(address: str, model: str, top: int) -> URL:
    # Made once for each worker: parsing a URL costs more than routing the request.
    return URL(f"http://{address}/v1/classify/{model}?top={top}", encoded=True)


@lru_cache(maxsize=4096)
def _load_url(address: str) -> URL:
    return URL(f"http://{address}/load", encoded=True)


def _unreachable(address: str, error: Exception) -> Unreachable:
    return Unreachable(f"{address}: {error or type(error).__name__}")


def _read(address: str, status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    report = headers.get(LOAD_HEADER)
    if status != 200:
        error = error_from_json(body, status=status, retry_after_s=_retry_after_s(headers))
        return Reply(outcome=_outcome(error), error=error, report=report)
    try:
        answer = _decoder.decode(body)
    except msgspec.MsgspecError as cause:
        error = BadAnswer(f"{address}: {body[:200]!r} is no answer to a classification: {cause}")
        return Reply(outcome=Outcome.FAILED, error=error, report=report)
    if len(answer.results) != 1 or answer.results[0].error is not None:
        error = BadAnswer(f"{address}: {body[:200]!r} is no answer to one image")
        return Reply(outcome=Outcome.FAILED, error=error, report=report)
    return Reply(outcome=Outcome.ANSWERED, answer=answer, report=report)


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
