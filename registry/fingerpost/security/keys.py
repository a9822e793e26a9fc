"""Ed25519 keys: one that signs, and the public ones that are believed.

Values only; `key_files` reads and writes them. A key's name (`kid`) is its thumbprint of RFC 7638,
so that two keys never share one. A few public keys are valid at a time, which is what makes a
rotation possible: first the new one is made known, then used, then the old one is withdrawn.

Rejected: `EdDSA` as the algorithm's name (RFC 9864 deprecates it, for it names no curve), RSA and
ECDSA (larger signatures, and a choice that a token could make), and symmetric keys (every worker
could then sign).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from joserfc.jwk import OKPKey

__all__ = ["ALGORITHM", "MAX_KEYS", "PublicKeys", "SigningKey"]

ALGORITHM: Final = "Ed25519"
# A rotation has two; more than a few are a mistake, and each one costs a watcher its memory.
MAX_KEYS: Final = 16
_MAX_DOCUMENT_BYTES: Final = 65_536
_SIGNATURE_BYTES: Final = 64
_MEMBERS: Final[tuple[str, ...]] = ("kty", "crv", "x", "d")


class SigningKey:
    """A private Ed25519 key. Its representation and its errors never show it."""

    __slots__ = ("_jwk", "_private", "kid")

    def __init__(self, jwk: OKPKey) -> None:
        self._jwk = jwk
        self._private: Any = jwk.private_key
        self.kid: str = jwk.thumbprint()

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r})"

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key, from the system's random source."""
        return cls(_okp().generate_key(ALGORITHM, private=True))

    @classmethod
    def decode(cls, content: bytes, source: object) -> SigningKey:
        """A key from a JWK of RFC 8037 (as `encode` writes it), or from PEM as OpenSSL writes it.

        Args:
            content: the bytes of a file.
            source: its path, for the error.

        Raises:
            ConfigurationError: it is not a private Ed25519 key; the message does not show it.
        """
        okp = _okp()
        try:
            if len(content) > _MAX_DOCUMENT_BYTES:
                raise ValueError("too long")
            pem = content.lstrip().startswith(b"-----BEGIN")
            jwk = okp.import_key(content if pem else _ed25519(msgspec.json.decode(content)))
            if jwk.curve_name != ALGORITHM or not jwk.is_private:
                raise ValueError("another kind of key")
            return cls(jwk)
        except _foreign_key_errors():
            # Without `from`: the cause may show parts of the key.
            raise ConfigurationError(
                f"{source} is not a private Ed25519 key: make one by `fingerpost keys init`"
            ) from None

    def encode(self) -> bytes:
        """The private key as a JWK, to be kept secret."""
        return msgspec.json.encode(_described(self._jwk, private=True)) + b"\n"

    def sign(self, data: bytes) -> bytes:
        """The signature of RFC 8032, 64 bytes."""
        signature: bytes = self._private.sign(data)
        return signature

    @property
    def jwk(self) -> OKPKey:
        """The key as `joserfc` takes it."""
        return self._jwk

    @property
    def public(self) -> PublicKeys:
        """Its public part, alone."""
        return PublicKeys([_okp().import_key(_described(self._jwk, private=False))])


