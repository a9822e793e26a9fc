"""Checks leases: the signature once for each token, the rest at each use.

A token that was found right is known from then on, which takes 1 us instead of 200. Wrong tokens
are not remembered, so an attacker can neither fill nor empty that memory; how many signatures are
checked in vain for one sender, an address or a /64 of IPv6, is limited.

Above that limit each connection has one check left in ten seconds. An honest client behind the
attacker's address needs that for its next lease, and the attacker gains nothing: each check costs
less than the connection that it comes by.

Rejected: SHA-256 of the token as the key. It takes a microsecond more for each image, and guards
nothing: Python's own hash of text has a secret of the process, and only right tokens are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from fingerpost.basics.remote_network import remote_network
from fingerpost.errors import (
    LeaseExpired,
    LeaseInvalid,
    LeaseRequired,
    LeaseWrongCertificate,
    LeaseWrongService,
    Overloaded,
)
from fingerpost.security.leases.token import MAX_TOKEN_LETTERS, read_token

if TYPE_CHECKING:
    from fingerpost.security.grant import Grant
    from fingerpost.security.keys import PublicKeys
    from fingerpost.security.leases.config import LeaseRules

__all__ = ["LeaseVerifier", "Permit", "Verified"]

# Senders whose wrong signatures are counted; of more than that the oldest are forgotten.
_MAX_SENDERS: Final = 4096
# How many of a connection's leases are checked in a second, above its sender's limit.
_CONNECTION_PER_S: Final = 0.1
_OTHER_CLUSTER: Final = "the lease is not valid: ask a proxy of this cluster for another one"
_CLOCKS: Final = (
    "compare the clocks of the proxy and of this worker (`timedatectl`), and let NTP set both"
)


class Permit(NamedTuple):
    """A verified lease.

    Attributes:
        grant: what it allows at one worker.
        service: the service that it is for.
        ends_at: until when it is accepted, skew and grace included, in seconds since 1970.
        begins_at: from when on.
        thumbprint: of the only certificate that may use it; None is any.
        kid: the key that signed it.
    """

    grant: Grant
    service: str
    ends_at: float
    begins_at: float
    thumbprint: str | None
    kid: str


class Verified(NamedTuple):
    """What was found for a token, for who knows that the token is the same: see `still_holds`."""

    permit: Permit
    service: str | None
    keys: PublicKeys


class LeaseVerifier:
    """Verifies leases against public keys. Not tied to a protocol, and asks nobody.

    Args:
        keys: returns the keys to believe now; leases of a key that is gone are refused at once.
        rules: see `LeaseRules`.
        clock: returns the seconds since 1970.
    """

    def __init__(
        self, keys: Callable[[], PublicKeys], rules: LeaseRules, clock: Callable[[], float]
    ) -> None:
        self._read_keys = keys
        self._keys = keys()
        self._rules = rules
        self._clock = clock
        self._known: dict[str, Permit] = {}
        rate = rules.failures_per_s
        self._senders = _Buckets(size=rate, per_s=rate)
        self._connections = _Buckets(size=1.0, per_s=_CONNECTION_PER_S)

    def __len__(self) -> int:
        """How many verified leases are known."""
        return len(self._known)

    def verify(
        self,
        token: str,
        service: str,
        certificate: str | None = None,
        *,
        sender: str = "",
        connection: str = "",
    ) -> Grant:
        """What the lease allows here and now; see `permit`."""
        return self.permit(token, service, lambda: certificate, lambda: (sender, connection)).grant

    def known(self, token: str) -> Permit | None:
        """What a token allows that was verified before, whether it has ended or not; else None."""
        return self._known.get(token)

    def verified(self, permit: Permit, service: str | None) -> Verified | None:
        """What `permit` has just found for a service; None where it may be another one next time.

        That is a lease that is bound to a certificate.
        """
        return Verified(permit, service, self._keys) if permit.thumbprint is None else None

    def still_holds(self, found: Verified, service: str | None) -> bool:
        """Whether `permit` would find the same again for that token: by its keys, and its time."""
        return (
            found.service == service
            and found.keys is self._read_keys()
            and self._clock() < found.permit.ends_at
        )

    def permit(
        self,
        token: str,
        service: str | None,
        certificate: Callable[[], str | None],
        sender: Callable[[], tuple[str, str]],
    ) -> Permit:
        """The verified lease in a token.

        Args:
            token: as the sender sent it; empty where there was none.
            service: what the sender wants to use; None while that is not known yet.
            certificate: returns the `x5t#S256` of the certificate that the sender proved to own,
                if any; called for a lease that is bound to one.
            sender: returns whose wrong signatures are counted together, such as an IP address, and
                the name of its connection, if any; called for a lease that is not known.

        Raises:
            LeaseRequired: no token.
            LeaseInvalid: not a lease of this cluster, or not valid yet.
            LeaseExpired: it has ended.
            LeaseWrongService: it is for another service.
            LeaseWrongCertificate: it is bound to another certificate.
            Overloaded: too many wrong signatures of this sender; a known lease is served anyhow.
        """
        if not token:
            what = "what this worker serves" if service is None else repr(service)
            raise LeaseRequired(
                f"{what} is served here to those who have a lease: look the worker up at a "
                "proxy, which gives one, and send it as `Authorization: Bearer LEASE`"
            )
        if len(token) > MAX_TOKEN_LETTERS:
            raise LeaseInvalid(_OTHER_CLUSTER)
        now = self._clock()
        keys = self._read_keys()
        if keys is not self._keys:
            self._keys = keys
            self._known = {key: each for key, each in self._known.items() if each.kid in keys}
        found = self._known.get(token)
        if found is None:
            found = self._first(token, now, *sender())
        if now >= found.ends_at:
            self._known.pop(token, None)
            raise LeaseExpired(
                f"the lease ended {now - found.ends_at:.0f} s ago: get another one from a proxy. "
                f"If it is new, {_CLOCKS}"
            )
        if found.service != service and service is not None:
            raise LeaseWrongService(
                f"the lease is for another service than {service!r}: look that one up at a proxy"
            )
        if found.thumbprint is not None and found.thumbprint != certificate():
            raise LeaseWrongCertificate(
                "the lease is bound to another certificate: connect with the one that it was "
                "given for"
            )
        return found

    def _first(self, token: str, now: float, sender: str, connection: str) -> Permit:
        """Verify a token that is not known, and remember it if it is right."""
        bucket, name = self._senders, remote_network(sender)
        if connection and not bucket.has_one(now, name):
            bucket, name = self._connections, connection
        if not bucket.has_one(now, name):
            raise Overloaded(
                "too many wrong leases came from this address: try again in a second",
                retry_after_s=1.0,
                limit="wrong_leases",  # which is no load of this worker, so that nobody else waits
            )
        try:
            lease, kid = read_token(token, self._keys)
        except LeaseInvalid:
            bucket.take_one(now, name)
            raise
        rules = self._rules
        if lease.cluster != rules.cluster:
            raise LeaseInvalid(_OTHER_CLUSTER)
        permit = Permit(
            grant=lease.grant(),
            service=lease.service,
            ends_at=lease.expires_at + rules.skew_s + rules.grace_s,
            begins_at=lease.not_before - rules.skew_s,
            thumbprint=None if lease.confirmation is None else lease.confirmation.thumbprint,
            kid=kid,
        )
        if now < permit.begins_at:
            raise LeaseInvalid(
                f"the lease begins in {lease.not_before - now:.0f} s by this worker's clock: "
                f"{_CLOCKS}"
            )
        if now < permit.ends_at:
            if len(self._known) >= rules.max_known:
                del self._known[next(iter(self._known))]  # the oldest one, which ends first
            self._known[token] = permit
        return permit


class _Buckets:
    """Wrong signatures: a bucket of checks for each sender, which fills again with time."""

    def __init__(self, *, size: float, per_s: float) -> None:
        self._size = size
        self._per_s = per_s
        self._left: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._left)

    def has_one(self, now: float, name: str) -> bool:
        """Whether one more signature may be checked in vain."""
        return self._now(now, name) >= 1

    def take_one(self, now: float, name: str) -> None:
        """One was wrong."""
        left = self._now(now, name) - 1
        self._left.pop(name, None)
        if len(self._left) >= _MAX_SENDERS:
            del self._left[next(iter(self._left))]
        self._left[name] = left, now

    def _now(self, now: float, name: str) -> float:
        left, at = self._left.get(name, (self._size, now))
        return min(self._size, left + max(0.0, now - at) * self._per_s)
