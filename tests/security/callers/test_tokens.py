"""Tokens that are wrong in every way, and those that are right. Keys and signatures are real."""

from __future__ import annotations

import base64
import hmac
import json
import random
from typing import Any

import pytest
from joserfc import jwk, jwt
from tests.support.optional import not_none

from fingerpost.errors import ConfigurationError
from fingerpost.security.caller import Caller
from fingerpost.security.callers.authenticator import Authenticator, bearer
from fingerpost.security.callers.policy import Policy
from fingerpost.security.callers.refusal import NotAllowed, NotIdentified, Refusal
from fingerpost.security.callers.tokens import JsonWebKeys, KeyNotKnown

ISSUER = "https://login.example.org"
NOW = 1_800_000_000.0
RSA = jwk.RSAKey.generate_key(2048, {"kid": "r1", "use": "sig"})
EC = jwk.ECKey.generate_key("P-256", {"kid": "e1"})
ED = jwk.OKPKey.generate_key("Ed25519", {"kid": "d1"})
OTHER = jwk.RSAKey.generate_key(2048, {"kid": "r1"})
JWKS = json.dumps({"keys": [each.as_dict(private=False) for each in (RSA, EC, ED)]}).encode()
POLICY = Policy.parse(
    f"""
[[issuers]]
issuer = "{ISSUER}"
audience = "fingerpost"

[[callers]]
name = "web"
tokens = [{{ issuer = "{ISSUER}", subject = "system:serviceaccount:shop:*" }}]

[[callers]]
name = "off"
disabled = true
tokens = [{{ issuer = "{ISSUER}", subject = "off" }}]
""".encode(),
    "callers.toml",
)
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "fingerpost",
    "sub": "system:serviceaccount:shop:web",
    "exp": NOW + 600,
}


def token(key: Any = RSA, algorithm: str = "RS256", kid: str | None = "r1", **changed: Any) -> str:
    header = {"alg": algorithm} | ({} if kid is None else {"kid": kid})
    claims = {name: value for name, value in {**CLAIMS, **changed}.items() if value is not None}
    return jwt.encode(header, claims, key, algorithms=[algorithm])


def authenticator(jwks: bytes | None = JWKS) -> Authenticator:
    keys = None if jwks is None else JsonWebKeys(jwks, "JWKS")
    return Authenticator(POLICY, lambda issuer: keys if issuer == ISSUER else None)


