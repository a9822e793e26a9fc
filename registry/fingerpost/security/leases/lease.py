"""What a lease says: who may send images to which service, until when, and how many."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final

import msgspec

from fingerpost.security.caller import DEFAULT_TENANT, Rights
from fingerpost.security.grant import NO_LIMITS, Grant

__all__ = ["Confirmation", "Lease"]

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
# Seconds since 1970; up to the year 5138, so that no sum of them overflows.
_Time = Annotated[int, msgspec.Meta(ge=0, le=10**11)]
_Rate = Annotated[float, msgspec.Meta(gt=0.0, le=1e15)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=10**15)]
_MAX_CLASSES: Final = 16


class Confirmation(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a lease is bound to (RFC 8705).

    Attributes:
        thumbprint: SHA-256 of the sender's certificate, base64url, 43 letters.
    """

    thumbprint: Annotated[str, msgspec.Meta(min_length=43, max_length=43)] = msgspec.field(
        name="x5t#S256"
    )


class Lease(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The claims of a lease, named as in RFC 7519 where that has a name.

    Attributes:
        cluster: `iss`: whose lease it is.
        service: `aud`: the only service that it is for. A service is a model.
        tenant: `sub`: whom the work is counted for.
        expires_at: `exp`: when it ends, in seconds since 1970.
        not_before: `nbf`: when it begins.
        id: `jti`: tells one lease from another, in an audit.
        classes: see `Grant`; None is all of them.
        weight: see `Grant`.
        images_per_s: most images a second, of all workers of the service together.
        bytes_per_s: most bytes a second, of all of them.
        max_in_flight: most images at once, of all of them.
        max_body_bytes: the largest request.
        share: which part of these limits one worker grants: one by the number of workers.
        confirmation: `cnf`: only the owner of that certificate may use it; None is anybody.
    """

    cluster: Name = msgspec.field(name="iss")
    service: Name = msgspec.field(name="aud")
    tenant: Name = msgspec.field(name="sub")
    expires_at: _Time = msgspec.field(name="exp")
    not_before: _Time = msgspec.field(name="nbf")
    id: Name = msgspec.field(name="jti")
    classes: Annotated[tuple[Name, ...], msgspec.Meta(max_length=_MAX_CLASSES)] | None = None
    weight: Annotated[float, msgspec.Meta(gt=0.0, le=1e6)] = 1.0
    images_per_s: _Rate | None = None
    bytes_per_s: _Rate | None = None
    max_in_flight: _Count | None = None
    max_body_bytes: _Count | None = None
    share: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1.0
    confirmation: Confirmation | None = msgspec.field(name="cnf", default=None)

    @classmethod
    def of(cls, rights: Rights, *, tenant: str = DEFAULT_TENANT, **claims: Any) -> Lease:
        """A lease with a tenant's rights; `claims` are the other attributes."""
        return cls(
            tenant=tenant,
            classes=rights.classes,
            weight=rights.weight,
            images_per_s=rights.images_per_s,
            bytes_per_s=rights.bytes_per_s,
            max_in_flight=rights.max_in_flight,
            max_body_bytes=rights.max_body_bytes,
            **claims,
        )

    def grant(self) -> Grant:
        """What one worker grants for it: its share of the limits, at least one image at once."""
        in_flight = self.max_in_flight
        grant = Grant(
            tenant=self.tenant,
            classes=self.classes,
            weight=self.weight,
            images_per_s=_part(self.images_per_s, self.share),
            bytes_per_s=_part(self.bytes_per_s, self.share),
            max_in_flight=None if in_flight is None else math.ceil(in_flight * self.share),
            max_body_bytes=self.max_body_bytes,
        )
        # The object tells the worker at a glance that there is nothing to count.
        return NO_LIMITS if grant == NO_LIMITS else grant


def _part(rate: float | None, share: float) -> float | None:
    return None if rate is None else rate * share
