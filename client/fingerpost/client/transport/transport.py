"""Step 2: send one image to one worker or relaying proxy, and read the answer."""

from __future__ import annotations

import asyncio
import secrets
from functools import lru_cache, partial
from math import inf
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.client.images.frames import Frame, FrameMemory, ImageData
from fingerpost.client.images.load import load_image
from fingerpost.client.images.oneshot import OneShot
from fingerpost.client.route.route import DIRECT
from fingerpost.client.routing import Outcome, PhaseClock
from fingerpost.client.transport.attempt import Attempt
from fingerpost.client.transport.liveness import LivenessChecks
from fingerpost.client.transport.local_sockets import LocalSockets
from fingerpost.client.transport.pool import Pools
from fingerpost.client.transport.reply import Reply, report_of, retry_after_s, worker_of
from fingerpost.client.wire import (
    BOOT_ID_HEADER,
    CLASS_HEADER,
    DEADLINE_HEADER,
    FRAME_HEADER,
    ReceivedAnswer,
)
from fingerpost.errors import (
    BadAnswer,
    FingerpostError,
    InvalidFrame,
    InvalidRequest,
    TlsFailed,
    Unreachable,
    UnsupportedImage,
    error_from_json,
)
from fingerpost.registry.instance import split_target
from fingerpost.registry.load import read_load_answer
from fingerpost.registry.peers.answer import decode_answer
from fingerpost.security.tls import ClientTls

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from ssl import SSLContext

    from fingerpost.client.config import ClientConfig
    from fingerpost.client.images.load import ImageSource
    from fingerpost.client.route.route import Route
    from fingerpost.client.tasks.inference import Inference
    from fingerpost.client.transport.answer import Answer
    from fingerpost.client.transport.deadlines import DeadlineScheduler
    from fingerpost.client.transport.pool import Pool
    from fingerpost.registry import Instance, LoadReport

__all__ = ["Transport", "failed"]

_decoder: Final = msgspec.json.Decoder(ReceivedAnswer)
# A label and its score have some 50 bytes; the rest of an answer has less than 1,000.
_ANSWER_BYTES: Final = 1 << 18
_LABEL_BYTES: Final = 1 << 10
# Ten masks of 12 megapixels as PNG, or the tensors of a large model.
_INFERENCE_BYTES: Final = 1 << 26
# With these a worker refuses a frame that it, or its model, cannot use as it is.
_UNFIT: Final = (InvalidFrame, InvalidRequest, UnsupportedImage)
_ACCEPT: Final = b"Accept: application/octet-stream\r\n"


class _NotSent(Exception):
    """A frame's memory could not be sent."""


