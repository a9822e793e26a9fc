"""The base of all errors, of those of callers and of those of peers."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

__all__ = ["CallerError", "FingerpostError", "PeerError"]

Fault = Literal["caller", "peer", "us"]


class FingerpostError(Exception):
    """Base of all errors; the message says what was wrong, with the value, and what to do.

    The message is one printable line, whatever a peer or a file has put into it.

    Attributes:
        status: the HTTP status of a response with this error.
        code: the stable name in its JSON body.
        fault: whose fault it is: the caller's, the peer's or our own (`us`).
        retryable: whether the same request may succeed on another worker or later.
        retry_after_s: how many seconds to wait before that, where known.
        limit: which limit of the caller was reached, such as `images_per_s`; empty if none was.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    fault: ClassVar[Fault] = "us"
    retryable: bool = False
    limit: str = ""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        self.message = _one_line(message)
        super().__init__(self.message)
        self.retry_after_s = retry_after_s

    def to_json(self) -> bytes:
        """The wire form: `{"error": {"code", "message", "retryable"}}`, UTF-8.

        With `retry_after_s` where that is known: the header `Retry-After` has whole seconds only.
        """
        body = {"code": self.code, "message": self.message, "retryable": self.retryable}
        if self.retry_after_s is not None:
            body["retry_after_s"] = round(self.retry_after_s, 6)
        if self.limit:
            body["limit"] = self.limit
        return msgspec.json.encode({"error": body})


class CallerError(FingerpostError):
    """Base of errors in the request itself, which will fail again until the caller changes it."""

    status = 400
    fault = "caller"


class PeerError(FingerpostError):
    """Base of errors of a peer: it failed now; another one may succeed, or the same one later."""

    status = 503
    fault = "peer"
    retryable = True


def _one_line(text: str) -> str:
    r"""The text as one line without control characters, safe for logs and terminals.

    White space becomes a blank; other characters that are not printable (controls, changes of the
    text's direction, lone surrogates) are escaped, as in `\x1b`.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in " ".join(text.split())
    )
