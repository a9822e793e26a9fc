"""Who may use the admin API: callers with the token, which cannot be tried out quickly.

A wrong token is logged (without the token), counted, and slows down its address: each failure
doubles the time that the address's next attempts take, from 0.25 s to 5 s each, one after the
other, also attempts with the right token, so that the time says nothing about it. A success, or
ten minutes without an attempt, ends that.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs

from fingerpost.errors import Overloaded, Unauthorized
from fingerpost.registry.browser_guard import BrowserGuard
from fingerpost.registry.printable import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp import web
    from prometheus_client import Counter

__all__ = ["AdminAccess", "Attempts"]

logger = logging.getLogger(__name__)

_FIRST_S: Final = 0.25
_MOST_S: Final = 5.0
_FORGET_S: Final = 600.0
# Longer waits are refused: 4 attempts of one address wait at most, and no connection is held.
_LONGEST_WAIT_S: Final = 20.0
_MAX_ADDRESSES: Final = 10_000


@dataclass(slots=True)
class _Address:
    failures: int = 0
    next_at: float = 0.0


class Attempts:
    """The failed attempts of each address; pure."""

    def __init__(self) -> None:
        self._addresses: OrderedDict[str, _Address] = OrderedDict()

    def wait_s(self, address: str, now: float) -> float:
        """How many seconds an attempt that comes now has to wait; the next one waits longer.

        Raises:
            Overloaded: too many wait already.
        """
        each = self._addresses.get(address)
        if each is None:
            return 0.0
        if now > each.next_at + _FORGET_S:
            del self._addresses[address]
            return 0.0
        interval_s = min(_MOST_S, _FIRST_S * 2.0 ** min(each.failures - 1, 10))
        wait_s = max(0.0, each.next_at - now)
        if wait_s > _LONGEST_WAIT_S:
            raise Overloaded("too many attempts with a wrong admin token", retry_after_s=wait_s)
        each.next_at = max(now, each.next_at) + interval_s
        return wait_s

    def failed(self, address: str, now: float) -> None:
        """Count a wrong token."""
        each = self._addresses.setdefault(address, _Address())
        self._addresses.move_to_end(address)
        each.failures += 1
        interval_s = min(_MOST_S, _FIRST_S * 2.0 ** min(each.failures - 1, 10))
        each.next_at = max(each.next_at, now + interval_s)
        if len(self._addresses) > _MAX_ADDRESSES:
            self._addresses.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Forget the failures of an address."""
        self._addresses.pop(address, None)


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
