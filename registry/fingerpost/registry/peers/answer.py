"""Reading the JSON that a peer answered; whatever it is, the failure is that peer's `BadAnswer`.

msgspec raises more than its own errors: `RecursionError` for deep nesting, `UnicodeDecodeError` for
invalid UTF-8, and whatever a type's `__post_init__` raises. One that is not caught ends the task
that asked, and with it what the task does for all other peers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from fingerpost.errors import BadAnswer, FingerpostError

if TYPE_CHECKING:
    from msgspec.json import Decoder

__all__ = ["DECODE_ERRORS", "check_encoding", "decode_answer"]

A = TypeVar("A")

DECODE_ERRORS: Final = (msgspec.MsgspecError, ValueError, RecursionError, FingerpostError)
"""Everything that decoding JSON of any content into a type can raise."""


def decode_answer(decoder: Decoder[A], body: bytes, peer: str, what: str) -> A:
    """Decode the body of an answer.

    Args:
        decoder: of the type wanted.
        body: as it came; the caller has limited its size.
        peer: names the peer in errors, such as `10.0.0.7:8501`.
        what: what the body should be, such as `load report`.

    Raises:
        BadAnswer: for every body that is not valid: not UTF-8, not JSON, nested too deeply, a field
            missing, of another type or out of range.
    """
    try:
        # As text, because msgspec does not check the encoding of fields that it ignores.
        return decoder.decode(body.decode())
    except DECODE_ERRORS as error:
        raise BadAnswer(f"{peer}: not a valid {what}: {error}; it begins {body[:100]!r}") from error


def check_encoding(encoding: str, peer: str) -> None:
    """Raise `BadAnswer` where the field `Content-Encoding` says that the body is compressed."""
    if encoding and encoding.lower() != "identity":
        raise BadAnswer(f"{peer}: compressed as {encoding[:40]!r}, which is not accepted")