class PublicKeys:
    """The public keys that signatures are checked with, by `kid`. Immutable.

    Raises:
        ConfigurationError: more than `MAX_KEYS`, or two with one `kid`.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[OKPKey] = ()) -> None:
        self._keys: dict[str, OKPKey] = {}
        for key in keys:
            kid = key.thumbprint()
            if kid in self._keys:
                raise ConfigurationError(f"the key {kid!r} stands in the set twice: remove one")
            self._keys[kid] = key
        if len(self._keys) > MAX_KEYS:
            raise ConfigurationError(
                f"{len(self._keys)} public keys are over the limit of {MAX_KEYS}: "
                "remove those that nobody signs with any more"
            )

    def __repr__(self) -> str:
        return f"PublicKeys({list(self._keys)!r})"

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, kid: object) -> bool:
        return kid in self._keys

    def __eq__(self, other: object) -> bool:
        # A kid is the digest of its key.
        return isinstance(other, PublicKeys) and set(self._keys) == set(other._keys)

    def __hash__(self) -> int:
        return hash(frozenset(self._keys))

    @property
    def kids(self) -> tuple[str, ...]:
        """Their names, in the order of the set."""
        return tuple(self._keys)

    @classmethod
    def decode(cls, content: bytes, source: object) -> PublicKeys:
        """The keys of a JWKS document (RFC 7517), which `encode` writes.

        Args:
            content: the document's bytes.
            source: the file or address that it came from, for the error.

        Raises:
            ConfigurationError: not a JWKS, too long or with too many keys, a key that is not a
                public Ed25519 key, or one whose `kid` is not its thumbprint.
        """
        if len(content) > _MAX_DOCUMENT_BYTES:
            raise ConfigurationError(
                f"{source} has {len(content):,} bytes, over the limit of {_MAX_DOCUMENT_BYTES:,}"
            )
        try:
            written = msgspec.json.decode(content, type=_Jwks).keys
        except (msgspec.MsgspecError, RecursionError, ValueError):
            raise ConfigurationError(
                f'{source} is not a set of public keys (JWKS, {{"keys": [...]}}): '
                "`fingerpost keys show` prints one"
            ) from None
        return cls(_public(each, source) for each in written)

    def encode(self) -> bytes:
        """The JWKS document; it has no secrets."""
        keys = [_described(each, private=False) for each in self._keys.values()]
        return msgspec.json.encode({"keys": keys}) + b"\n"

    def get(self, kid: str) -> OKPKey | None:
        """The key of that name, as `joserfc` takes it."""
        return self._keys.get(kid)

    def verify(self, kid: str, signature: bytes, data: bytes) -> bool:
        """Whether the key `kid` made that signature of `data`; False for an unknown key."""
        from cryptography.exceptions import InvalidSignature

        key: Any = self._keys.get(kid)
        if key is None or len(signature) != _SIGNATURE_BYTES:
            return False
        try:
            key.public_key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def having(self, other: PublicKeys) -> PublicKeys:
        """These and those, each once."""
        return PublicKeys((self._keys | other._keys).values())

    def without(self, kids: Iterable[str]) -> PublicKeys:
        """The others."""
        gone = frozenset(kids)
        return PublicKeys(key for kid, key in self._keys.items() if kid not in gone)


class _Jwks(msgspec.Struct):
    keys: list[dict[str, Any]]


_NOT_A_KEY: Final = (msgspec.MsgspecError, RecursionError, ValueError, TypeError, AttributeError)


def _foreign_key_errors() -> tuple[type[Exception], ...]:
    """What a key that cannot be read raises: `joserfc` has errors of its own."""
    from joserfc.errors import JoseError

    return (*_NOT_A_KEY, JoseError)


def _okp() -> type[OKPKey]:
    try:
        from joserfc.jwk import OKPKey
    except ImportError as error:
        raise ConfigurationError(
            "keys need two more packages: pip install 'fingerpost[security]'"
        ) from error
    return OKPKey


def _ed25519(written: Any) -> dict[str, Any]:
    """The members of a JWK that matter; raises `ValueError` for another kind of key."""
    if not isinstance(written, dict) or written.get("kty") != "OKP":
        raise ValueError("not an OKP key")
    if written.get("crv") != ALGORITHM or written.get("alg", ALGORITHM) != ALGORITHM:
        raise ValueError("another curve")
    kept = {each: written[each] for each in _MEMBERS if each in written}
    if not all(isinstance(value, str) for value in kept.values()):
        raise ValueError("not text")
    return kept


def _public(written: dict[str, Any], source: object) -> OKPKey:
    if "d" in written:
        raise ConfigurationError(
            f"{source} holds a private key: whoever reads it can sign. Replace the key by "
            "`fingerpost keys rotate`, and publish only what `fingerpost keys show` prints"
        )
    okp = _okp()
    try:
        key = okp.import_key(_ed25519(written))
        kid = key.thumbprint()
        key.public_key  # noqa: B018 - the point is checked here
    except _foreign_key_errors() as error:
        raise ConfigurationError(
            f"{source}: a key in it is not a public Ed25519 key; only these are used"
        ) from error
    if written.get("kid", kid) != kid:
        raise ConfigurationError(
            f"{source}: the kid {written['kid']!r:.100} is not the thumbprint of its key, {kid!r}"
        )
    return key


def _described(key: OKPKey, *, private: bool) -> dict[str, Any]:
    members: dict[str, Any] = dict(key.as_dict(private=private))
    kept: dict[str, Any] = {each: members[each] for each in _MEMBERS if each in members}
    return {**kept, "use": "sig", "alg": ALGORITHM, "kid": key.thumbprint()}