@pytest.mark.parametrize(
    "given",
    [
        token(),
        token(EC, "ES256", "e1"),
        token(ED, "Ed25519", "d1"),
        token(EC, "ES256", None),  # the only key of its kind
        token(aud=["other", "fingerpost"]),
        token(exp=NOW - 29, nbf=NOW + 29, iat=NOW + 29),  # clocks differ
    ],
)
def test_good_tokens(given: str) -> None:
    tested = authenticator()
    assert tested.find(given, (), NOW) is None  # not verified yet
    assert tested.verify(given, NOW).caller == Caller(identity="web")
    found = tested.find(given, (), NOW)
    assert found is not None
    assert found.caller.identity == "web"
    assert tested.find(given, (), NOW + 2000) is None  # it is not believed for longer than it says
    tested.forget()
    assert tested.find(given, (), NOW) is None


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def with_public_key_as_secret() -> str:
    """Joserfc refuses to make such a token, so it is made by hand."""
    signed = f"{part({'alg': 'HS256', 'kid': 'r1'})}.{part(CLAIMS)}"
    digest = hmac.digest(RSA.as_pem(private=False), signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


GOOD = token()
BAD = {
    "expired": (token(exp=NOW - 31), Refusal.EXPIRED_TOKEN),
    "not yet": (token(nbf=NOW + 31), Refusal.EXPIRED_TOKEN),
    "of the future": (token(iat=NOW + 600), Refusal.EXPIRED_TOKEN),
    "without exp": (token(exp=None), Refusal.BAD_TOKEN),
    "exp as text": (token(exp="tomorrow"), Refusal.BAD_TOKEN),
    "exp true": (token(exp=True), Refusal.BAD_TOKEN),
    "endless": (token(exp=1e300), Refusal.BAD_TOKEN),
    "wrong audience": (token(aud="other"), Refusal.WRONG_AUDIENCE),
    "no audience": (token(aud=None), Refusal.WRONG_AUDIENCE),
    "audience as map": (token(aud={"fingerpost": 1}), Refusal.WRONG_AUDIENCE),
    "wrong issuer": (token(iss="https://evil.example.org"), Refusal.WRONG_ISSUER),
    "no issuer": (token(iss=None), Refusal.WRONG_ISSUER),
    "issuer as list": (token(iss=[ISSUER]), Refusal.WRONG_ISSUER),
    "no subject": (token(sub=None), Refusal.BAD_TOKEN),
    "subject as number": (token(sub=7), Refusal.BAD_TOKEN),
    "long subject": (token(sub="x" * 2000), Refusal.BAD_TOKEN),
    "unknown subject": (token(sub="system:serviceaccount:other:web"), Refusal.UNKNOWN_SUBJECT),
    "another's key": (token(OTHER), Refusal.BAD_TOKEN),
    "alg none": (f"{part({'alg': 'none'})}.{part(CLAIMS)}.", Refusal.BAD_TOKEN),
    "alg None": (f"{part({'alg': None})}.{part(CLAIMS)}.AAAA", Refusal.BAD_TOKEN),
    "no alg": (f"{part({'kid': 'r1'})}.{part(CLAIMS)}.AAAA", Refusal.BAD_TOKEN),
    "HS256 with the public key": (with_public_key_as_secret(), Refusal.BAD_TOKEN),
    "RS384": (token(RSA, "RS384"), Refusal.BAD_TOKEN),  # asymmetric, but not in the policy
    "another kind of key": (token(EC, "ES256", "r1"), Refusal.NO_ISSUER_KEYS),
    "unknown kid": (token(OTHER, kid="r9"), Refusal.NO_ISSUER_KEYS),
    "cut signature": (GOOD[:-8], Refusal.BAD_TOKEN),
    "no signature": (GOOD.rpartition(".")[0] + ".", Refusal.BAD_TOKEN),
    "two parts": (GOOD.rpartition(".")[0], Refusal.BAD_TOKEN),
    "five parts": (f"{GOOD}.a.b", Refusal.BAD_TOKEN),
    "another payload": (
        ".".join([GOOD.split(".")[0], part({**CLAIMS, "sub": "off"}), GOOD.split(".")[2]]),
        Refusal.BAD_TOKEN,
    ),
    "not JSON": ("aaaa.bbbb.cccc", Refusal.BAD_TOKEN),
    "not base64": ("!.!.!", Refusal.BAD_TOKEN),
    "nested": (f"{part({'alg': 'RS256'})}.{part([[[[1]]]])}.AAAA", Refusal.BAD_TOKEN),
    "deep": (
        f"{part({'alg': 'RS256'})}.{part(0)[:0]}" + "W1tb" * 400 + ".AAAA",
        Refusal.BAD_TOKEN,
    ),
    "text": ("password", Refusal.BAD_TOKEN),
    "crit": (
        f"{part({'alg': 'RS256', 'kid': 'r1', 'crit': ['x'], 'x': 1})}.{part(CLAIMS)}.AAAA",
        Refusal.BAD_TOKEN,
    ),
}


@pytest.mark.parametrize(("given", "reason"), BAD.values(), ids=BAD.keys())
def test_bad_tokens_are_refused_without_a_hint(given: str, reason: Refusal) -> None:
    tested = authenticator()
    with pytest.raises(NotIdentified) as caught:
        tested.verify(given, NOW)
    error = caught.value
    assert (error.status, error.code, error.reason) == (401, "unauthorized", reason)
    assert "kid" not in error.message
    assert ISSUER not in error.message
    assert given not in error.detail
    assert tested.find(given, (), NOW) is None  # and it is not remembered


def test_a_disabled_caller_is_known_and_refused() -> None:
    with pytest.raises(NotAllowed, match="off is disabled") as caught:
        authenticator().verify(token(sub="off"), NOW)
    assert (caught.value.status, caught.value.code) == (403, "forbidden")


def test_mutations_of_a_token_never_pass() -> None:
    tested = authenticator()
    rng = random.Random(1)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
    for _ in range(2000):
        # Not in the signature's last letter, of which some bits mean nothing.
        at = rng.randrange(len(GOOD) - 1)
        mutated = GOOD[:at] + rng.choice(letters) + GOOD[at + 1 :]
        if mutated == GOOD:
            continue
        with pytest.raises(NotIdentified):
            tested.verify(mutated, NOW)


def test_without_keys_the_issuer_is_named_to_fetch_them() -> None:
    with pytest.raises(KeyNotKnown) as caught:
        authenticator(None).verify(GOOD, NOW)
    assert caught.value.issuer == ISSUER


def test_memory_of_verified_tokens_is_bounded() -> None:
    tested = authenticator()
    tested._verified.update((str(number).encode(), None) for number in range(10_000))  # type: ignore[misc]
    tested.verify(GOOD, NOW)
    assert len(tested._verified) == 10_000


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "is not a JWKS document"),
        (b"<html>", "is not a JWKS document"),
        (b'{"keys": {}}', "is not a JWKS document"),
        (b'{"keys": []}', "has no key that can be used"),
        (b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "has no key that can be used"),
        (b'{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}', "no key that can be used"),
        (b'{"keys": [' + b",".join([b"{}"] * 101) + b"]}", "has 101 keys"),
        (b"[" * 100_000, "is not a JWKS document"),
    ],
)
def test_bad_key_sets(body: bytes, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        JsonWebKeys(body, "the JWKS")


def test_keys_that_cannot_be_used_leave_the_others() -> None:
    odd: list[Any] = [
        {"kty": "ML-DSA", "kid": "q"},
        {"kty": "EC", "crv": "P-256", "x": "!", "y": "!"},
        {"kty": "RSA", "n": 7, "e": "AQAB"},
        EC.as_dict(private=False) | {"use": "enc"},
        RSA.as_dict(private=True),  # published by mistake
    ]
    keys = JsonWebKeys(json.dumps({"keys": odd}).encode(), "JWKS")
    assert len(keys) == 1
    assert not not_none(keys.find("r1", "RS256")).is_private


@pytest.mark.parametrize(
    "fields",
    [
        ["Bearer a", "Bearer b"],
        ["Basic dXNlcjpwYXNz"],
        ["Bearer"],
        ["Bearer "],
        [""],
        ["Bearer a b"],
        ["Bearer ä"],
        ["Bearer \udcff"],
        ["Bearer " + "x" * 8193],
        ["Bearer a\x00"],
    ],
)
def test_header_fields_that_cannot_be(fields: list[str]) -> None:
    with pytest.raises(NotIdentified) as caught:
        bearer(fields)
    assert caught.value.reason is Refusal.BAD_HEADER
    assert caught.value.message.startswith("Authorization must stand once")


def test_header_fields_that_can_be() -> None:
    assert bearer([]) == ""
    assert bearer(["bearer  abc "]) == "abc"
