"""Lets requests in that have a valid lease, before their body is read."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs

from fingerpost.basics.log_limit import LogLimit
from fingerpost.errors import FingerpostError, ImageTooLarge, LeaseExpired, LeaseInvalid
from fingerpost.security.tls import peer_certificate

if TYPE_CHECKING:
    from aiohttp import web
    from prometheus_client import Counter

    from fingerpost.security.leases.verifier import LeaseVerifier, Permit

__all__ = ["LeaseGate"]

logger = logging.getLogger(__name__)

_SCHEME: Final = "bearer "


class LeaseGate:
    """Finds the lease of an HTTP request, and verifies it.

    Args:
        verifier: knows the keys.
        refused: counts refusals, by the code of the error.
    """

    def __init__(self, verifier: LeaseVerifier, refused: Counter) -> None:
        self._verifier = verifier
        self._refused = refused
        self._said = LogLimit(60.0)

    def permit(self, request: web.Request, service: str) -> Permit:
        """The verified lease of a request for a service.

        Raises:
            LeaseError: no lease, or not a valid one; see `LeaseVerifier.permit`.
            Overloaded: too many wrong ones came from this address.
            ImageTooLarge: the body is larger than the lease allows.
        """
        field = request.headers.get(hdrs.AUTHORIZATION, "")
        token = field[len(_SCHEME) :] if field[: len(_SCHEME)].lower() == _SCHEME else ""
        try:
            permit = self._verifier.permit(
                token,
                service,
                lambda: _thumbprint(request),
                lambda: request.remote or "",
            )
        except FingerpostError as error:
            self._refused.labels(error.code).inc()
            self._tell_of_clocks(error)
            raise
        most = permit.grant.max_body_bytes
        if most is not None and (request.content_length or 0) > most:
            raise ImageTooLarge(
                f"the body has {request.content_length:,} bytes, over the limit of {most:,} of "
                "this lease: send less"
            )
        return permit

    def ends_in_s(self, permit: Permit) -> float:
        """For how many seconds a lease will still be accepted."""
        return permit.ends_at - time.time()

    def _tell_of_clocks(self, error: FingerpostError) -> None:
        """One line a minute about leases that are right but for their time."""
        if isinstance(error, LeaseExpired | LeaseInvalid) and "clock" in error.message:
            count = self._said.count(time.monotonic())
            if count:
                logger.warning("refused (%d in the last minute): %s", count, error)


def _thumbprint(request: web.Request) -> str | None:
    certificate = peer_certificate(request.transport)
    return None if certificate is None else certificate.thumbprint
