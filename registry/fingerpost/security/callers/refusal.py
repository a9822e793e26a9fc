"""Why somebody is refused: for logs, metrics and the audit log, not for who is refused."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from fingerpost.errors import Forbidden, Unauthenticated
from fingerpost.security.caller import ANYBODY, Caller

__all__ = ["NotAllowed", "NotIdentified", "Refusal"]


class Refusal(StrEnum):
    """The cause, as a label of metrics: their number is fixed."""

    NO_CREDENTIAL = "no_credential"
    BAD_HEADER = "bad_header"
    UNKNOWN_KEY = "unknown_key"
    UNKNOWN_CERTIFICATE = "unknown_certificate"
    UNKNOWN_SUBJECT = "unknown_subject"
    BAD_TOKEN = "bad_token"  # noqa: S105 - not a password
    EXPIRED_TOKEN = "expired_token"  # noqa: S105
    WRONG_ISSUER = "wrong_issuer"
    WRONG_AUDIENCE = "wrong_audience"
    NO_ISSUER_KEYS = "no_issuer_keys"
    DISABLED = "disabled"
    MODEL = "model"
    ROLE = "role"
    ORIGIN = "origin"
    TOO_MANY = "too_many"


_TEXTS: Final = {
    Refusal.NO_CREDENTIAL: "say who you are: send Authorization: Bearer KEY, with an API key or a "
    "token",
    Refusal.EXPIRED_TOKEN: "the token has expired, or is not valid yet: get a new one",
    Refusal.BAD_HEADER: "Authorization must stand once, as Bearer KEY, with at most 8,192 visible "
    "ASCII characters",
}
_UNKNOWN: Final = "this credential is not known here: use another key or token, or ask who runs it"


class NotIdentified(Unauthenticated):
    """Who asks is not known. The message says nothing about keys; `detail` is for the log.

    Attributes:
        reason: the cause.
        detail: what was wrong, without the credential.
    """

    def __init__(self, reason: Refusal, detail: str) -> None:
        super().__init__(_TEXTS.get(reason, _UNKNOWN))
        self.reason = reason
        self.detail = detail


class NotAllowed(Forbidden):
    """Who asks is known, and may not do this.

    Attributes:
        reason: the cause.
        detail: what was wrong, for the log.
        caller: who it is.
    """

    def __init__(self, reason: Refusal, message: str, caller: Caller = ANYBODY) -> None:
        super().__init__(message)
        self.reason = reason
        self.detail = self.message
        self.caller = caller
