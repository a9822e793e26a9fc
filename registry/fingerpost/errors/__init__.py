"""Every error that Fingerpost raises, and its form on the wire.

All packages use it: a worker answers `{"error": {"code", "message", "retryable"}}`, and the client
raises the class with that code.

::

    FingerpostError                     500 internal
    +-- CallerError                     the caller must change something
    |   +-- InvalidRequest              400 invalid_request      malformed query or multipart
    |   +-- WrongTask                   400 wrong_task           the model answers another task
    |   +-- InvalidName                 400 invalid_name         a name or id outside the allow-list
    |   +-- InvalidInstance             400 invalid_instance     a registration that is not valid
    |   +-- ConfigurationError          400 configuration        a wrong setting, file or folder
    |   |   +-- UntrustedModel          403 untrusted_model      not signed by a trusted key
    |   |   +-- AccuracyLost            400 accuracy_lost        more than the limit given
    |   +-- Unauthorized                403 unauthorized
    |   |   +-- Unauthenticated         401 unauthorized         no credential, or not a valid one
    |   +-- Forbidden                   403 forbidden            known, but not allowed this
    |   +-- LeaseError                  401 lease                no valid lease for the request
    |   |   +-- LeaseRequired           401 lease_required
    |   |   +-- LeaseInvalid            401 lease_invalid        not of this cluster, or too early
    |   |   +-- LeaseExpired            401 lease_expired
    |   |   +-- LeaseWrongService       403 lease_wrong_service
    |   |   +-- LeaseWrongCertificate   403 lease_wrong_certificate
    |   +-- UnknownService              404 unknown_service      no such service in the registry
    |   +-- UnknownModel                404 unknown_model        model, version or alias not served
    |   +-- UnknownPath                 404 unknown_path
    |   +-- MethodNotAllowed            405 method_not_allowed
    |   +-- ImageError                  400 bad_image
    |       +-- EmptyImage              400 empty_image
    |       +-- ImageTooLarge           413 image_too_large      bytes or pixels over the limit
    |       +-- UnsupportedImage        415 unsupported_image    not one of the formats read
    |       +-- BrokenImage             422 broken_image         the right format, but damaged
    |       +-- InvalidFrame            422 invalid_frame        not the sealed memory of a frame
    |       +-- SuspectImage            422 suspect_image        two workers fell silent on it
    +-- PeerError                       a peer could not do it now; all but two are retryable
    |   +-- Misdirected                 421 misdirected          meant for another process
    |   +-- Overloaded                  429 overloaded           the worker's queue is full
    |   +-- BadAnswer                   502 bad_answer           not an answer of the protocol
    |   +-- TlsFailed                   502 tls_failed           a certificate is not accepted
    |   +-- NoWorker                    503 no_worker            known service, no healthy worker
    |   +-- Draining                    503 draining             the worker is leaving
    |   +-- Unreachable                 503 unreachable          refused, reset or timed out
    |   |   +-- ConnectionRefused                                no process listens there
    |   +-- RegistryError               503 registry             never an empty list instead
    |   |   +-- RegistryUnreachable     503 registry_unreachable
    |   |   +-- RegistryDenied          403 registry_denied      not retryable
    |   |   +-- NotARegistry                                     another server answers there
    |   +-- DeadlineExceeded            504 deadline             no time left; not retryable
    +-- ModelFailed                     500 model_failed         our model raised
        +-- BadOutput                   500 bad_output           its task cannot read its output
"""

from __future__ import annotations

import msgspec

from fingerpost.errors.access import (
    Forbidden,
    LeaseError,
    LeaseExpired,
    LeaseInvalid,
    LeaseRequired,
    LeaseWrongCertificate,
    LeaseWrongService,
    Unauthenticated,
    Unauthorized,
)
from fingerpost.errors.base import CallerError, FingerpostError, PeerError
from fingerpost.errors.image import (
    BrokenImage,
    EmptyImage,
    ImageError,
    ImageTooLarge,
    InvalidFrame,
    SuspectImage,
    UnsupportedImage,
)
from fingerpost.errors.retry_after import believed_retry_after

__all__ = [
    "AccuracyLost",
    "BadAnswer",
    "BadOutput",
    "BrokenImage",
    "CallerError",
    "ConfigurationError",
    "ConnectionRefused",
    "DeadlineExceeded",
    "Draining",
    "EmptyImage",
    "FingerpostError",
    "Forbidden",
    "ImageError",
    "ImageTooLarge",
    "InvalidFrame",
    "InvalidInstance",
    "InvalidName",
    "InvalidRequest",
    "LeaseError",
    "LeaseExpired",
    "LeaseInvalid",
    "LeaseRequired",
    "LeaseWrongCertificate",
    "LeaseWrongService",
    "MethodNotAllowed",
    "Misdirected",
    "ModelFailed",
    "NoWorker",
    "NotARegistry",
    "Overloaded",
    "PeerError",
    "RegistryDenied",
    "RegistryError",
    "RegistryUnreachable",
    "SuspectImage",
    "TlsFailed",
    "Unauthenticated",
    "Unauthorized",
    "UnknownModel",
    "UnknownPath",
    "UnknownService",
    "Unreachable",
    "UnsupportedImage",
    "UntrustedModel",
    "WrongTask",
    "error_from_json",
]


class InvalidRequest(CallerError):
    """A query, header or multipart body that cannot be understood."""

    code = "invalid_request"


class WrongTask(CallerError):
    """The model answers another task than the one that the request is for."""

    code = "wrong_task"


