"""Ed25519 keys and sets of them."""

from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fingerpost.errors import ConfigurationError
from fingerpost.security.keys import MAX_KEYS, PublicKeys, SigningKey

KEY = SigningKey.generate()
OTHER = SigningKey.generate()


def jwks(*keys: dict[str, object]) -> bytes:
    return msgspec.json.encode({"keys": keys})


PUBLIC = msgspec.json.decode(KEY.public.encode())["keys"][0]


def test_a_signature_is_verified_by_its_own_key_only() -> None:
    signature = KEY.sign(b"data")
    both = KEY.public.having(OTHER.public)
    assert both.verify(KEY.kid, signature, b"data")
    assert not both.verify(OTHER.kid, signature, b"data")
    assert not both.verify(KEY.kid, signature, b"date")
    assert not both.verify(KEY.kid, signature + b"\0", b"data")
    assert not both.without([KEY.kid]).verify(KEY.kid, signature, b"data")


def test_a_key_survives_writing_and_reading() -> None:
    again = SigningKey.decode(KEY.encode(), "key.json")
    assert again.kid == KEY.kid
    assert KEY.public.verify(KEY.kid, again.sign(b"data"), b"data")
    both = KEY.public.having(OTHER.public)
    assert PublicKeys.decode(both.encode(), "keys.json") == both
    assert both.kids == (KEY.kid, OTHER.kid)


def test_a_key_of_openssl_is_read() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key = SigningKey.decode(pem, "key.pem")
    private.public_key().verify(key.sign(b"data"), b"data")


def test_what_is_published_has_no_secret() -> None:
    secret = msgspec.json.decode(KEY.encode())["d"]
    assert secret not in KEY.public.encode().decode()
    assert secret not in repr(KEY)
    assert PUBLIC["alg"] == "Ed25519"
    assert PUBLIC["kid"] == KEY.kid


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        KEY.public.encode(),
        msgspec.json.encode(PUBLIC),
        msgspec.json.encode({**PUBLIC, "d": 7}),
        msgspec.json.encode({**PUBLIC, "d": "secret"}),
        x25519.X25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ),
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ),
        msgspec.json.encode({"kty": "oct", "k": "c2VjcmV0"}),
        b"\xff\xfe",
    ],
)
def test_what_is_not_a_private_key_is_refused(content: bytes) -> None:
    with pytest.raises(ConfigurationError, match="not a private Ed25519 key") as raised:
        SigningKey.decode(content, "key.json")
    assert "secret" not in str(raised.value)
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a set of public keys"),
        (b'{"keys": 7}', "not a set of public keys"),
        (b"[" * 60_000, "not a set of public keys"),
        (b" " * 70_000, "over the limit"),
        (jwks({"kty": "oct", "k": "c2VjcmV0"}), "not a public Ed25519 key"),
        (jwks({**PUBLIC, "crv": "X25519"}), "not a public Ed25519 key"),
        (jwks({**PUBLIC, "x": "AAAA"}), "not a public Ed25519 key"),
        (jwks({**PUBLIC, "x": 7}), "not a public Ed25519 key"),
        (jwks({**PUBLIC, "alg": "HS256"}), "not a public Ed25519 key"),
        (jwks({**PUBLIC, "kid": "mine"}), "not the thumbprint"),
        (jwks(PUBLIC, PUBLIC), "twice"),
        (jwks(msgspec.json.decode(KEY.encode())), "holds a private key"),
    ],
)
def test_what_is_not_a_set_of_public_keys_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        PublicKeys.decode(content, "keys.json")


def test_a_set_is_bounded() -> None:
    most = PublicKeys()
    for _ in range(MAX_KEYS):
        most = most.having(SigningKey.generate().public)
    with pytest.raises(ConfigurationError, match="over the limit of 16"):
        most.having(KEY.public)
