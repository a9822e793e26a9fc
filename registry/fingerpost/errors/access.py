"""The errors of those who may not do what they ask for."""

from __future__ import annotations

from fingerpost.errors.base import CallerError

__all__ = [
    "Forbidden",
    "LeaseError",
    "LeaseExpired",
    "LeaseInvalid",
    "LeaseRequired",
    "LeaseWrongCertificate",
    "LeaseWrongService",
    "Unauthenticated",
    "Unauthorized",
]


class Unauthorized(CallerError):
    """The caller has no right to make the request."""

    status = 403
    code = "unauthorized"


class LeaseError(CallerError):
    """Base of the errors of leases: the worker wants one, and the request has not a valid one."""

    status = 401
    code = "lease"


class LeaseRequired(LeaseError):
    """The worker takes requests only with a lease, and this one has none."""

    code = "lease_required"


class LeaseInvalid(LeaseError):
    """The lease is not one of this cluster, or it is not valid yet."""

    code = "lease_invalid"


class LeaseExpired(LeaseError):
    """The lease has ended."""

    code = "lease_expired"


class LeaseWrongService(LeaseError):
    """The lease is for another service."""

    status = 403
    code = "lease_wrong_service"


class LeaseWrongCertificate(LeaseError):
    """The lease is bound to another certificate than that of the connection."""

    status = 403
    code = "lease_wrong_certificate"


class Unauthenticated(Unauthorized):
    """Who asks is not known: no credential, or one that is not valid.

    It has the code of `Unauthorized`, so that a client of an earlier release knows it.
    """

    status = 401


class Forbidden(CallerError):
    """Who asks is known, and may not have or do this."""

    status = 403
    code = "forbidden"
