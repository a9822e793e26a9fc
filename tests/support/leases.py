"""Leases that are right, and everything that is not."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jws
from joserfc.jwk import OctKey

from fingerpost.security.caller import ANYBODY
from fingerpost.security.keys import SigningKey
from fingerpost.security.leases.config import LeaseConfig, LeaseRules
from fingerpost.security.leases.signer import LeaseSigner
from fingerpost.security.leases.verifier import LeaseVerifier

__all__ = ["KEY", "OTHER", "claims_of", "header_of", "lease", "signed", "verifier", "wrong_leases"]

KEY = SigningKey.generate()
OTHER = SigningKey.generate()


def lease(service: str = "colours", *, ahead_s: float = 0.0, **options: Any) -> str:
    """A right token, of a proxy whose clock is `ahead_s` ahead."""
    signer = LeaseSigner(lambda: KEY, LeaseConfig(), lambda: time.time() + ahead_s)
    return signer.sign(ANYBODY, service, **options).token


def verifier(**rules: Any) -> LeaseVerifier:
    keys = KEY.public
    return LeaseVerifier(lambda: keys, LeaseRules(**rules), time.time)


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def claims_of(token: str) -> dict[str, Any]:
    return _part(token, 1)


def header_of(token: str) -> dict[str, Any]:
    return _part(token, 0)


def _part(token: str, number: int) -> dict[str, Any]:
    part = token.split(".")[number]
    found: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def signed(
    payload: bytes | None = None, *, key: SigningKey = KEY, header: Any = None, **claims: Any
) -> str:
    """A token with a right signature of `key`, whatever it says."""
    head = header or {"alg": "Ed25519", "kid": key.kid}
    head = head if isinstance(head, bytes) else json.dumps(head).encode()
    body = payload or json.dumps({**claims_of(lease()), **claims}).encode()
    data = f"{b64(head)}.{b64(body)}"
    return f"{data}.{b64(key.sign(data.encode()))}"


def hs256() -> str:
    """Signed with the public key as the secret: what a verifier accepts that trusts `alg`."""
    public = KEY.jwk.public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    body = json.dumps(claims_of(lease())).encode()
    key = OctKey.import_key(public)
    return jws.serialize_compact({"alg": "HS256", "kid": KEY.kid}, body, key, algorithms=["HS256"])


def wrong_leases() -> dict[str, tuple[str, int, str]]:
    """Tokens for the service `colours`, with the status and code that they are refused with."""
    invalid, now = (401, "lease_invalid"), int(time.time())
    header = {"alg": "Ed25519", "kid": KEY.kid}
    body = json.dumps(claims_of(lease())).encode()
    return {
        "none": ("", 401, "lease_required"),
        "not a token": ("x.y.z", *invalid),
        "forged": (signed(key=OTHER), *invalid),
        "forged with our kid": (signed(key=OTHER, header=header), *invalid),
        "alg none": (signed(header={**header, "alg": "none"}), *invalid),
        "alg none, unsigned": (".".join([*lease().split(".")[:2], ""]), *invalid),
        "HS256 with the public key": (hs256(), *invalid),
        "crit": (signed(header={**header, "crit": ["exp"]}), *invalid),
        "its own key": (signed(header={**header, "jwk": {}}), *invalid),
        "oversized": (signed(pad="x" * 3000), *invalid),
        "nested": (signed(lease().encode()), *invalid),
        "deep": (signed(b"[" * 1000), *invalid),
        "duplicate claims": (signed(body[:-1] + b',"aud":"colours"}'), *invalid),
        "another cluster": (signed(iss="another"), *invalid),
        "not yet valid": (lease(ahead_s=600), *invalid),
        "expired": (lease(ahead_s=-600), 401, "lease_expired"),
        "ended": (signed(exp=now - 31), 401, "lease_expired"),
        "wrong audience": (lease("flowers"), 403, "lease_wrong_service"),
        "of another certificate": (lease(thumbprint="t" * 43), 403, "lease_wrong_certificate"),
    }
