"""The status of gRPC for each error, by its HTTP status.

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
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc

if TYPE_CHECKING:
    from fingerpost.errors import FingerpostError

__all__ = ["status_code"]

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


def status_code(error: FingerpostError) -> grpc.StatusCode:
    """The status for an error."""
    return _BY_CODE.get(error.code) or _BY_STATUS[error.status]
