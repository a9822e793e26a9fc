"""What came of one attempt, and the fields of an answer's head that say more of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.client.routing import Outcome
from fingerpost.client.wire import WORKER_HEADER, ReceivedAnswer
from fingerpost.errors import FingerpostError
from fingerpost.errors.retry_after import read_retry_after
from fingerpost.registry import LOAD_HEADER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fingerpost.client.tasks.inference import Inference  # noqa: TC004 - never decoded
    from fingerpost.client.transport.answer import Answer

__all__ = ["Reply", "report_of", "retry_after_s", "worker_of"]

_LOAD_FIELD: Final = LOAD_HEADER.lower().encode()
_WORKER_FIELD: Final = WORKER_HEADER.lower().encode()


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one attempt: an `answer` or an `error`.

    Attributes:
        outcome: what the result says about the peer, for the routing.
        report: the load report's header, not decoded, because decoding it takes 12 us.
        silent: the peer had the whole image, and then the connection ended without an answer.
        informed: before that it said that it begins with the image: see `SUSPECT_HEADER`.
        worker: the worker that a relaying proxy names as the one that answered.
    """

    outcome: Outcome
    answer: ReceivedAnswer | Inference | None = None
    error: FingerpostError | None = None
    report: str | None = None
    worker: str = ""
    silent: bool = False
    informed: bool = False


def report_of(answer: Answer) -> str | None:
    """The load report's header, not decoded; None where there is none."""
    load = answer.fields.get(_LOAD_FIELD)
    return None if load is None else load.decode("latin-1")


def worker_of(answer: Answer) -> str:
    """The worker, id and address, that a relaying proxy names; empty where it names none."""
    return answer.fields.get(_WORKER_FIELD, b"").decode("ascii", "replace")


def retry_after_s(fields: Mapping[bytes, bytes]) -> float | None:
    """The seconds of an answer's `Retry-After`; None where it has none that is believed."""
    value = fields.get(b"retry-after")
    return None if value is None else read_retry_after(value.decode("latin-1"), time.time())
