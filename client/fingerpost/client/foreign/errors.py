"""What a foreign worker's HTTP status says about the image and about the worker. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fingerpost.client.routing import Outcome
from fingerpost.errors import (
    BadAnswer,
    BrokenImage,
    FingerpostError,
    ImageError,
    ImageTooLarge,
    Overloaded,
    Unauthorized,
    UnknownPath,
    UnsupportedImage,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["status_error"]

_IMAGE: Final[Mapping[int, type[FingerpostError]]] = {
    400: ImageError,
    401: Unauthorized,
    403: Unauthorized,
    411: ImageError,
    413: ImageTooLarge,
    415: UnsupportedImage,
    422: BrokenImage,
}
_ABSENT: Final = frozenset({404, 405, 410, 421, 501})
# How TorchServe says that its queue is full; it says 503 of a handler that raised, too.
_FULL: Final = b"ServiceUnavailableException"
_LETTERS: Final = 300


def status_error(
    status: int,
    body: bytes,
    peer: str,
    path: str,
    retry_after_s: float | None,
    *,
    asks_to_wait: bool = False,
) -> tuple[Outcome, FingerpostError]:
    """The outcome and the error of an answer whose status is not 200.

    Statuses that servers give for a bad image are not tried elsewhere; 500 is, because many servers
    give it for everything. 503 is load only where it says when to come back, or is TorchServe's of
    a full queue: otherwise an image on which a model fails would be sent until its deadline.

    Args:
        path: that was asked.
        retry_after_s: for how long the peer asks to be left alone, where that is believed.
        asks_to_wait: it has `Retry-After`, of any value.
    """
    said = f"{peer}: HTTP {status} at {path}: {body[:_LETTERS].decode('utf-8', 'replace')}"
    if (kind := _IMAGE.get(status)) is not None:
        return Outcome.ANSWERED, kind(said)
    if status == 429 or (
        status == 503 and (retry_after_s is not None or asks_to_wait or _FULL in body)
    ):
        return Outcome.OVERLOADED, Overloaded(said, retry_after_s=retry_after_s)
    if status in _ABSENT:
        return Outcome.STALE, UnknownPath(f"{said} (metadata path, model)")
    return Outcome.FAILED, BadAnswer(said)
