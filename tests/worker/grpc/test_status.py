"""Every error has a status of gRPC, and details that a client can read."""

from __future__ import annotations

import grpc
import pytest

from fingerpost import errors
from fingerpost.registry.grpc.status import status_code
from fingerpost.worker.grpc.schema.messages import message_class
from fingerpost.worker.grpc.status import error_trailer

ALL = sorted(set(errors.__all__) - {"error_from_json"})


@pytest.mark.parametrize("name", ALL)
def test_every_error_has_a_status(name: str) -> None:
    error = getattr(errors, name)("no")
    code = status_code(error)
    assert code is not grpc.StatusCode.OK
    # A channel takes these two for worth another try, and no error of a caller is.
    again = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert not (code in again and error.fault == "caller")


STATUSES = {
    errors.BrokenImage: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ImageTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    errors.LeaseExpired: grpc.StatusCode.UNAUTHENTICATED,
    errors.LeaseWrongService: grpc.StatusCode.PERMISSION_DENIED,
    errors.UnknownModel: grpc.StatusCode.NOT_FOUND,
    errors.UnknownPath: grpc.StatusCode.UNIMPLEMENTED,
    errors.ConfigurationError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Draining: grpc.StatusCode.UNAVAILABLE,
    errors.Misdirected: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.ModelFailed: grpc.StatusCode.INTERNAL,
}


@pytest.mark.parametrize("kind", STATUSES, ids=lambda kind: kind.__name__)
def test_statuses(kind: type[errors.FingerpostError]) -> None:
    assert status_code(kind("no")) is STATUSES[kind]


def test_an_overload_says_when_to_come_back_and_which_limit_it_was() -> None:
    error = errors.Overloaded("full", retry_after_s=0.25, limit="images_per_s")
    message, trailer = error_trailer(error)
    fields = dict(trailer)
    assert (message, fields["grpc-retry-pushback-ms"]) == ("full", "250")
    status = message_class("google.rpc.Status").FromString(fields["grpc-status-details-bin"])
    info, retry = message_class("google.rpc.ErrorInfo")(), message_class("google.rpc.RetryInfo")()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, info.domain, info.metadata["limit"]) == (
        "OVERLOADED",
        "fingerpost",
        "images_per_s",
    )
    assert retry.retry_delay.ToMilliseconds() == 250


def test_a_long_message_fits_into_the_trailers_that_a_client_takes() -> None:
    message, trailer = error_trailer(errors.BrokenImage("x" * 100_000))
    assert len(message) + sum(len(value) for _, value in trailer) < 4000
