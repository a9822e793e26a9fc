"""Gives leases. A signature takes 0.1 ms, so one is used again for the same caller and service."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from fingerpost.security.leases.lease import Confirmation, Lease
from fingerpost.security.leases.token import write_token

if TYPE_CHECKING:
    from fingerpost.security.caller import Caller
    from fingerpost.security.keys import SigningKey
    from fingerpost.security.leases.config import LeaseConfig

__all__ = ["LeaseSigner", "SignedLease"]

# Part of its life for which a lease is handed out: whoever gets one has half of it left.
_HANDED_OUT: Final = 0.5
# Callers times services times lives; beyond that the oldest ones are signed again.
_MAX_KEPT: Final = 4096


class SignedLease(NamedTuple):
    """A token, and when it ends, in seconds since 1970."""

    token: str
    expires_at: float


class LeaseSigner:
    """Signs leases for callers, who were authenticated before.

    Args:
        key: returns the key to sign with now; another one from one call to the next is a rotation.
        config: see `LeaseConfig`.
        clock: returns the seconds since 1970.
    """

    def __init__(
        self, key: Callable[[], SigningKey], config: LeaseConfig, clock: Callable[[], float]
    ) -> None:
        self._key = key
        self._config = config
        self._clock = clock
        self._kept: dict[tuple[object, ...], tuple[float, SignedLease]] = {}

    def sign(
        self,
        caller: Caller,
        service: str,
        *,
        workers: int = 1,
        thumbprint: str | None = None,
        life_s: float | None = None,
    ) -> SignedLease:
        """A lease of which half the life is left, or more.

        Args:
            caller: whose rights it carries.
            service: the only service that it is for.
            workers: how many workers share its limits.
            thumbprint: binds it to the certificate with that `x5t#S256`.
            life_s: its life; by default `LeaseConfig.life_s`.
        """
        life_s = self._config.life_s if life_s is None else life_s
        key, now = self._key(), self._clock()
        wanted = (caller, service, workers, thumbprint, life_s, key.kid)
        kept = self._kept.get(wanted)
        # A clock that was set back does not make an old lease last.
        if kept is not None and 0 <= now - kept[0] < life_s * _HANDED_OUT:
            return kept[1]
        lease = Lease.of(
            caller.rights,
            tenant=caller.tenant,
            cluster=self._config.cluster,
            service=service,
            expires_at=int(now + life_s),
            not_before=int(now),
            id=uuid.uuid4().hex,
            share=1 / max(1, workers),
            confirmation=None if thumbprint is None else Confirmation(thumbprint=thumbprint),
        )
        signed = SignedLease(write_token(lease, key), lease.expires_at)
        self._kept.pop(wanted, None)
        if len(self._kept) >= _MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[wanted] = now, signed
        return signed