class InvalidName(CallerError):
    """A service, model or instance name outside the allow-list (see `names`)."""

    code = "invalid_name"


class InvalidInstance(CallerError):
    """A registration that is not valid: a bad port, not an address, no models."""

    code = "invalid_instance"


class ConfigurationError(CallerError):
    """A setting, or a file or folder that a setting names, is wrong."""

    code = "configuration"


class UntrustedModel(ConfigurationError):
    """A model's files are not signed by a key that is believed, or were changed since."""

    status = 403
    code = "untrusted_model"


class AccuracyLost(ConfigurationError):
    """A converted model is right less often than its original, by more than the limit given."""

    code = "accuracy_lost"


class UnknownService(CallerError):
    """The registry has no service of that name."""

    status = 404
    code = "unknown_service"


class UnknownModel(CallerError):
    """The worker does not serve that model, version or alias."""

    status = 404
    code = "unknown_model"


class UnknownPath(CallerError):
    """The server has nothing at that path."""

    status = 404
    code = "unknown_path"


class MethodNotAllowed(CallerError):
    """The path exists, but not for that HTTP method."""

    status = 405
    code = "method_not_allowed"


class Misdirected(PeerError):
    """The request was meant for another process, which is gone: this one has its address now.

    The status is that of RFC 9110, section 15.5.20.
    """

    status = 421
    code = "misdirected"


class Overloaded(PeerError):
    """The worker's queue is full, or a limit of the tenant is reached; it refuses at once."""

    status = 429
    code = "overloaded"

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, limit: str = ""
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.limit = limit


class BadAnswer(PeerError):
    """A peer's answer is not part of the protocol."""

    status = 502
    code = "bad_answer"


class TlsFailed(PeerError):
    """One side does not accept the other one's certificate, or TLS is missing where it must be.

    No image was sent. Another worker may be what it says that it is.
    """

    status = 502
    code = "tls_failed"


class NoWorker(PeerError):
    """The service is known, but no healthy worker serves it now."""

    code = "no_worker"


class Draining(PeerError):
    """The worker is leaving and takes no new work."""

    code = "draining"


class Unreachable(PeerError):
    """A connection was refused, was reset, or made no progress in time."""

    code = "unreachable"


class ConnectionRefused(Unreachable):
    """No process listens at the peer's address. On the wire it is an `Unreachable`."""


class RegistryError(PeerError):
    """A call to the registry failed. Callers keep their last good snapshot, not an empty list."""

    code = "registry"


class RegistryUnreachable(RegistryError):
    """No connection to the registry, or no answer within the deadline."""

    code = "registry_unreachable"


class RegistryDenied(RegistryError):
    """The registry denied the call because of missing rights (ACL)."""

    status = 403
    code = "registry_denied"
    retryable = False


class NotARegistry(RegistryError):
    """What answers at the registry's URL is another server. On the wire it is a `RegistryError`."""


class DeadlineExceeded(PeerError):
    """The caller's deadline has passed, so that an answer would come too late."""

    status = 504
    code = "deadline"
    retryable = False


class ModelFailed(FingerpostError):
    """The model raised while it ran; the message names the model and the cause."""

    code = "model_failed"


class BadOutput(ModelFailed):
    """The model's task cannot read its output: the message names the tensor and its shape."""

    code = "bad_output"


def _tree(cls: type[FingerpostError]) -> list[type[FingerpostError]]:
    return [cls, *(leaf for child in cls.__subclasses__() for leaf in _tree(child))]


_BY_CODE = {cls.code: cls for cls in reversed(_tree(FingerpostError)) if "code" in vars(cls)}


class _Body(msgspec.Struct):
    code: str
    message: str
    retryable: bool
    retry_after_s: float | None = None
    limit: str = ""


class _Envelope(msgspec.Struct):
    error: _Body


_envelope_decoder = msgspec.json.Decoder(_Envelope)
# Of a message that a peer wrote; ours have some hundred.
_MAX_MESSAGE_LETTERS = 2000
_MAX_LIMIT_LETTERS = 64


def error_from_json(
    body: bytes, *, status: int, peer: str = "", retry_after_s: float | None = None
) -> FingerpostError:
    """The typed error in a peer's answer; `BadAnswer` where the body is not such an error.

    An unknown code, as of a newer peer, becomes a `PeerError` if the peer says that it is
    retryable, otherwise a `CallerError`. A very long message is cut.

    Args:
        body: as it came, whatever it is.
        status: the HTTP status of the answer.
        peer: names the peer in a `BadAnswer`, such as `10.0.0.7:8501`.
        retry_after_s: the answer's `Retry-After`; that in the body counts first.
    """
    try:
        error = _envelope_decoder.decode(body).error
    except (msgspec.MsgspecError, ValueError, RecursionError):
        text = body[:200].decode("utf-8", "replace")
        name = f"{peer}: " if peer else ""
        return BadAnswer(f"{name}HTTP {status} without a Fingerpost error in its body: {text!r}")
    if error.retry_after_s is not None:  # the header has whole seconds
        retry_after_s = believed_retry_after(error.retry_after_s)
    fallback = PeerError if error.retryable else CallerError
    message = error.message[:_MAX_MESSAGE_LETTERS]
    kind = _BY_CODE.get(error.code, fallback)
    if kind is Unauthorized and status == Unauthenticated.status:
        kind = Unauthenticated
    made = kind(message, retry_after_s=retry_after_s)
    made.retryable = error.retryable
    made.limit = error.limit[:_MAX_LIMIT_LETTERS]
    return made