class Transport:
    """The connections to all workers, or to all relaying proxies. Make it inside a running loop."""

    def __init__(
        self,
        config: ClientConfig,
        deadlines: DeadlineScheduler,
        route: Route = DIRECT,
        tls: ClientTls | None = None,
    ) -> None:
        self._config = config
        self._route = route
        self._credential = route.credential
        self._clock = asyncio.get_running_loop().time
        self._deadlines = deadlines
        self._context = partial(route.context, tls or ClientTls())
        self._local = LocalSockets(self._clock, enabled=config.uds)
        self._memory = FrameMemory()
        self._unfit: set[tuple[str, str]] = set()
        self._pools = Pools(config, self._context, self._local.connect)
        self._liveness = LivenessChecks(config, self.load)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._liveness.aclose()
        self._pools.close()
        self._local.close()
        self._memory.close()

    def retain(self, addresses: Collection[str]) -> None:
        """Close the connections to all other addresses, once nothing is in flight on them."""
        self._pools.retain(addresses)

    def use(self, instances: Collection[Instance]) -> None:
        """Learn the Unix sockets of these workers, and `retain` only their addresses."""
        self._local.retain(instances)
        targets = {each.target for each in instances}
        self._unfit = {each for each in self._unfit if each[0] in targets}
        self.retain({to for each in instances for to in (each.target, each.load_target)})

    def attempt(self, data: ImageData, *, deadline: float) -> Attempt:
        """A new attempt at sending an image; `deadline` is in the event loop's time."""
        clock = PhaseClock(
            self._clock(),
            deadline=deadline,
            connect_timeout_s=inf,  # the pool limits it: waiting for a connection is not connecting
            upload_stall_timeout_s=self._config.upload_stall_timeout_s,
            response_timeout_s=self._config.response_timeout_s,
        )
        return Attempt(data, clock, self._liveness)

    async def classify(
        self,
        address: str,
        model: str,
        top: int,
        attempt: Attempt,
        headers: Mapping[str, str] | None = None,
        *,
        boot_id: int = 0,
        lease: str = "",
        infer: bool = False,
    ) -> Reply:
        """Send one image to the peer at `address`. A failure is returned as a `Reply` too.

        Args:
            address: see `Instance.target`.
            model: a model reference.
            top: how many labels to ask for.
            attempt: holds the image.
            headers: more header fields of the request.
            boot_id: of the process that the image is meant for; 0 if any will do.
            lease: the signed right to send it; empty where there is none.
            infer: ask for the answer of the model's task, whatever that is.

        Raises:
            ImageError: the source of a one-shot image failed.
        """
        path = self._route.infer_path if infer else self._route.path
        head = _head(path, address, model, top, boot_id, lease)
        if self._credential is not None:
            head += f"Authorization: {self._credential.header()}\r\n".encode()
        if headers:
            head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
        attempt.max_answer_bytes = _ANSWER_BYTES + _LABEL_BYTES * top
        if infer:
            head += _ACCEPT
            attempt.max_answer_bytes = _INFERENCE_BYTES
        refused: FingerpostError | None = None
        if isinstance(attempt.data, Frame):
            frame, fits = attempt.data, (address, model) not in self._unfit
            reply = await self._map(address, head, attempt, frame, infer=infer) if fits else None
            if reply is not None and not isinstance(reply.error, _UNFIT):
                return reply
            refused = None if reply is None else reply.error
            await attempt.encoded()
        answer = await self.send(address, head, attempt)
        if isinstance(answer, Reply):
            return answer
        reply = self._read(address, answer, infer=infer)
        if reply.answer is not None and isinstance(refused, InvalidRequest | UnsupportedImage):
            self._unfit.add((address, model))  # its model takes encoded images alone, for example
        return reply

    async def send(self, address: str, head: bytes, attempt: Attempt) -> Answer | Reply:
        """Send a request of another protocol; the reply is that of an attempt without an answer.

        Args:
            address: see `Instance.target`.
            head: the request line and header fields, without those for length and deadline.
            attempt: holds the body.
        """
        pool = self._pools.acquire(address)
        try:
            return await self._exchange(pool, head, attempt)
        except (OSError, Unreachable, TlsFailed, BadAnswer) as error:
            return failed(error, address, attempt)
        finally:
            self._pools.release(address, pool)

    def refusal(self, address: str, raw: Answer) -> Reply:
        """The reply for an error that a Fingerpost worker or proxy answered."""
        status, fields, body = raw
        worker = worker_of(raw)
        error = error_from_json(
            body, status=status, peer=address, retry_after_s=retry_after_s(fields)
        )
        outcome, error = self._route.classify_error(address, status, error)
        silent = bool(worker) and isinstance(error, Unreachable)
        if silent:  # of a worker behind the relay, not of the relay itself
            outcome = Outcome.ABANDONED
        report = report_of(raw)
        return Reply(outcome=outcome, error=error, report=report, worker=worker, silent=silent)

    async def frame(self, image: ImageSource, model: str) -> ImageData:
        """A frame in memory that workers can map; encoded if none of them is on this host."""
        frame = self._memory.copy(image, model) if self._local.frames else None
        return await load_image(image) if frame is None else frame

    async def _map(
        self, address: str, head: bytes, attempt: Attempt, frame: Frame, *, infer: bool
    ) -> Reply | None:
        """Have a worker map a frame; None where its memory cannot be sent there."""
        if not self._local.takes_frames(address):
            return None

        def lead() -> bytes:
            token = secrets.token_hex(8)
            if not self._local.send_frame(address, token.encode(), frame.descriptor):
                raise _NotSent
            return f"{FRAME_HEADER}: {token} {frame.description}\r\n".encode()

        frame.lent += 1
        attempt.lead, attempt.mapped_bytes = lead, len(frame)
        try:
            answer = await self.send(address, head, attempt)
        except _NotSent:
            frame.lent -= 1
            return None
        finally:
            attempt.lead = None
        if isinstance(answer, Reply):
            return answer
        frame.lent -= 1  # whoever has answered reads it no more
        return self._read(address, answer, infer=infer)

    async def load(self, address: str, lease: str = "", priority: str | None = None) -> LoadReport:
        """Ask a worker for its load report; the caller limits the time.

        Args:
            address: of the worker.
            lease: whose tenant's images the report is to be about; empty for any.
            priority: the class of these images; None is the first one.

        Raises:
            Unreachable: the connection failed.
            PeerError: the answer is not a load report; see `read_load_answer`.
        """
        pool = self._pools.acquire(address)
        try:
            answer = await self._exchange(pool, _load_head(address, lease, priority), None)
        except OSError as error:
            raise _unreachable(address, error) from error
        finally:
            self._pools.release(address, pool)
        encoding = answer.fields.get(b"content-encoding", b"").decode("latin-1")
        return read_load_answer(answer.status, encoding, answer.body, address)

    def context(self, target: str) -> SSLContext | None:
        """The TLS context for a peer; None for one without. Raises `TlsFailed`, if it must."""
        return self._context(target)

    def abort(self, address: str, reason: str) -> None:
        """Abort the attempts that have sent their image there and wait for the answer."""
        self._pools.abort(address, reason)

    async def _exchange(self, pool: Pool, head: bytes, attempt: Attempt | None) -> Answer:
        """One request and its answer; once more if the worker had closed an idle connection."""
        again = attempt is None or not isinstance(attempt.data, OneShot)
        while True:
            connection = await pool.acquire(probe=attempt is None)
            self._deadlines.add(connection)
            try:
                return await connection.exchange(self._whole(head, attempt), attempt)
            except Unreachable:
                if not (again and connection.stale):
                    raise
                again = False
            finally:
                self._deadlines.discard(connection)
                pool.release(connection)
            pool.evict_idle()  # the other ones have been idle for longer

    def _whole(self, head: bytes, attempt: Attempt | None) -> bytes:
        """The head of a request, completed by the fields that are known only now."""
        if attempt is None:
            return head + b"\r\n"
        if attempt.lead is not None:
            head += attempt.lead()
        left_ms = attempt.clock.left_ms(self._clock())
        if isinstance(attempt.data, OneShot):
            return _CHUNKED % (head, left_ms)
        return _SIZED % (head, left_ms, len(attempt.body))

    def _read(self, address: str, raw: Answer, *, infer: bool = False) -> Reply:
        status, fields, body = raw
        if status != 200:
            return self.refusal(address, raw)
        report, worker = report_of(raw), worker_of(raw)
        try:
            if infer:
                # Not at the top: most clients only classify.
                from fingerpost.client.tasks.inference import read_inference
                from fingerpost.client.tasks.wire import HEADER_FIELD

                found: ReceivedAnswer | Inference = read_inference(
                    fields.get(HEADER_FIELD), body, address
                )
            else:
                found = answer = decode_answer(
                    _decoder, body, address, "answer to a classification"
                )
                _check_one_image(answer, body, address)
        except BadAnswer as bad:
            return Reply(outcome=Outcome.FAILED, error=bad, report=report, worker=worker)
        return Reply(outcome=Outcome.ANSWERED, answer=found, report=report, worker=worker)


