"""What each tenant may take of one worker: images and bytes a second, requests at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fingerpost.errors import Overloaded

if TYPE_CHECKING:
    from fingerpost.security.grant import Grant

__all__ = ["TenantLimits", "TokenBucket"]

# What a tenant may take at once after a pause, in seconds of its rate.
_BURST_S: Final = 1.0
# Nobody is asked to come back sooner: one image at a time would be refused again and again.
_LEAST_S: Final = 0.05
_MAX_TENANTS: Final = 4096


class TokenBucket:
    """Allows `rate` units a second on average, and as many at once as come in a second.

    It may be overdrawn: a unit is allowed while there is any left, so that a body larger than a
    second's bytes is possible, and is made up for by the pause after it.

    Args:
        rate: units a second, above 0.
        now: monotonic seconds.
    """

    __slots__ = ("_at", "_burst", "_level", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._burst = self._level = max(1.0, rate * _BURST_S)
        self._at = now

    def wait_s(self, now: float) -> float:
        """Seconds until something is allowed; 0 if it is now."""
        self._level = min(self._burst, self._level + (now - self._at) * self.rate)
        self._at = now
        return 0.0 if self._level > 0.0 else max(_LEAST_S, -self._level / self.rate)

    def take(self, units: float) -> None:
        """Count what was let in."""
        self._level -= units


class _Tenant:
    """What one tenant has taken.

    Attributes:
        grant: the last one, which the buckets are for.
        plain: it has no limits of its own.
    """

    __slots__ = ("bytes", "grant", "images", "in_flight", "plain")

    def __init__(self) -> None:
        self.in_flight = 0
        self.images: TokenBucket | None = None
        self.bytes: TokenBucket | None = None
        self.grant: Grant | None = None
        self.plain = False


class TenantLimits:
    """Counts what tenants take, and refuses what is over a limit of their grants.

    The requests in flight of the whole worker are shared, too: while several tenants have some, a
    tenant has no more than are free (Choudhury and Hahne, 1998: dynamic thresholds), so that there
    is room for one more tenant whatever the others do.

    Args:
        max_in_flight: most requests at once, of all tenants.
    """

    def __init__(self, max_in_flight: int) -> None:
        self._most = max_in_flight
        self._tenants: dict[str, _Tenant] = {}
        self._in_flight = 0

    def enter(self, grant: Grant, body_bytes: int, now: float, *, checked: bool = False) -> None:
        """Let a request with one image in; `leave` when it has ended.

        Args:
            checked: it is only counted, because it has waited for `wait_s` before.

        Raises:
            Overloaded: a limit is reached, which the error names in `limit`.
        """
        tenant = self._tenants.get(grant.tenant)
        if tenant is None or tenant.grant is not grant:
            tenant = self._of(grant, now)
        if not tenant.plain or tenant.in_flight < self._in_flight:  # else nothing can be reached
            if not checked:
                self._check(tenant, grant, now)
            self._take(tenant, 1, body_bytes)
        tenant.in_flight += 1
        self._in_flight += 1

    def leave(self, grant: Grant, images: int = 0, body_bytes: int = 0) -> None:
        """Note that a request of `enter` has ended.

        Args:
            images: how many more images than one it had.
            body_bytes: how many more bytes it had than were announced.
        """
        tenant = self._tenants.get(grant.tenant)
        if tenant is not None:
            tenant.in_flight -= 1
            self._in_flight -= 1
            if not tenant.plain:
                self._take(tenant, images, body_bytes)

    def wait_s(self, grant: Grant, now: float) -> float:
        """For how many seconds a stream's next image has to wait; 0 if it may come now."""
        try:
            self._check(self._of(grant, now), grant, now)
        except Overloaded as error:
            return error.retry_after_s or _LEAST_S
        return 0.0

    def _check(self, tenant: _Tenant, grant: Grant, now: float) -> None:
        name, limit, most, retry_after_s = grant.tenant, "", "", _LEAST_S
        free = self._most - self._in_flight
        if grant.max_in_flight is not None and tenant.in_flight >= grant.max_in_flight:
            limit, most = "max_in_flight", f"{grant.max_in_flight} requests at once"
        elif tenant.images is not None and (wait_s := tenant.images.wait_s(now)):
            limit, most, retry_after_s = "images_per_s", f"{grant.images_per_s:g} images/s", wait_s
        elif tenant.bytes is not None and (wait_s := tenant.bytes.wait_s(now)):
            limit, most, retry_after_s = "bytes_per_s", f"{grant.bytes_per_s:g} bytes/s", wait_s
        elif tenant.in_flight < self._in_flight and tenant.in_flight >= free:
            limit, most = "share_in_flight", f"its share of {self._most:,} requests at once"
        if limit:
            raise Overloaded(
                f"tenant {name!r} has {most} here ({limit}): come back in {retry_after_s:.2g} s, "
                "or use another worker",
                retry_after_s=retry_after_s,
                limit=limit,
            )

    def _of(self, grant: Grant, now: float) -> _Tenant:
        tenant = self._tenants.get(grant.tenant)
        if tenant is None:
            if len(self._tenants) >= _MAX_TENANTS:
                self._tenants = {k: each for k, each in self._tenants.items() if each.in_flight}
            tenant = self._tenants[grant.tenant] = _Tenant()
        tenant.images = _bucket(tenant.images, grant.images_per_s, now)
        tenant.bytes = _bucket(tenant.bytes, grant.bytes_per_s, now)
        tenant.grant = grant
        limits = (grant.images_per_s, grant.bytes_per_s, grant.max_in_flight)
        tenant.plain = limits == (None, None, None)
        return tenant

    def _take(self, tenant: _Tenant, images: int, body_bytes: int) -> None:
        if tenant.images is not None:
            tenant.images.take(images)
        if tenant.bytes is not None:
            tenant.bytes.take(body_bytes)


def _bucket(bucket: TokenBucket | None, rate: float | None, now: float) -> TokenBucket | None:
    """The bucket for a rate: another one where the rate has changed; None for no limit."""
    if rate is None or (bucket is not None and bucket.rate == rate):
        return bucket if rate is not None else None
    return TokenBucket(rate, now)
