"""JWTs of an OIDC issuer or of Kubernetes: are they signed by that issuer, for us, and still valid?

Verifying takes some 300 us, so who calls this keeps what it said, see `Authenticator`.

What a token says of itself decides nothing: the algorithms are those of the issuer's table, all of
them asymmetric (so neither `none`, nor HMAC with a public key as its secret), the key is one of the
issuer's own set, and `kid` only chooses among them. `jku`, `x5u` and `jwk` in a token are not read.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fingerpost.errors import ConfigurationError
from fingerpost.security.callers.refusal import NotIdentified, Refusal

if TYPE_CHECKING:
    from fingerpost.security.callers.schema import IssuerTable

__all__ = ["LEEWAY_S", "MAX_JWKS_BYTES", "Claims", "JsonWebKeys", "KeyNotKnown", "TokenVerifier"]

LEEWAY_S: Final = 30.0
"""How far the clocks of an issuer and of this machine may differ, in seconds."""

MAX_JWKS_BYTES: Final = 256 * 1024
_MAX_KEYS: Final = 100
_MAX_SUBJECT_LETTERS: Final = 1024
# 2,048 bits are 256 bytes, which are 342 letters of base64url.
_LEAST_RSA_LETTERS: Final = 341
_KINDS: Final = {"R": "RSA", "P": "RSA", "E": "EC"}


class Claims(msgspec.Struct, frozen=True):
    """What a verified token says: who, of which issuer, and until when (seconds since 1970)."""

    issuer: str
    subject: str
    expires_at: float


class KeyNotKnown(NotIdentified):
    """A token of a known issuer names a key that is not in its set: the set may be older.

    Attributes:
        issuer: whose keys should be fetched again.
    """

    def __init__(self, issuer: str, detail: str) -> None:
        super().__init__(Refusal.NO_ISSUER_KEYS, detail)
        self.issuer = issuer


class JsonWebKeys:
    """The public keys of one issuer (RFC 7517).

    Args:
        body: a JWKS document. Keys of kinds that are not known, symmetric ones, keys for
            encryption, and RSA keys under 2,048 bits are left out.
        source: where it is from, for errors.

    Raises:
        ConfigurationError: it is not a JWKS, has no usable key, or more than 100.
    """

    def __init__(self, body: bytes, source: object) -> None:
        jwk = _joserfc("jwk")
        try:
            found = msgspec.json.decode(body, type=_Set).keys
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise ConfigurationError(f"{source} is not a JWKS document: {error}") from error
        if len(found) > _MAX_KEYS:
            raise ConfigurationError(
                f"{source} has {len(found)} keys: at most {_MAX_KEYS} are used"
            )
        self._keys: list[tuple[str | None, str, Any]] = []
        for each in filter(_usable, found):
            public = {name: value for name, value in each.items() if name not in _PRIVATE}
            try:
                key = jwk.import_key(public)
            except Exception:  # noqa: S112 - whatever a key has in it, the others stay
                continue
            self._keys.append((each.get("kid"), str(each["kty"]), key))
        if not self._keys:
            raise ConfigurationError(
                f"{source} has no key that can be used: RSA of 2,048 bits or more, EC or OKP"
            )

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, kid: object, algorithm: str) -> Any | None:
        """The key with this id; without an id, the only one of the algorithm's kind."""
        kind = _KINDS.get(algorithm[0], "OKP") if algorithm != "EdDSA" else "OKP"
        if algorithm == "Ed25519":
            kind = "OKP"
        fitting = [key for id_, kty, key in self._keys if kty == kind and kid in (None, id_)]
        return fitting[0] if len(fitting) == 1 or (fitting and kid is not None) else None


