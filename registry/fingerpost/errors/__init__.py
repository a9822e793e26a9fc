"""Every error Fingerpost raises, and what each one means on the wire.

The tree stands below all rooms because errors cross them: a worker answers
`{"error": {"code", "message", "retryable"}}` and the client raises the class of that code again.

::

    FingerpostError                     500 internal
    +-- CallerError                     the caller must change something
    |   +-- InvalidRequest              400 invalid_request      malformed query or multipart
    |   +-- InvalidName                 400 invalid_name         a name or id outside the allow-list
    |   +-- InvalidInstance             400 invalid_instance     a registration that makes no sense
    |   +-- ConfigurationError          400 configuration        a wrong option, file or folder
    |   +-- Unauthorized                403 unauthorized
    |   +-- UnknownService              404 unknown_service      no such service in the registry
    |   +-- UnknownModel                404 unknown_model        model, version or alias not served
    |   +-- UnknownPath                 404 unknown_path
    |   +-- MethodNotAllowed            405 method_not_allowed
    |   +-- ImageError                  400 bad_image
    |       +-- EmptyImage              400 empty_image
    |       +-- ImageTooLarge           413 image_too_large      bytes or pixels over the limit
    |       +-- UnsupportedImage        415 unsupported_image    not one of the formats read
    |       +-- BrokenImage             422 broken_image         the right format, but damaged
    +-- PeerError                       a peer could not do it now; retryable, but for two
    |   +-- Overloaded                  429 overloaded           the worker's queue is full
    |   +-- BadAnswer                   502 bad_answer           the peer's answer makes no sense
    |   +-- NoWorker                    503 no_worker            known service, nobody healthy
    |   +-- Draining                    503 draining             the worker is leaving
    |   +-- Unreachable                 503 unreachable          refused, reset or timed out
    |   |   +-- ConnectionRefused                                no process listens there
    |   +-- RegistryError               503 registry             never an empty list instead
    |   |   +-- RegistryUnreachable     503 registry_unreachable
    |   |   +-- RegistryDenied          403 registry_denied      not retryable
    |   +-- DeadlineExceeded            504 deadline             no time left; not retryable
    +-- ModelFailed                     500 model_failed         our model raised
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

__all__ = [
    "BadAnswer",
    "BrokenImage",
    "CallerError",
    "ConfigurationError",
    "ConnectionRefused",
    "DeadlineExceeded",
    "Draining",
    "EmptyImage",
    "FingerpostError",
    "ImageError",
    "ImageTooLarge",
    "InvalidInstance",
    "InvalidName",
    "InvalidRequest",
    "MethodNotAllowed",
    "ModelFailed",
    "NoWorker",
    "Overloaded",
    "PeerError",
    "RegistryDenied",
    "RegistryError",
    "RegistryUnreachable",
    "Unauthorized",
    "UnknownModel",
    "UnknownPath",
    "UnknownService",
    "Unreachable",
    "UnsupportedImage",
    "error_from_json",
]

Fault = Literal["caller", "peer", "us"]


class FingerpostError(Exception):
    """Base of all errors; the message says what was wrong, with the value, and what to do.

    It is one printable line, whatever a peer or a file has put into it.

    `status` is the HTTP status that carries the error, `code` the stable name in its JSON body,
    `retryable` whether the same request may succeed on another worker or later, and
    `retry_after_s`, where known, how many seconds to wait before that.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    fault: ClassVar[Fault] = "us"
    retryable: bool = False

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        self.message = _one_line(message)
        super().__init__(self.message)
        self.retry_after_s = retry_after_s

    def to_json(self) -> bytes:
        """The wire form: `{"error": {"code", "message", "retryable"}}`, UTF-8."""
        return msgspec.json.encode(
            {"error": {"code": self.code, "message": self.message, "retryable": self.retryable}}
        )


class CallerError(FingerpostError):
    """The same request will fail again: the caller must change something."""

    status = 400
    fault = "caller"


class InvalidRequest(CallerError):
    """A query, header or multipart body that cannot be understood."""

    code = "invalid_request"


