"""How errors are written: the status, the trailer, and how long to wait.

| HTTP status of the error | status of gRPC |
|---|---|
| 400, 413, 415, 422 | INVALID_ARGUMENT |
| 401 | UNAUTHENTICATED |
| 403 | PERMISSION_DENIED |
| 404 | NOT_FOUND |
| 405 and `unknown_path` | UNIMPLEMENTED |
| 429 | RESOURCE_EXHAUSTED |
| 421, 502, 503 | UNAVAILABLE |
| 504 | DEADLINE_EXCEEDED |
| 500 | INTERNAL |
| `configuration` | FAILED_PRECONDITION |

The trailer `grpc-status-details-bin` is a `google.rpc.Status` with an `ErrorInfo`: its reason is
the error's code in capitals, its domain `fingerpost`. An error that is worth another try has
`grpc-retry-pushback-ms`, which the retry policy of a channel obeys, and a `RetryInfo`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc

from fingerpost.worker.grpc.schema.messages import message_class

if TYPE_CHECKING:
    from fingerpost.errors import FingerpostError

__all__ = ["error_trailer", "status_code"]

_BY_STATUS: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    421: grpc.StatusCode.UNAVAILABLE,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_BY_CODE: Final = {
    "configuration": grpc.StatusCode.FAILED_PRECONDITION,
    "unknown_path": grpc.StatusCode.UNIMPLEMENTED,
}
_DOMAIN: Final = "fingerpost"
_PUSHBACK: Final = "grpc-retry-pushback-ms"
_DETAILS: Final = "grpc-status-details-bin"
# A client takes 8 KB of trailers, and the message is in it twice.
_MAX_MESSAGE: Final = 1000


def status_code(error: FingerpostError) -> grpc.StatusCode:
    """The status for an error."""
    return _BY_CODE.get(error.code) or _BY_STATUS[error.status]


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
