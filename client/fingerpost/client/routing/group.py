"""The workers that serve one model reference, and which of them can be picked."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.client.routing.endpoint import Endpoint
    from fingerpost.client.routing.slow_start import SlowStart

__all__ = ["Group"]


class Group:
    """The endpoints that serve one model reference, and those that are usable until `until`.

    `steady` are the usable ones that are not in their slow start. In panic mode the failing
    endpoints count as usable.
    """

    __slots__ = ("endpoints", "steady", "until", "usable")

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        now: float,
        *,
        max_ejected_share: float,
        slow_start: SlowStart,
    ) -> None:
        self.endpoints = endpoints
        self.until = inf
        usable: list[Endpoint] = []
        failing: list[Endpoint] = []
        for endpoint in endpoints:
            at = endpoint.ejection.usable_from()
            if at <= now:
                usable.append(endpoint)
                continue
            self.until = min(self.until, at)
            if endpoint.ejection.failing and endpoint.ejection.overloaded_until <= now:
                failing.append(endpoint)
        if len(failing) > max_ejected_share * len(endpoints):
            usable += failing
        new = {endpoint.id for endpoint in usable if slow_start.until(endpoint) > now}
        if new:
            self.until = min(
                self.until, *(slow_start.until(each) for each in usable if each.id in new)
            )
        self.usable = usable
        self.steady = [each for each in usable if each.id not in new] if new else usable
