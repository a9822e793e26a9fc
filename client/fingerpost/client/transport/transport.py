"""Step 2: one image to one worker or relaying proxy, and what the answer says about both."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.client.images.oneshot import OneShot
from fingerpost.client.route.route import DIRECT
from fingerpost.client.routing import Outcome, PhaseClock
from fingerpost.client.transport.pool import Pools
from fingerpost.client.transport.upload import Upload
from fingerpost.client.wire import DEADLINE_HEADER, WORKER_HEADER, ClassifyAnswer
from fingerpost.errors import BadAnswer, FingerpostError, Unreachable, error_from_json
from fingerpost.registry import LOAD_HEADER
from fingerpost.registry.load import read_load_answer

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from fingerpost.client.config import ClientConfig
    from fingerpost.client.route.route import Way
    from fingerpost.client.transport.answer import Answer
    from fingerpost.client.transport.deadlines import Sweep
    from fingerpost.client.transport.pool import Pool
    from fingerpost.registry import LoadReport

__all__ = ["Reply", "Transport"]

_LOAD_FIELD: Final = LOAD_HEADER.lower().encode()
_WORKER_FIELD: Final = WORKER_HEADER.lower().encode()
_decoder: Final = msgspec.json.Decoder(ClassifyAnswer)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """How one attempt ended: with an `answer`, or with an `error`.

    `report` is the load report's header as it came; reading one takes 12 us. `worker` is whom a
    relaying proxy names as the one that answered.
    """

    outcome: Outcome
    answer: ClassifyAnswer | None = None
    error: FingerpostError | None = None
    report: str | None = None
    worker: str = ""


class Transport:
    """The connections to all workers, or to all proxies. Make it inside a running loop."""

    def __init__(self, config: ClientConfig, sweep: Sweep, way: Way = DIRECT) -> None:
        self._config = config
        self._way = way
        self._clock = asyncio.get_running_loop().time
        self._sweep = sweep
        self._pools = Pools(config)

    async def aclose(self) -> None:
        """Close all connections."""
        self._pools.close()

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

    async def classify(
        self,
        address: str,
        model: str,
        top: int,
        upload: Upload,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one image to the peer at `address`; every failure is a `Reply` too.

        Args:
            address: `host:port`.
            model: a model reference.
            top: how many labels to ask for.
            upload: the image.
            headers: further header fields, as they go onto the wire.

        Raises:
            ImageError: the source of a one-shot image failed.
        """
        head = _head(self._way.path, address, model, top)
        if headers:
            head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
        pool = self._pools.take(address)
        try:
            answer = await self._exchange(pool, head, upload)
        except OSError as error:
            # Refused, no such host, no route, or no answer to the connection attempt.
            return Reply(outcome=Outcome.REFUSED, error=_unreachable(address, error))
        except (BadAnswer, Unreachable) as error:
            return Reply(outcome=Outcome.FAILED, error=error)
        finally:
            self._pools.release(address, pool)
        return self._read(address, answer)

    async def load(self, address: str) -> LoadReport:
        """Ask a worker for its load report; the caller sets the limit.

        Raises:
            Unreachable: no connection, or it broke.
            PeerError: it answered something else; see `read_load_answer`.
        """
        pool = self._pools.take(address)
        try:
            answer = await self._exchange(pool, _load_head(address), None)
        except OSError as error:
            raise _unreachable(address, error) from error
        finally:
            self._pools.release(address, pool)
        encoding = answer.fields.get(b"content-encoding", b"").decode("latin-1")
        return read_load_answer(answer.status, encoding, answer.body, address)

    def give_up(self, address: str, reason: str) -> None:
        """End the attempts that have sent their image there and wait for the answer."""
        self._pools.give_up(address, reason)

    async def _exchange(self, pool: Pool, head: bytes, upload: Upload | None) -> Answer:
        """One request and its answer, on another connection where a kept one was closed."""
        again = upload is None or not isinstance(upload.data, OneShot)
        while True:
            connection = await pool.take(probe=upload is None)
            self._sweep.add(connection)
            try:
                return await connection.exchange(self._whole(head, upload), upload)
            except Unreachable:
                if not (again and connection.stale):
                    raise
                again = False
            finally:
                self._sweep.discard(connection)
                pool.give(connection)
            pool.tidy()  # the others have been idle for longer

    def _whole(self, head: bytes, upload: Upload | None) -> bytes:
        """The head of a request, with what is known of it only now."""
        if upload is None:
            return head + b"\r\n"
        left_ms = upload.clock.left_ms(self._clock())
        if isinstance(upload.data, OneShot):
            return _CHUNKED % (head, left_ms)
        return _SIZED % (head, left_ms, len(upload.data))

    def _read(self, address: str, raw: Answer) -> Reply:
        status, fields, body = raw
        load = fields.get(_LOAD_FIELD)
        report = None if load is None else load.decode("latin-1")
        worker = fields.get(_WORKER_FIELD, b"").decode("ascii", "replace")
        if status != 200:
            error = error_from_json(body, status=status, retry_after_s=_retry_after_s(fields))
            outcome, error = self._way.judge(address, status, error)
            return Reply(outcome=outcome, error=error, report=report, worker=worker)
        try:
            answer = _decoder.decode(body)
        except msgspec.MsgspecError as cause:
            error = BadAnswer(
                f"{address}: {body[:200]!r} is no answer to a classification: {cause}"
            )
            return Reply(outcome=Outcome.FAILED, error=error, report=report, worker=worker)
        if len(answer.results) != 1 or answer.results[0].error is not None:
            error = BadAnswer(f"{address}: {body[:200]!r} is no answer to one image")
            return Reply(outcome=Outcome.FAILED, error=error, report=report, worker=worker)
        return Reply(outcome=Outcome.ANSWERED, answer=answer, report=report, worker=worker)


_SIZED: Final = b"%%b%b: %%d\r\nContent-Length: %%d\r\n\r\n" % DEADLINE_HEADER.encode()
_CHUNKED: Final = b"%%b%b: %%d\r\nTransfer-Encoding: chunked\r\n\r\n" % DEADLINE_HEADER.encode()


@lru_cache(maxsize=4096)
def _head(path: str, address: str, model: str, top: int) -> bytes:
    return (
        f"POST {path}{model}?top={top} HTTP/1.1\r\nHost: {address}\r\n"
        "Content-Type: application/octet-stream\r\n"
    ).encode()


def _load_head(address: str) -> bytes:
    return f"GET /load HTTP/1.1\r\nHost: {address}\r\n".encode()


def _unreachable(address: str, error: Exception) -> Unreachable:
    return Unreachable(f"{address}: {error or type(error).__name__}")


def _retry_after_s(fields: Mapping[bytes, bytes]) -> float | None:
    # RFC 9110 also allows a date; Fingerpost's workers send seconds, and a date needs a clock.
    value = fields.get(b"retry-after", b"")
    return float(value) if value.isdigit() else None
