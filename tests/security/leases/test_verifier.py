"""Leases: signed, read, verified, and everything that is not one."""

from __future__ import annotations

import json
import os
import random
import string
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jws
from joserfc.jwk import OctKey

from fingerpost.errors import (
    ConfigurationError,
    FingerpostError,
    LeaseExpired,
    LeaseInvalid,
    LeaseRequired,
    LeaseWrongCertificate,
    LeaseWrongService,
    Overloaded,
)
from fingerpost.security.caller import ANYBODY, Caller, Rights
from fingerpost.security.grant import NO_LIMITS, Grant
from fingerpost.security.keys import SigningKey
from fingerpost.security.leases.config import LeaseConfig, LeaseRules
from fingerpost.security.leases.signer import LeaseSigner
from fingerpost.security.leases.token import MAX_TOKEN_LETTERS
from fingerpost.security.leases.verifier import LeaseVerifier

KEY = SigningKey.generate()
OTHER = SigningKey.generate()
NOW = 1_800_000_000.0
MINE, THEIRS = "m" * 43, "t" * 43


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def signer(key: SigningKey = KEY, now: float = NOW, **settings: Any) -> LeaseSigner:
    return LeaseSigner(lambda: key, LeaseConfig(**settings), Clock(now))


def verifier(clock: Clock | None = None, **rules: Any) -> LeaseVerifier:
    keys = KEY.public
    return LeaseVerifier(lambda: keys, LeaseRules(**rules), clock or Clock())


def token(**options: Any) -> str:
    return signer().sign(ANYBODY, "flowers", **options).token


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def claims_of(text: str) -> dict[str, Any]:
    part = text.split(".")[1]
    found: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def made(
    payload: bytes | None = None, *, key: SigningKey = KEY, header: str | None = None, **claims: Any
) -> str:
    """A token with a right signature of `key`, whatever it says."""
    head = header or json.dumps({"alg": "Ed25519", "kid": key.kid})
    body = payload or json.dumps({**claims_of(token()), **claims}).encode()
    data = f"{b64(head.encode())}.{b64(body)}"
    return f"{data}.{b64(key.sign(data.encode()))}"


def hs256() -> str:
    """Signed with the public key as the secret: what a verifier does that trusts `alg`."""
    public = KEY.jwk.public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    header = {"alg": "HS256", "kid": KEY.kid}
    body = json.dumps(claims_of(token())).encode()
    return jws.serialize_compact(header, body, OctKey.import_key(public), algorithms=["HS256"])


def test_a_lease_becomes_a_grant() -> None:
    rights = Rights(
        classes=("interactive", "batch"),
        weight=2.0,
        images_per_s=100.0,
        bytes_per_s=1e6,
        max_in_flight=10,
        max_body_bytes=5000,
    )
    lease = signer().sign(Caller(tenant="acme", rights=rights), "flowers", workers=4)
    assert lease.expires_at == NOW + 300
    assert verifier().verify(lease.token, "flowers") == Grant(
        tenant="acme",
        classes=("interactive", "batch"),
        weight=2.0,
        images_per_s=25.0,
        bytes_per_s=2.5e5,
        max_in_flight=3,
        max_body_bytes=5000,
    )
    assert verifier().verify(token(), "flowers") == NO_LIMITS


def test_another_library_verifies_it() -> None:
    public = KEY.public.get(KEY.kid)
    assert public is not None
    read = jws.deserialize_compact(token(), public, algorithms=["Ed25519"])
    assert json.loads(read.payload or b"")["aud"] == "flowers"


