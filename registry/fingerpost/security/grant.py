"""What one worker does for a tenant's requests."""

from __future__ import annotations

from typing import Final

import msgspec

from fingerpost.security.caller import DEFAULT_TENANT

__all__ = ["NO_LIMITS", "Grant"]


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's share of one worker: from a verified lease, or `NO_LIMITS`. None means no limit.

    Attributes:
        tenant: whom the work is counted for.
        classes: the priority classes, the first one for requests that name none; None is all of
            them, `interactive` first.
        weight: the share of the worker while it is busy, relative to other tenants; above 0.
        images_per_s: most images a second, of this worker.
        bytes_per_s: most bytes a second, of this worker.
        max_in_flight: most images at once, of this worker.
        max_body_bytes: the largest request.
    """

    tenant: str = DEFAULT_TENANT
    classes: tuple[str, ...] | None = None
    weight: float = 1.0
    images_per_s: float | None = None
    bytes_per_s: float | None = None
    max_in_flight: int | None = None
    max_body_bytes: int | None = None


# Of all requests, where no lease is required.
NO_LIMITS: Final = Grant()