def failed(error: Exception, address: str, attempt: Attempt) -> Reply:
    """The reply of an attempt without an answer."""
    if isinstance(error, TlsFailed):
        return Reply(outcome=Outcome.REFUSED, error=error)
    if isinstance(error, BadAnswer):
        return Reply(outcome=Outcome.FAILED, error=error)
    silent = attempt.sent_at is not None
    if isinstance(error, Unreachable):
        informed = attempt.informed
        return Reply(outcome=Outcome.FAILED, error=error, silent=silent, informed=informed)
    # Refused, unknown host, no route, a timeout; also after an idle connection closed.
    return Reply(outcome=Outcome.REFUSED, error=_unreachable(address, error), silent=silent)


def _check_one_image(answer: ReceivedAnswer, body: bytes, address: str) -> None:
    """Raise `BadAnswer` where an answer is not predictions for exactly one image."""
    if len(answer.results) != 1:
        problem = f"{len(answer.results)} results for one image"
    elif answer.results[0].error is not None:
        problem = "HTTP 200 for an image that failed"
    elif not answer.results[0].predictions:
        problem = "no predictions"
    else:
        return
    raise BadAnswer(f"{address}: {problem}: {body[:200]!r}")


_SIZED: Final = b"%%b%b: %%d\r\nContent-Length: %%d\r\n\r\n" % DEADLINE_HEADER.encode()
_CHUNKED: Final = b"%%b%b: %%d\r\nTransfer-Encoding: chunked\r\n\r\n" % DEADLINE_HEADER.encode()


@lru_cache(maxsize=4096)
def _head(path: str, address: str, model: str, top: int, boot_id: int, lease: str) -> bytes:
    meant_for = f"{BOOT_ID_HEADER}: {boot_id}\r\n" if boot_id else ""
    right = f"Authorization: Bearer {lease}\r\n" if lease else ""
    return (
        f"POST {path}{model}?top={top} HTTP/1.1\r\nHost: {split_target(address)[0]}\r\n"
        f"{meant_for}{right}Content-Type: application/octet-stream\r\n"
    ).encode()


@lru_cache(maxsize=4096)
def _load_head(address: str, lease: str, priority: str | None) -> bytes:
    right = f"Authorization: Bearer {lease}\r\n" if lease else ""
    named = f"{CLASS_HEADER}: {priority}\r\n" if lease and priority else ""
    return (f"GET /load HTTP/1.1\r\nHost: {split_target(address)[0]}\r\n{right}{named}").encode()


def _unreachable(address: str, error: Exception) -> Unreachable:
    return Unreachable(f"{address}: {error or type(error).__name__}")