def test_a_lease_is_signed_once_for_half_its_life() -> None:
    clock = Clock()
    keys = [KEY]
    leases = LeaseSigner(lambda: keys[0], LeaseConfig(life_s=100.0), clock)
    first = leases.sign(ANYBODY, "flowers")
    clock.now += 49
    assert leases.sign(ANYBODY, "flowers") is first
    others = [
        leases.sign(ANYBODY, "digits"),
        leases.sign(Caller(tenant="acme"), "flowers"),
        leases.sign(ANYBODY, "flowers", workers=2),
        leases.sign(ANYBODY, "flowers", thumbprint=MINE),
        leases.sign(ANYBODY, "flowers", life_s=50.0),
    ]
    assert len({first.token, *(each.token for each in others)}) == 6
    clock.now += 2
    second = leases.sign(ANYBODY, "flowers")
    assert second.expires_at == clock.now + 100
    clock.now -= 1000  # a clock that was set back
    assert leases.sign(ANYBODY, "flowers").expires_at == clock.now + 100
    keys[0] = OTHER
    assert leases.sign(ANYBODY, "flowers").token not in {first.token, second.token}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", LeaseRequired),
        ("x", LeaseInvalid),
        ("a.b.c", LeaseInvalid),
        ("\udcff" * 20, LeaseInvalid),
        (token() + "x" * MAX_TOKEN_LETTERS, LeaseInvalid),
        (token() + "=", LeaseInvalid),
        (token() + "\n", LeaseInvalid),
        (f"{token()}.{token()}", LeaseInvalid),
        (".".join([*token().split(".")[:2], ""]), LeaseInvalid),
        (made(key=OTHER), LeaseInvalid),
        (made(header=json.dumps({"alg": "Ed25519", "kid": OTHER.kid})), LeaseInvalid),
        (made(header='{"alg": "none"}'), LeaseInvalid),
        (made(header=json.dumps({"alg": "none", "kid": KEY.kid})), LeaseInvalid),
        (made(header=json.dumps({"alg": "EdDSA", "kid": KEY.kid})), LeaseInvalid),
        (made(header=json.dumps({"alg": "Ed25519", "kid": KEY.kid, "crit": []})), LeaseInvalid),
        (made(header=json.dumps({"alg": "Ed25519", "kid": KEY.kid, "jwk": {}})), LeaseInvalid),
        (made(header=json.dumps({"alg": "Ed25519", "kid": KEY.kid, "typ": "JWT"})), LeaseInvalid),
        (made(header=json.dumps({"alg": "Ed25519", "kid": [KEY.kid]})), LeaseInvalid),
        (made(header=json.dumps({"alg": "Ed25519"})), LeaseInvalid),
        (made(header='{"alg":"none","alg":"Ed25519","kid":"' + KEY.kid + '"}'), LeaseInvalid),
        (made(header="[" * 150), LeaseInvalid),
        (made(header="[]"), LeaseInvalid),
        (hs256(), LeaseInvalid),
        (made(b"[" * 1000), LeaseInvalid),
        (made(b"[]"), LeaseInvalid),
        (made(token().encode()), LeaseInvalid),
        (made(json.dumps(claims_of(token())).encode()[:-1] + b',"aud":"flowers"}'), LeaseInvalid),
        (made(aud=["flowers"]), LeaseInvalid),
        (made(exp="soon"), LeaseInvalid),
        (made(exp=1e400), LeaseInvalid),
        (made(exp=None), LeaseInvalid),
        (made(share=0), LeaseInvalid),
        (made(weight=-1), LeaseInvalid),
        (made(iss="another"), LeaseInvalid),
        (made(nbf=int(NOW) + 31), LeaseInvalid),
        (made(exp=int(NOW) - 31), LeaseExpired),
        (made(aud="digits"), LeaseWrongService),
        (token(thumbprint=THEIRS), LeaseWrongCertificate),
    ],
)
def test_what_is_not_a_valid_lease_is_refused(text: str, error: type[FingerpostError]) -> None:
    checked = verifier()
    for certificate in (MINE, None):
        with pytest.raises(error) as raised:
            checked.verify(text, "flowers", certificate)
        assert KEY.kid not in str(raised.value)
        assert "Ed25519" not in str(raised.value)
    assert error in {LeaseWrongService, LeaseWrongCertificate} or not len(checked)


