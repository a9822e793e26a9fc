"""A lease as text: JWS compact (RFC 7515), signed with Ed25519 (RFC 8037, RFC 9864).

A token is checked in an order that gives an attacker little: its length, its alphabet, its header
(at most 256 letters), its signature; what it claims is read only when the signature is right. One
token has one spelling, so that a cache by digest cannot be passed by another spelling of it.

Rejected: a token that chooses its algorithm (`alg: none`, or HS256 with the public key as secret),
encryption (JWE: nothing in a lease is secret from its owner), and opaque tokens that workers would
have to ask somebody about.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from typing import Any, Final

import msgspec

from fingerpost.errors import LeaseInvalid
from fingerpost.security.keys import ALGORITHM, PublicKeys, SigningKey
from fingerpost.security.leases.lease import Lease

__all__ = ["MAX_TOKEN_LETTERS", "read_token", "write_token"]

MAX_TOKEN_LETTERS: Final = 2048
_TYPE: Final = "lease+jwt"
# 64 bytes are 86 letters, of which the last one has four unused bits, which are 0: AQgw.
_FORM: Final = re.compile(
    "([A-Za-z0-9_-]{2,256})\\.([A-Za-z0-9_-]{2,1700})\\.([A-Za-z0-9_-]{85}[AQgw])", re.ASCII
)
# What a token of ours has in its header; any other member, such as `crit` or `jwk`, is refused.
_HEADER: Final = frozenset({"alg", "kid", "typ"})
_INVALID: Final = "the lease is not valid: ask a proxy of this cluster for another one"


def write_token(lease: Lease, key: SigningKey) -> str:
    """The lease, signed; some 450 letters.

    Raises:
        LeaseInvalid: it would be longer than workers read, as with very long names.
    """
    from joserfc import jws

    token: str = jws.serialize_compact(
        {"alg": ALGORITHM, "kid": key.kid, "typ": _TYPE},
        msgspec.json.encode(lease),
        key.jwk,
        algorithms=[ALGORITHM],
    )
    if _FORM.fullmatch(token) is None:
        raise LeaseInvalid(
            f"the lease of {lease.tenant!r} for {lease.service!r} would have {len(token):,} "
            "letters: shorten the names of the tenant and of its classes"
        )
    return token


def read_token(token: str, keys: PublicKeys) -> tuple[Lease, str]:
    """The lease in a token whose signature is right, and the `kid` of the key that made it.

    Whether it is valid now, and here, is not looked at.

    Raises:
        LeaseInvalid: anything else. The message does not say what, for an attacker would learn
            from it.
    """
    match = _FORM.fullmatch(token) if len(token) <= MAX_TOKEN_LETTERS else None
    if match is None:
        raise LeaseInvalid(_INVALID)
    header = _object(match[1])
    kid = header.get("kid")
    if (
        not _HEADER.issuperset(header)
        or header.get("alg") != ALGORITHM
        or header.get("typ", _TYPE) != _TYPE
        or not isinstance(kid, str)
        or not keys.verify(kid, _decoded(match[3]), token[: match.end(2)].encode())
    ):
        raise LeaseInvalid(_INVALID)
    try:
        return msgspec.convert(_object(match[2]), Lease), kid
    except (msgspec.ValidationError, ValueError) as error:
        raise LeaseInvalid(_INVALID) from error


def _object(text: str) -> dict[str, Any]:
    """The JSON object in a part of a token, without a member that stands there twice."""
    try:
        found = json.loads(_decoded(text), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise LeaseInvalid(_INVALID) from error
    if not isinstance(found, dict):
        raise LeaseInvalid(_INVALID)
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands there twice")
    return found


def _decoded(text: str) -> bytes:
    """Base64url without padding. Raises `ValueError`."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
