"""A detached signature as one line of text: `KID.EXPIRES.SIGNATURE`. Pure.

`KID` is the key's thumbprint, `EXPIRES` the last second for which it is valid (Unix time, decimal;
0 is without end), `SIGNATURE` the 64 bytes of Ed25519 in base64url without padding. What is signed
is the purpose, `EXPIRES` and the data, so that a signature of one kind cannot be used as another,
nor for longer. Some 145 characters, so that it fits into a value of Consul's metadata (512).

Rejected: JWS with a detached payload (RFC 7797), whose header could name an algorithm.
"""

from __future__ import annotations

import base64
import enum
import re
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from fingerpost.security.keys import SigningKey
    from fingerpost.security.signing.trusted_keys import TrustedKeys

__all__ = ["Flaw", "Statement", "Verdict", "sign_statement"]

_TEXT: Final = re.compile(r"([A-Za-z0-9_-]{43})\.([0-9]{1,12})\.([A-Za-z0-9_-]{86})", re.ASCII)


class Flaw(enum.StrEnum):
    """Why a signature is not believed."""

    UNSIGNED = "unsigned"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    WRONG_SIGNATURE = "wrong_signature"
    NOT_ALLOWED = "not_allowed"


class Verdict(msgspec.Struct, frozen=True):
    """What a signature is worth.

    Attributes:
        flaw: why it is not believed, whenever asked; None where it is, until `expires`.
        kid: the key that it names; empty where it cannot be read.
        expires: Unix time of its end; infinite where it has none.
    """

    flaw: Flaw | None
    kid: str = ""
    expires: float = 0.0


class Statement(msgspec.Struct, frozen=True):
    """A signature as read, not verified."""

    kid: str
    expires: int
    signature: bytes

    @classmethod
    def parse(cls, text: str) -> Statement | None:
        """The signature in a text; None where it is not one."""
        match = _TEXT.fullmatch(text)
        if match is None:
            return None
        return cls(match[1], int(match[2]), base64.urlsafe_b64decode(match[3] + "=="))

    def verdict(self, keys: TrustedKeys, *, purpose: str, data: bytes, name: str) -> Verdict:
        """Verify it, whether it has ended or not; 0.2 ms.

        Args:
            keys: the keys that are believed.
            purpose: what it must have been made for.
            data: what must have been signed.
            name: the service or model that it is about.
        """
        expires = float(self.expires) if self.expires else float("inf")
        if self.kid not in keys:
            return Verdict(Flaw.UNKNOWN_KEY, self.kid, expires)
        if not keys.verify(self.kid, self.signature, _signed(purpose, self.expires, data)):
            return Verdict(Flaw.WRONG_SIGNATURE, self.kid, expires)
        if not keys.may_sign_for(self.kid, name):
            return Verdict(Flaw.NOT_ALLOWED, self.kid, expires)
        return Verdict(None, self.kid, expires)


def sign_statement(key: SigningKey, *, purpose: str, data: bytes, expires: int = 0) -> str:
    """The signature of `data` for one purpose, as text.

    Args:
        key: the key that signs.
        purpose: what it is for, such as `registration`.
        data: what is signed.
        expires: Unix time of its last second; 0 is without end.
    """
    signature = base64.urlsafe_b64encode(key.sign(_signed(purpose, expires, data)))
    return f"{key.kid}.{expires}.{signature.rstrip(b'=').decode()}"


def _signed(purpose: str, expires: int, data: bytes) -> bytes:
    return f"fingerpost {purpose} 1\n{expires}\n".encode() + data