def test_a_bound_lease_is_for_its_certificate() -> None:
    checked = verifier()
    bound = token(thumbprint=MINE)
    assert checked.verify(bound, "flowers", MINE) == NO_LIMITS
    for other in (THEIRS, None):  # also when it is known
        with pytest.raises(LeaseWrongCertificate):
            checked.verify(bound, "flowers", other)


def test_a_known_lease_ends_in_time() -> None:
    clock = Clock()
    checked, lasting = verifier(clock), verifier(clock, grace_s=600.0)
    lease = token()
    for _ in range(2):
        assert checked.verify(lease, "flowers") == lasting.verify(lease, "flowers") == NO_LIMITS
    clock.now += 329
    checked.verify(lease, "flowers")
    clock.now += 1
    with pytest.raises(LeaseExpired, match="clocks"):
        checked.verify(lease, "flowers")
    assert not len(checked)
    clock.now += 599
    lasting.verify(lease, "flowers")
    clock.now += 1
    with pytest.raises(LeaseExpired):
        lasting.verify(lease, "flowers")


def test_a_clock_that_is_wrong_is_named() -> None:
    for wrong_s, error in ((600, LeaseInvalid), (-600, LeaseExpired)):
        early = signer(now=NOW + wrong_s).sign(ANYBODY, "flowers")
        with pytest.raises(error, match=r"begins in 600 s.*clocks.*NTP|ended 270 s ago.*clocks"):
            verifier().verify(early.token, "flowers")


def test_a_withdrawn_key_is_not_believed_any_more() -> None:
    keys = [KEY.public.having(OTHER.public)]
    checked = LeaseVerifier(lambda: keys[0], LeaseRules(), Clock())
    old, new = token(), signer(OTHER).sign(ANYBODY, "flowers").token
    checked.verify(old, "flowers")
    checked.verify(new, "flowers")
    keys[0] = keys[0].without([KEY.kid])
    checked.verify(new, "flowers")
    assert len(checked) == 1
    with pytest.raises(LeaseInvalid):
        checked.verify(old, "flowers")


@pytest.mark.parametrize(
    ("senders", "other"),
    [
        (["10.0.0.7"] * 1000, "10.0.0.8"),
        ([f"2001:db8::{number:x}" for number in range(1000)], "2001:db8:0:1::1"),
    ],
    ids=["IPv4", "IPv6"],
)
def test_wrong_leases_of_one_sender_are_checked_at_a_limited_rate(
    senders: list[str], other: str
) -> None:
    clock = Clock()
    checked = verifier(clock, failures_per_s=20.0)
    good = token()
    checked.verify(good, "flowers", sender=senders[0])
    refused = 0
    for sender in senders:
        with pytest.raises((LeaseInvalid, Overloaded)) as raised:
            checked.verify(made(key=OTHER), "flowers", sender=sender)
        refused += raised.type is Overloaded
        checked.verify(good, "flowers", sender=sender)  # a known one, from the same address
    assert refused == 980
    checked.verify(token(), "flowers", sender=other)
    clock.now += 0.1
    checked.verify(token(), "flowers", sender=senders[-1])


def test_an_honest_client_behind_an_attacker_s_address_gets_its_next_lease_verified() -> None:
    clock = Clock()
    checked = verifier(clock, failures_per_s=20.0)

    def attack(connection: str, times: int) -> int:
        """How many of so many forged leases were checked."""
        refused = 0
        for _ in range(times):
            with pytest.raises((LeaseInvalid, Overloaded)) as raised:
                checked.verify(made(key=OTHER), "flowers", sender="10.0.0.7", connection=connection)
            refused += raised.type is Overloaded
        return times - refused

    # What its address has left, and one more for the connection.
    assert attack("one", 1000) == 21
    assert attack("another", 1000) == 1
    for number in range(5):  # a right one costs nothing
        fresh = signer().sign(Caller(tenant=f"t{number}"), "flowers").token
        checked.verify(fresh, "flowers", sender="10.0.0.7", connection="honest")
    clock.now += 0.01
    assert attack("one", 100) == 0
    assert attack("third", 100) == 1


