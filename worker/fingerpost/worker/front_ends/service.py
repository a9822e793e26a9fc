"""The HTTP application of a front end, which answers for all of them."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import hdrs, web
from msgspec.structs import replace
from prometheus_client import CONTENT_TYPE_LATEST

from fingerpost.registry import LoadReport, WorkerState
from fingerpost.worker.service import WorkerService
from fingerpost.worker.serving.admission import Admission

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fingerpost.registry.http.request_head import RequestHead
    from fingerpost.worker.front_ends.load_board import LoadBoard

__all__ = ["EXCHANGE_S", "FrontEndService"]

EXCHANGE_S: Final = 1e-3
"""Seconds for which what the others have said is used again.

To write and to read the rows takes 15 us, and every answer has a report.
"""


class FrontEndService(WorkerService):
    """A `WorkerService` whose load, health and metrics are those of all front ends.

    Args:
        number: which front end this is.
        board: the load of all.
        all_metrics: asks the first process for the metrics of all.
        more: see `WorkerService`.
    """

    def __init__(
        self,
        *more: Any,
        number: int,
        board: LoadBoard,
        all_metrics: Callable[[], Awaitable[bytes]],
        **named: Any,
    ) -> None:
        super().__init__(*more, **named)
        config = named["config"]
        self._number = number
        self._board = board
        self._all_metrics = all_metrics
        self.admission = _SharedAdmission(
            config.requests.max_in_flight, named["boot_id"], board, number
        )
        self._last_seq = 0
        self._exchanged_at = -math.inf
        self._others: list[LoadReport] = []

    def load(self, request: RequestHead | None = None) -> LoadReport:
        """The load of all front ends; see `WorkerService.load`.

        Its sequence number is the time in microseconds, by the clock that all processes share: it
        grows across front ends without a lock.
        """
        own = super().load(request)
        now = time.monotonic()
        if now - self._exchanged_at >= EXCHANGE_S:
            self._exchanged_at = now
            self._exchange(own)
        self._board.set_images(self._number, self._metrics.images)
        self._last_seq = max(self._last_seq + 1, int(now * 1e6))
        return self._board.merged(replace(own, seq=self._last_seq), self._others)

    def _exchange(self, own: LoadReport) -> None:
        """Write the own load for the others, and read theirs."""
        if own.tenants:  # it is one tenant's, and the others want to know of all
            own = replace(own, expected_s=self._expected_s, classes=self._class_loads)
        self._write(own)
        self._others = self._board.others(self._number)

    def beat(self) -> None:
        """Write the own load, as a sign of life."""
        self._write(super().load())

    def engine_healthy(self) -> bool:
        """Whether no front end stalls: see `WorkerService.engine_healthy`."""
        others = self._board.others(self._number)
        return super().engine_healthy() and not any(
            each.state is WorkerState.FAILED for each in others
        )

    def own_metrics(self) -> str:
        """The metrics of this process alone."""
        return self.metrics_text().decode()

    async def _get_metrics(self, request: web.Request) -> web.Response:
        text = await self._all_metrics()
        return web.Response(body=text, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})

    def _load_answer(self, request: RequestHead) -> tuple[bytes, LoadReport]:
        body, report = super()._load_answer(request)
        answer = msgspec.json.decode(body, type=LoadReport)
        return msgspec.json.encode(replace(answer, images=self._board.images())), report

    def _write(self, own: LoadReport) -> None:
        self._board.write(self._number, own, self._metrics.images)


class _SharedAdmission(Admission):
    """An `Admission` that writes the requests in flight where all front ends see them."""

    def __init__(self, max_in_flight: int, boot_id: int, board: LoadBoard, number: int) -> None:
        super().__init__(max_in_flight, boot_id)
        self._board = board
        self._number = number

    def enter(self) -> None:
        """See `Admission.enter`."""
        super().enter()
        self._board.set_rif(self._number, self.rif)

    def leave(self) -> None:
        """See `Admission.leave`."""
        super().leave()
        self._board.set_rif(self._number, self.rif)
