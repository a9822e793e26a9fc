"""How errors are written: the trailer, and how long to wait.

The trailer `grpc-status-details-bin` is a `google.rpc.Status` with an `ErrorInfo`: its reason is
the error's code in capitals, its domain `fingerpost`. An error that is worth another try has
`grpc-retry-pushback-ms`, which the retry policy of a channel obeys, and a `RetryInfo`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fingerpost.registry.grpc.status import status_code
from fingerpost.worker.grpc.schema.messages import message_class

if TYPE_CHECKING:
    from fingerpost.errors import FingerpostError

__all__ = ["error_trailer"]

_DOMAIN: Final = "fingerpost"
_PUSHBACK: Final = "grpc-retry-pushback-ms"
_DETAILS: Final = "grpc-status-details-bin"
# A client takes 8 KB of trailers, and the message is in it twice.
_MAX_MESSAGE: Final = 1000


def error_trailer(error: FingerpostError) -> tuple[str, list[tuple[str, str | bytes]]]:
    """The message of an error, and its trailers."""
    message = error.message[:_MAX_MESSAGE]
    status = message_class("google.rpc.Status")(code=status_code(error).value[0], message=message)
    info = message_class("google.rpc.ErrorInfo")(reason=error.code.upper(), domain=_DOMAIN)
    info.metadata["retryable"] = str(error.retryable).lower()
    if error.limit:
        info.metadata["limit"] = error.limit
    status.details.add().Pack(info)
    trailer: list[tuple[str, str | bytes]] = []
    if error.retry_after_s is not None:
        retry = message_class("google.rpc.RetryInfo")()
        retry.retry_delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        status.details.add().Pack(retry)
        if error.retryable:
            trailer.append((_PUSHBACK, str(round(error.retry_after_s * 1000))))
    trailer.append((_DETAILS, status.SerializeToString()))
    return message, trailer