def test_what_is_remembered_is_bounded() -> None:
    clock = Clock()
    checked, lease = verifier(clock, max_known=10, failures_per_s=1e9), ""
    for number in range(50):
        lease = signer().sign(Caller(tenant=f"t{number}"), "flowers").token
        checked.verify(lease, "flowers")
        with pytest.raises(LeaseInvalid):
            checked.verify(made(key=OTHER), "flowers", sender=str(number))
        assert len(checked) == min(10, number + 1)
    assert checked.verify(lease, "flowers").tenant == "t49"
    many = verifier(failures_per_s=1.0)
    for number in range(5000):
        with pytest.raises(LeaseInvalid):
            many.verify("wrong", "flowers", sender=str(number))
    assert len(many._senders) == 4096


def test_no_mutated_lease_passes() -> None:
    """One right token, changed in many ways. `make fuzz-leases` tries a million."""
    mutations = int(os.environ.get("FINGERPOST_MUTATIONS", "5000"))
    chance = random.Random(7)
    checked = verifier(failures_per_s=1e9)
    good = token(thumbprint=MINE)
    checked.verify(good, "flowers", MINE)
    letters = string.ascii_letters + string.digits + "-_."
    passed = 0
    for _ in range(mutations):
        wrong = mutated(good, letters, chance)
        try:
            checked.verify(wrong, "flowers", MINE)
            passed += wrong != good
        except (LeaseInvalid, LeaseRequired):
            pass
    assert not passed
    assert len(checked) == 1


def mutated(good: str, letters: str, chance: random.Random) -> str:
    at = chance.randrange(len(good))
    match chance.randrange(6):
        case 0:
            return good[:at] + chance.choice(letters) + good[at + 1 :]
        case 1:
            return good[:at] + good[at + 1 :]
        case 2:
            return good[:at] + chance.choice(letters) + good[at:]
        case 3:
            other = chance.randrange(len(good))
            swapped = list(good)
            swapped[at], swapped[other] = swapped[other], swapped[at]
            return "".join(swapped)
        case 4:
            head, _, signature = good.split(".")
            claims = claims_of(good)
            claims[chance.choice(sorted(claims))] = chance.choice([0, "x", None, 10**10, [], "m"])
            return f"{head}.{b64(json.dumps(claims).encode())}.{signature}"
        case _:
            return chance.choice([good[:at], good[at:], good + good[at:], good.swapcase()])


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        (LeaseConfig, {"life_s": 5.0}),
        (LeaseConfig, {"url_life_s": float("nan")}),
        (LeaseConfig, {"cluster": ""}),
        (LeaseRules, {"skew_s": -1.0}),
        (LeaseRules, {"grace_s": 1e9}),
        (LeaseRules, {"max_known": 0}),
        (LeaseRules, {"failures_per_s": 0.0}),
        (LeaseRules, {"cluster": "a\nb"}),
    ],
)
def test_a_setting_that_is_not_valid_is_refused(kind: type, setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        kind(**setting)


def test_a_lease_that_no_worker_would_read_is_not_signed() -> None:
    caller = Caller(rights=Rights(classes=tuple("c" * 120 + str(each) for each in range(16))))
    with pytest.raises(LeaseInvalid, match="shorten"):
        signer().sign(caller, "flowers")


def test_errors_of_leases_say_so_on_the_wire() -> None:
    try:
        verifier().verify("", "flowers")
    except LeaseRequired as error:
        assert (error.status, msgspec.json.decode(error.to_json())["error"]["code"]) == (
            401,
            "lease_required",
        )