class TokenVerifier:
    """Verifies tokens of the issuers of a policy.

    Args:
        issuers: the tables, by `iss`.
        keys: the last good keys of an issuer, or None while there are none.
    """

    def __init__(
        self, issuers: Mapping[str, IssuerTable], keys: Callable[[str], JsonWebKeys | None]
    ) -> None:
        self._issuers = issuers
        self._keys = keys
        if issuers:
            _joserfc("jwt")  # said at the start, and not with the first token

    def verify(self, token: str, now: float) -> Claims:
        """What a token says, once its signature, issuer, audience and times are right.

        Args:
            token: a JWS in compact form.
            now: seconds since 1970.

        Raises:
            KeyNotKnown: the issuer's keys are not known, or not this one.
            NotIdentified: anything else is wrong.
        """
        header, said = _unverified(token)
        issuer = said.get("iss")
        table = self._issuers.get(issuer) if isinstance(issuer, str) else None
        if table is None:
            raise NotIdentified(Refusal.WRONG_ISSUER, f"issuer {str(issuer)[:200]!r} is not known")
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in table.algorithms:
            raise NotIdentified(
                Refusal.BAD_TOKEN, f"algorithm {str(algorithm)[:40]!r} is not accepted"
            )
        keys = self._keys(table.issuer)
        if keys is None:
            raise KeyNotKnown(table.issuer, f"the keys of {table.issuer} are not known yet")
        key = keys.find(header.get("kid"), algorithm)
        if key is None:
            kid = str(header.get("kid"))[:200]
            raise KeyNotKnown(table.issuer, f"{table.issuer} has no key {kid!r} for {algorithm}")
        return self._checked(token, key, algorithm, table, now)

    def _checked(
        self, token: str, key: Any, algorithm: str, table: IssuerTable, now: float
    ) -> Claims:
        from joserfc.errors import JoseError

        try:
            # With a registry, the argument `algorithms` of `decode` would have no effect.
            pinned = _joserfc("jws").JWSRegistry(algorithms=[algorithm], strict_check_header=False)
            decoded = _joserfc("jwt").decode(token, key, registry=pinned)
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            raise NotIdentified(
                Refusal.BAD_TOKEN, f"a token that is not valid: {type(error).__name__}"
            ) from error
        claims = decoded.claims
        if claims.get("iss") != table.issuer:
            raise NotIdentified(Refusal.WRONG_ISSUER, "two issuers in one token")
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if table.audience not in audiences:
            raise NotIdentified(
                Refusal.WRONG_AUDIENCE, f"audience {str(audience)[:200]!r}, not {table.audience!r}"
            )
        expires_at = _seconds(claims, "exp")
        if expires_at is None:
            raise NotIdentified(Refusal.BAD_TOKEN, "a token without exp")
        if now >= expires_at + LEEWAY_S:
            raise NotIdentified(Refusal.EXPIRED_TOKEN, f"expired {now - expires_at:,.0f} s ago")
        for name in ("nbf", "iat"):
            begin = _seconds(claims, name)
            if begin is not None and now < begin - LEEWAY_S:
                raise NotIdentified(
                    Refusal.EXPIRED_TOKEN, f"{name} is {begin - now:,.0f} s ahead of this clock"
                )
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT_LETTERS:
            raise NotIdentified(Refusal.BAD_TOKEN, "a token without a subject")
        return Claims(table.issuer, subject, expires_at + LEEWAY_S)


class _Set(msgspec.Struct):
    keys: list[dict[str, Any]]


# Of RFC 7518: a set that was published with them by mistake is used without them.
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


def _usable(key: dict[str, Any]) -> bool:
    kid = key.get("kid")
    return (
        key.get("kty") in ("RSA", "EC", "OKP")
        and key.get("use", "sig") == "sig"
        and (kid is None or isinstance(kid, str))
        and (key["kty"] != "RSA" or len(str(key.get("n", ""))) >= _LEAST_RSA_LETTERS)
    )


def _unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of what may be a token, to find whose key verifies it."""
    parts = token.split(".")
    if len(parts) != 3:
        raise NotIdentified(Refusal.BAD_TOKEN, f"{len(parts)} parts where a signed token has 3")
    try:
        header, claims = (
            msgspec.json.decode(_base64url(part), type=dict[str, Any]) for part in parts[:2]
        )
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise NotIdentified(Refusal.BAD_TOKEN, "not a token: its parts are not JSON") from error
    return header, claims


def _base64url(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise NotIdentified(Refusal.BAD_TOKEN, f"{name} is not a time")
    return float(value)


def _joserfc(module: str) -> Any:
    """A module of joserfc, imported where tokens are used: the bare install does not have it."""
    import importlib

    try:
        return importlib.import_module(f"joserfc.{module}")
    except ImportError as error:
        raise ConfigurationError(
            "tokens need joserfc and cryptography: pip install 'fingerpost[security]'"
        ) from error
