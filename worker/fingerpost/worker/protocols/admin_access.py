"""Who may use the admin API: callers with the token, which cannot be tried out quickly.

A wrong token is logged (without the token), counted, and slows down its address: see `Attempts`.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from typing import TYPE_CHECKING

from aiohttp import hdrs

from fingerpost.basics.printable import one_line
from fingerpost.errors import Unauthorized
from fingerpost.registry.browser_guard import BrowserGuard
from fingerpost.security.attempts import Attempts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp import web
    from prometheus_client import Counter

__all__ = ["AdminAccess"]

logger = logging.getLogger(__name__)


class AdminAccess:
    """Checks the token of each request.

    Args:
        token: the right one.
        denied: counts the requests with another one.
        names: the worker's own host names, see `BrowserGuard`.
    """

    def __init__(self, token: str, denied: Counter, names: Iterable[str]) -> None:
        self._credential = f"Bearer {token}".encode()
        self._denied = denied
        self._guard = BrowserGuard.of(names)
        self._attempts = Attempts()

    async def check(self, request: web.Request) -> None:
        """Return once the request is known to have the token.

        Raises:
            Unauthorized: it does not have it, or a web page of another origin sends it.
            Overloaded: its address tried too many wrong ones.
        """
        problem = self._guard.check_origin(request.headers)
        if problem is not None:
            raise Unauthorized(problem)
        now, address = asyncio.get_running_loop().time, request.remote or ""
        if wait_s := self._attempts.wait_s(address, now()):
            await asyncio.sleep(wait_s)
        given = request.headers.get(hdrs.AUTHORIZATION, "").encode("utf-8", "surrogateescape")
        if hmac.compare_digest(given, self._credential):
            self._attempts.succeeded(address)
            return
        self._attempts.failed(address, now())
        self._denied.inc()
        logger.warning(
            "%s %s from %s is refused: %s admin token",
            request.method,
            one_line(request.path, 200),
            address,
            "a wrong" if given else "no",
        )
        raise Unauthorized("this needs the worker's admin token: send Authorization: Bearer TOKEN")
