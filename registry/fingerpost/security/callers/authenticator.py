"""Who asks, by what they show: an API key, a token, or a client certificate; pure but for joserfc.

A credential in `Authorization` decides, also where a certificate is there: one that is wrong is
refused, rather than ignored in favour of the certificate. The tenant is the policy's to say, and
never the request's.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.security.caller import Caller
from fingerpost.security.callers.api_keys import hash_key, is_key
from fingerpost.security.callers.refusal import NotAllowed, NotIdentified, Refusal
from fingerpost.security.callers.tokens import Claims, JsonWebKeys, TokenVerifier

if TYPE_CHECKING:
    from fingerpost.security.callers.policy import Entry, Policy

__all__ = ["Authenticator", "Identified", "bearer"]

MAX_CREDENTIAL_LETTERS: Final = 8192
# A digest and its claims take some 500 bytes: 5 MB.
_MAX_VERIFIED: Final = 10_000


class Identified(msgspec.Struct, frozen=True):
    """A caller, and until when that holds, in seconds since 1970."""

    caller: Caller
    expires_at: float = inf


class Authenticator:
    """Finds the caller of one policy's credentials.

    Args:
        policy: whose they are.
        keys: the last good keys of an issuer.
    """

    def __init__(self, policy: Policy, keys: Callable[[str], JsonWebKeys | None]) -> None:
        self._policy = policy
        self._verifier = TokenVerifier(policy.issuers, keys)
        self._verified: OrderedDict[bytes, Claims] = OrderedDict()

    def find(self, credential: str, certificate: Sequence[str], now: float) -> Identified | None:
        """Who shows this, where that is known at once; None for a token that has to be verified.

        Args:
            credential: see `bearer`; empty without one.
            certificate: SPIFFE ids and subject of a verified client certificate.
            now: seconds since 1970.

        Raises:
            NotIdentified: nobody whom the policy knows.
            NotAllowed: somebody whom it knows as disabled.
        """
        if not credential:
            return self._by_certificate(certificate)
        if is_key(credential):
            entry = self._policy.by_key(hash_key(credential))
            if entry is None:
                raise NotIdentified(Refusal.UNKNOWN_KEY, "a key that the policy does not have")
            return Identified(_enabled(entry))
        claims = self._verified.get(_digest(credential))
        if claims is None or now >= claims.expires_at:
            return None
        return self._of_claims(claims)

    def verify(self, token: str, now: float) -> Identified:
        """Verify a token, and remember that.

        Raises:
            KeyNotKnown: the issuer's keys have to be fetched first.
            NotIdentified, NotAllowed: see `find`.
        """
        claims = self._verifier.verify(token, now)
        identified = self._of_claims(claims)
        self._verified[_digest(token)] = claims
        if len(self._verified) > _MAX_VERIFIED:
            self._verified.popitem(last=False)
        return identified

    def forget(self) -> None:
        """Verify all tokens again, because an issuer's keys have changed."""
        self._verified.clear()

    def _by_certificate(self, names: Sequence[str]) -> Identified:
        if not names:
            raise NotIdentified(Refusal.NO_CREDENTIAL, "no credential")
        entry = self._policy.by_certificate(names)
        if entry is None:
            named = ", ".join(names)[:300]
            raise NotIdentified(
                Refusal.UNKNOWN_CERTIFICATE, f"a certificate of {named}, which no caller has"
            )
        return Identified(_enabled(entry))

    def _of_claims(self, claims: Claims) -> Identified:
        entry = self._policy.by_token(claims.issuer, claims.subject)
        if entry is None:
            raise NotIdentified(
                Refusal.UNKNOWN_SUBJECT,
                f"a token of {claims.issuer} for {claims.subject[:200]!r}, which no caller has",
            )
        return Identified(_enabled(entry), claims.expires_at)


def bearer(fields: Sequence[str]) -> str:
    """The credential in the values of all `Authorization` fields of a request; empty without one.

    Raises:
        NotIdentified: several fields, another scheme, or what is not a credential.
    """
    if not fields:
        return ""
    if len(fields) > 1:
        raise NotIdentified(Refusal.BAD_HEADER, f"{len(fields)} Authorization fields")
    scheme, _, credential = fields[0].partition(" ")
    credential = credential.strip(" ")
    if scheme.lower() != "bearer" or not credential:
        raise NotIdentified(Refusal.BAD_HEADER, "Authorization without Bearer and a credential")
    if len(credential) > MAX_CREDENTIAL_LETTERS:
        raise NotIdentified(Refusal.BAD_HEADER, f"a credential of {len(credential):,} letters")
    if not (credential.isascii() and credential.isprintable()) or " " in credential:
        raise NotIdentified(Refusal.BAD_HEADER, "a credential that is not visible ASCII")
    return credential


def _enabled(entry: Entry) -> Caller:
    if entry.disabled:
        problem = f"{entry.caller.identity} is disabled"
        raise NotAllowed(Refusal.DISABLED, problem, entry.caller)
    return entry.caller


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
