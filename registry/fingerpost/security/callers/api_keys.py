"""API keys: 32 random bytes as text, of which only the SHA-256 is kept.

A slow hash, as for passwords, would protect keys that can be guessed. These cannot: 256 bits from
the system's random source. One SHA-256 takes half a microsecond, and finds the key in a dictionary,
so 10,000 keys cost no more than one. Rejected: comparing with each key in constant time (10,000
comparisons for every request); looking up by a part of the key that is not secret (a second thing
to store, and to leak).
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

__all__ = ["KEY_PREFIX", "hash_key", "is_key", "make_key"]

KEY_PREFIX: Final = "fpk_"
"""How a key begins, so that it is told from a token, and found by scanners for leaked secrets."""

_KEY_BYTES: Final = 32


def make_key() -> str:
    """A new key: `fpk_` and 43 letters of base64url."""
    return KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def is_key(credential: str) -> bool:
    """Whether a credential is to be looked up as a key rather than read as a token."""
    return credential.startswith(KEY_PREFIX)


def hash_key(key: str) -> str:
    """What a policy file has of a key: SHA-256 of its text, 64 hexadecimal digits."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