class InvalidName(CallerError):
    """A service, model or instance name outside the allow-list (see `names`)."""

    code = "invalid_name"


class InvalidInstance(CallerError):
    """A registration that makes no sense: bad port, not an address, no models."""

    code = "invalid_instance"


class ConfigurationError(CallerError):
    """An option, a file or a folder given at start is wrong."""

    code = "configuration"


class Unauthorized(CallerError):
    """The request lacks the right it needs."""

    status = 403
    code = "unauthorized"


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


class ImageError(CallerError):
    """The image cannot be classified; another worker would say the same."""

    code = "bad_image"


class EmptyImage(ImageError):
    """No bytes at all."""

    code = "empty_image"


class ImageTooLarge(ImageError):
    """More bytes or more pixels than the limit, judged before decoding."""

    status = 413
    code = "image_too_large"


class UnsupportedImage(ImageError):
    """Not an image, or not in one of the formats read."""

    status = 415
    code = "unsupported_image"


class BrokenImage(ImageError):
    """An image of a known format that is truncated, damaged, or of an impossible shape."""

    status = 422
    code = "broken_image"


class PeerError(FingerpostError):
    """A peer could not do it now; another one, or a later time, may."""

    status = 503
    fault = "peer"
    retryable = True


class Overloaded(PeerError):
    """The worker's queue is full; it refused without waiting."""

    status = 429
    code = "overloaded"


class BadAnswer(PeerError):
    """A peer answered something that is not part of the protocol."""

    status = 502
    code = "bad_answer"


class NoWorker(PeerError):
    """The service is known, but no healthy worker serves it now."""

    code = "no_worker"


class Draining(PeerError):
    """The worker is leaving and takes no new work."""

    code = "draining"


class Unreachable(PeerError):
    """A connection was refused, reset, or made no progress in time."""

    code = "unreachable"


class ConnectionRefused(Unreachable):
    """No process listens at the peer's address. On the wire it is an `Unreachable`."""


class RegistryError(PeerError):
    """The registry failed. Callers keep their last good snapshot: an error is not an empty list."""

    code = "registry"


class RegistryUnreachable(RegistryError):
    """No connection to the registry, or no answer within the deadline."""

    code = "registry_unreachable"


class RegistryDenied(RegistryError):
    """The registry refused for lack of rights (ACL)."""

    status = 403
    code = "registry_denied"
    retryable = False


class DeadlineExceeded(PeerError):
    """The caller's deadline has passed, so that an answer would be of no use."""

    status = 504
    code = "deadline"
    retryable = False


class ModelFailed(FingerpostError):
    """The model raised while it ran; the message names the model and the cause."""

    code = "model_failed"


def _one_line(text: str) -> str:
    r"""Text that cannot break a log, a terminal or a line of its own.

    White space becomes a blank; what else is not printable (controls, text that turns its
    direction, lone surrogates) is escaped, as in `\x1b`.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in " ".join(text.split())
    )


def _tree(cls: type[FingerpostError]) -> list[type[FingerpostError]]:
    return [cls, *(leaf for child in cls.__subclasses__() for leaf in _tree(child))]


_BY_CODE = {cls.code: cls for cls in reversed(_tree(FingerpostError)) if "code" in vars(cls)}


class _Body(msgspec.Struct):
    code: str
    message: str
    retryable: bool


class _Envelope(msgspec.Struct):
    error: _Body


def error_from_json(
    body: bytes, *, status: int, retry_after_s: float | None = None
) -> FingerpostError:
    """Make the typed error that a peer sent; `BadAnswer` where the body is no error of ours.

    A code that a newer peer knows and we do not becomes a `PeerError` or a `CallerError`, as the
    peer's own `retryable` says.
    """
    try:
        error = msgspec.json.decode(body, type=_Envelope).error
    except msgspec.MsgspecError:
        text = body[:200].decode("utf-8", "replace")
        return BadAnswer(f"HTTP {status} without a Fingerpost error in its body: {text!r}")
    fallback = PeerError if error.retryable else CallerError
    made = _BY_CODE.get(error.code, fallback)(error.message, retry_after_s=retry_after_s)
    made.retryable = error.retryable
    return made
