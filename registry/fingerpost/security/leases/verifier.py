"""Checks leases: the signature once for each token, the rest at each use.

A token that was found right is known from then on, which takes 1 us instead of 200. Wrong tokens
are not remembered, so an attacker can neither fill nor empty that memory; how many signatures are
checked in vain for one sender is limited.

Rejected: SHA-256 of the token as the key. It takes a microsecond more for each image, and guards
nothing: Python's own hash of text has a secret of the process, and only right tokens are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

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

__all__ = ["LeaseVerifier", "Permit"]

# Senders whose wrong signatures are counted; of more than that the oldest are forgotten.
_MAX_SENDERS: Final = 4096
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
        self._failures: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        """How many verified leases are known."""
        return len(self._known)

    def verify(
        self, token: str, service: str, certificate: str | None = None, *, sender: str = ""
    ) -> Grant:
        """What the lease allows here and now; see `permit`."""
        return self.permit(token, service, lambda: certificate, lambda: sender).grant

    def permit(
        self,
        token: str,
        service: str,
        certificate: Callable[[], str | None],
        sender: Callable[[], str],
    ) -> Permit:
        """The verified lease in a token.

        Args:
            token: as the sender sent it; empty where there was none.
            service: what the sender wants to use.
            certificate: returns the `x5t#S256` of the certificate that the sender proved to own,
                if any; called for a lease that is bound to one.
            sender: returns whose wrong signatures are counted together, such as an IP address;
                called for a lease that is not known.

        Raises:
            LeaseRequired: no token.
            LeaseInvalid: not a lease of this cluster, or not valid yet.
            LeaseExpired: it has ended.
            LeaseWrongService: it is for another service.
            LeaseWrongCertificate: it is bound to another certificate.
            Overloaded: too many wrong signatures of this sender; a known lease is served anyhow.
        """
        if not token:
            raise LeaseRequired(
                f"{service!r} is served here to those who have a lease: look the worker up at a "
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
            found = self._first(token, now, sender())
        if now >= found.ends_at:
            self._known.pop(token, None)
            raise LeaseExpired(
                f"the lease ended {now - found.ends_at:.0f} s ago: get another one from a proxy. "
                f"If it is new, {_CLOCKS}"
            )
        if found.service != service:
            raise LeaseWrongService(
                f"the lease is for another service than {service!r}: look that one up at a proxy"
            )
        if found.thumbprint is not None and found.thumbprint != certificate():
            raise LeaseWrongCertificate(
                "the lease is bound to another certificate: connect with the one that it was "
                "given for"
            )
        return found

    def _first(self, token: str, now: float, sender: str) -> Permit:
        """Verify a token that is not known, and remember it if it is right."""
        budget = self._budget(now, sender)
        if budget < 1:
            raise Overloaded(
                "too many wrong leases came from this address: try again in a second",
                retry_after_s=1.0,
            )
        try:
            lease, kid = read_token(token, self._keys)
        except LeaseInvalid:
            self._spend(now, sender, budget - 1)
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

    # Wrong signatures: a bucket for each sender, which fills by `failures_per_s`.

    def _budget(self, now: float, sender: str) -> float:
        rate = self._rules.failures_per_s
        left, at = self._failures.get(sender, (rate, now))
        return min(rate, left + max(0.0, now - at) * rate)

    def _spend(self, now: float, sender: str, left: float) -> None:
        self._failures.pop(sender, None)
        if len(self._failures) >= _MAX_SENDERS:
            del self._failures[next(iter(self._failures))]
        self._failures[sender] = left, now
