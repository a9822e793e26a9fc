"""Who may use the admin API: callers with a role, and those with the admin token.

Known callers are found at once, see `Callers`. The admin token, which somebody may have chosen,
cannot be tried out quickly: a wrong one is logged (without the token), counted, and slows down its
address, see `Attempts`.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs

from fingerpost.basics.printable import one_line
from fingerpost.errors import FingerpostError, Overloaded, Unauthorized
from fingerpost.registry.http.browser_guard import BrowserGuard
from fingerpost.security.attempts import Attempts
from fingerpost.security.caller import Caller
from fingerpost.security.callers.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Counter

    from fingerpost.registry.access import Callers
    from fingerpost.registry.http.request_head import RequestHead

__all__ = ["AdminAccess"]

logger = logging.getLogger(__name__)

_WITH_TOKEN: Final = Caller(identity="admin token", role="admin")


class AdminAccess:
    """Checks who sends a request, and whether the caller has the role for it.

    Args:
        token: the admin token, which has the role `admin`; None if there is none.
        callers: the worker's callers; they write down orders and refusals.
        denied: counts the requests that are refused.
        names: the worker's own host names, see `BrowserGuard`.
    """

    def __init__(
        self, token: str | None, callers: Callers, denied: Counter, names: Iterable[str]
    ) -> None:
        self._credential = None if token is None else f"Bearer {token}".encode()
        self._callers = callers
        self._denied = denied
        self._guard = BrowserGuard.of(names)
        self._attempts = Attempts()

    async def check(self, request: RequestHead, role: str, action: str, target: str) -> Caller:
        """Return who it is, once it is known to be allowed to.

        Args:
            request: its `Authorization` is used.
            role: what the request needs.
            action: what is asked for, for the audit log.
            target: of which model.

        Raises:
            Unauthorized: nobody known, or a web page of another origin sends it.
            Forbidden: somebody known, without the role.
            Overloaded: its address tried too many wrong credentials.
        """
        try:
            problem = self._guard.check_origin(request.headers)
            if problem is not None:
                self._callers.refused(
                    request, Refusal.ORIGIN, problem, action=action, target=target
                )
                raise Unauthorized(problem)
            caller = await self._identified(request, action, target)
            self._callers.require_role(request, caller, role, action, target)
        except FingerpostError:
            self._denied.inc()
            raise
        return caller

    def ordered(
        self, request: RequestHead, caller: Caller, action: str, target: str, error: object = None
    ) -> None:
        """Write down an order that was carried out, or failed by `error`."""
        if error is None:
            self._callers.ordered(request, caller, action, target, "done")
        else:
            self._callers.ordered(request, caller, action, target, "failed", str(error))

    async def _identified(self, request: RequestHead, action: str, target: str) -> Caller:
        callers = self._callers
        known = callers.find(request)
        if known is not None:
            return known
        if self._credential is None:
            return await callers.identify(request, action, target)
        now, address = asyncio.get_running_loop().time, request.remote or ""
        try:
            wait_s = self._attempts.wait_s(address, now())
        except Overloaded:
            text = "too many wrong credentials"
            callers.refused(request, Refusal.TOO_MANY, text, action=action, target=target)
            raise
        if wait_s:
            await asyncio.sleep(wait_s)
        fields = request.headers.getall(hdrs.AUTHORIZATION, ())
        given = (fields[0] if len(fields) == 1 else "").encode("utf-8", "surrogateescape")
        if hmac.compare_digest(given, self._credential):
            self._attempts.succeeded(address)
            return _WITH_TOKEN
        if callers.required:  # it may be a token that is not verified yet
            try:
                return await callers.identify(request, action, target)
            except Unauthorized:
                self._attempts.failed(address, now())
                raise
        self._attempts.failed(address, now())
        what = "a wrong" if given else "no"
        logger.warning(
            "%s %s from %s is refused: %s admin token",
            request.method,
            one_line(request.path, 200),
            address,
            what,
        )
        reason = Refusal.UNKNOWN_KEY if given else Refusal.NO_CREDENTIAL
        callers.refused(
            request, reason, f"{what} admin token", action=action, target=target, log=False
        )
        raise Unauthorized("this needs the worker's admin token: send Authorization: Bearer TOKEN")
