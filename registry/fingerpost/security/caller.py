"""Who asks, and what that caller may do."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["ANYBODY", "BATCH", "DEFAULT_TENANT", "INTERACTIVE", "Caller", "Rights"]

DEFAULT_TENANT: Final = "default"
INTERACTIVE: Final = "interactive"
BATCH: Final = "batch"


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant may ask of the whole cluster. None means no limit.

    Attributes:
        models: the models, by name; None is all of them.
        classes: the priority classes, the first one for requests that name none; None is all of
            them, `interactive` first.
        weight: the share of a busy worker, relative to other tenants; above 0.
        images_per_s: most images a second.
        bytes_per_s: most bytes a second.
        max_in_flight: most images at once.
        max_body_bytes: the largest request.
    """

    models: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    weight: float = 1.0
    images_per_s: float | None = None
    bytes_per_s: float | None = None
    max_in_flight: int | None = None
    max_body_bytes: int | None = None


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, as found out by authentication; never what a request says of itself.

    Attributes:
        identity: the name of the key, certificate or token's subject; empty where nobody has to
            say who he is.
        tenant: whom the work is counted for.
        role: what it may do by the admin API: `view`, `operate`, `admin`; empty is nothing.
        rights: what it may ask.
    """

    identity: str = ""
    tenant: str = DEFAULT_TENANT
    role: str = ""
    rights: Rights = Rights()


# Every caller, where no authentication is configured.
ANYBODY: Final = Caller()
