"""Lets requests in that have a valid lease, before their body is read."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs

from fingerpost.basics.log_limit import LogLimit
from fingerpost.errors import FingerpostError, ImageTooLarge, LeaseExpired, LeaseInvalid
from fingerpost.registry.http.request import PlainRequest
from fingerpost.security.audit.audit_log import IMAGE
from fingerpost.security.tls import peer_certificate

if TYPE_CHECKING:
    from prometheus_client import Counter

    from fingerpost.registry.http.request_head import RequestHead
    from fingerpost.security.audit.audit_log import AuditLog
    from fingerpost.security.leases.verifier import LeaseVerifier, Permit, Verified

__all__ = ["LeaseGate"]

logger = logging.getLogger(__name__)

_SCHEME: Final = "bearer "


class LeaseGate:
    """Finds the lease of an HTTP request, and verifies it.

    Of a head that its connection has sent before, only what may have changed is verified: the time
    and the keys.

    Args:
        verifier: knows the keys.
        refused: counts refusals, by the code of the error.
        audit: writes them down, limited by address.
    """

    def __init__(
        self, verifier: LeaseVerifier, refused: Counter, audit: AuditLog | None = None
    ) -> None:
        self._verifier = verifier
        self._refused = refused
        self._audit = audit
        self._said = LogLimit(60.0)

    def permit(self, request: RequestHead, service: str | None) -> Permit:
        """The verified lease of a request for a service; None while that is not known yet.

        Raises:
            LeaseError: no lease, or not a valid one; see `LeaseVerifier.permit`.
            Overloaded: too many wrong ones came from this address.
            ImageTooLarge: the body is larger than the lease allows.
        """
        memo = request.memo if isinstance(request, PlainRequest) else {}
        found: Verified | None = memo.get(self)
        if found is not None and self._verifier.still_holds(found, service):
            permit = found.permit
        else:
            permit = self._verify(request, service)
            memo[self] = self._verifier.verified(permit, service)
        most = permit.grant.max_body_bytes
        if most is not None and (request.content_length or 0) > most:
            raise ImageTooLarge(
                f"the body has {request.content_length:,} bytes, over the limit of {most:,} of "
                "this lease: send less"
            )
        return permit

    def _verify(self, request: RequestHead, service: str | None) -> Permit:
        try:
            return self._verifier.permit(
                _token(request),
                service,
                lambda: _thumbprint(request),
                lambda: _sender(request),
            )
        except FingerpostError as error:
            self._refused.labels(error.code).inc()
            self._tell_of_clocks(error)
            if self._audit is not None:
                what = f"{error.code}: {error.message}"
                self._audit.write(
                    IMAGE, service or "", "refused", source=request.remote or "", detail=what
                )
            raise

    def known(self, request: RequestHead) -> Permit | None:
        """The lease of a request, if an image came with it before; nothing is verified now."""
        return self._verifier.known(_token(request))

    def ends_in_s(self, permit: Permit) -> float:
        """For how many seconds a lease will still be accepted."""
        return permit.ends_at - time.time()

    def _tell_of_clocks(self, error: FingerpostError) -> None:
        """One line a minute about leases that are right but for their time."""
        if isinstance(error, LeaseExpired | LeaseInvalid) and "clock" in error.message:
            count = self._said.count(time.monotonic())
            if count:
                logger.warning("refused (%d in the last minute): %s", count, error)


def _token(request: RequestHead) -> str:
    field = request.headers.get(hdrs.AUTHORIZATION, "")
    return field[len(_SCHEME) :] if field[: len(_SCHEME)].lower() == _SCHEME else ""


def _sender(request: RequestHead) -> tuple[str, str]:
    """The address and the connection that a request came by."""
    transport = request.transport
    peer = None if transport is None else transport.get_extra_info("peername")
    return request.remote or "", str(peer) if peer else ""


def _thumbprint(request: RequestHead) -> str | None:
    certificate = peer_certificate(request.transport)
    return None if certificate is None else certificate.thumbprint
