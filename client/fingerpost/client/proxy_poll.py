"""The poll of a client's watch: one lookup at one of several proxies."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final, Protocol

from fingerpost.client.wire import HOLD_HEADER, INDEX_HEADER
from fingerpost.errors import (
    BadAnswer,
    FingerpostError,
    Forbidden,
    NoWorker,
    RegistryUnreachable,
    Unauthenticated,
    UnknownService,
    error_from_json,
)
from fingerpost.registry import Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from yarl import URL

    from fingerpost.client.proxy_answers import ProxyAnswers
    from fingerpost.client.start_requests import StartRequests

__all__ = ["SLACK_S", "Proxies", "ProxyPoll", "none_answered", "not_a_proxy"]

# How much longer than the requested wait a proxy may take. The watch allows 5 s, so that there is
# time to ask the next proxy within the same poll if one hangs.
SLACK_S: Final = 2.0
_INDEX: Final = re.compile("[0-9]{1,18}", re.ASCII)
_MAX_REASON_LETTERS: Final = 400


class Proxies(Protocol):
    """The proxies of a client, as its polls use them."""

    @property
    def proxies(self) -> tuple[URL, ...]:
        """Their URLs, in the order in which they are asked."""
        ...

    @property
    def starts(self) -> StartRequests:
        """The models whose first worker is waited for."""
        ...

    async def get(
        self, proxy: URL, path: str, query: dict[str, str], *, timeout_s: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of one answer; raises `FingerpostError`."""
        ...


class ProxyPoll:
    """The poll of one service's watch. It remembers which proxy answered last.

    After a failure it asks the next proxy with index 0: an index is valid at one proxy only.
    """

    def __init__(self, resolver: Proxies, answers: ProxyAnswers, service: str) -> None:
        self._resolver = resolver
        self._answers = answers
        self._service = service
        self._at = 0

    async def __call__(self, index: int, wait_s: float) -> tuple[Snapshot, int]:
        """See `fingerpost.registry.watching.watch.Poll`."""
        proxies = self._resolver.proxies
        failures: list[tuple[URL, FingerpostError]] = []
        for at in range(self._at, self._at + len(proxies)):
            # Set before it has answered, so that a cancelled poll goes on with the next one too.
            self._at = (at + 1) % len(proxies)
            proxy = proxies[at % len(proxies)]
            try:
                answer = await self._ask(proxy, index, wait_s)
            except FingerpostError as error:
                failures.append((proxy, error))
                index = 0
            else:
                self._at = at % len(proxies)
                return answer
        raise none_answered(failures)

    async def _ask(self, proxy: URL, index: int, wait_s: float) -> tuple[Snapshot, int]:
        # A proxy that holds lookups for a worker that starts must answer this one at once.
        held = {"index": str(index), "wait": f"{wait_s:g}s"} if index else {"wait": "0s"}
        # Consul's rule: a held answer may come wait/16 later, so that clients do not synchronize.
        timeout_s = SLACK_S + (wait_s * 17 / 16 if index else 0.0)
        path = f"/v1/resolve/{self._service}"
        status, headers, body = await self._resolver.get(proxy, path, held, timeout_s=timeout_s)
        header = headers.get(INDEX_HEADER)
        if header is None or not _INDEX.fullmatch(header):
            raise not_a_proxy(proxy, f"HTTP {status} with {INDEX_HEADER} {header!r}", body)
        next_index = max(1, int(header))
        if status == 200:
            await self._answers.verify(body, self._service, str(proxy))
            snapshot = self._answers.snapshot(body, self._service, str(proxy), time.monotonic())
            return snapshot, next_index
        error = error_from_json(body, status=status, peer=str(proxy))
        if not isinstance(error, NoWorker | UnknownService):
            raise error
        known = isinstance(error, NoWorker)
        if known:
            self._resolver.starts.note(self._service, headers.get(HOLD_HEADER, "0"))
        empty = Snapshot(
            service=self._service,
            instances=(),
            known=known,
            index=next_index,
            taken_at=time.monotonic(),
        )
        return empty, next_index


def _named(error: FingerpostError, proxy: URL) -> str:
    """The error's message with the proxy's URL, of a length for one line."""
    text = error.message[:_MAX_REASON_LETTERS]
    return text if str(proxy) in text else f"{proxy}: {text}"


def not_a_proxy(proxy: URL, answer: str, body: bytes) -> BadAnswer:
    start = body[:80].decode("utf-8", "replace")
    return BadAnswer(
        f"{proxy}: {answer}, and {start!r}: this is not a Fingerpost proxy. If it is a "
        "registry, give its URL as --registry (in Python: registry=)"
    )


def none_answered(failures: Sequence[tuple[URL, FingerpostError]]) -> FingerpostError:
    """The error where all proxies failed: that of one which does not let the caller in, if any."""
    for proxy, error in failures:
        if isinstance(error, Unauthenticated | Forbidden):
            return type(error)(_named(error, proxy))
    reasons = "; ".join(_named(error, proxy) for proxy, error in failures)
    return RegistryUnreachable(f"no proxy answered; start one or use another one: {reasons}")
