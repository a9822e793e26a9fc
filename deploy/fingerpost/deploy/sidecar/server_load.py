"""A server's load by its own metrics: Prometheus' text, or the statistics of protocol v2."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from fingerpost.registry.instance import format_address

if TYPE_CHECKING:
    from fingerpost.deploy.sidecar.config import SidecarConfig

__all__ = ["ServerLoad", "busy_ns", "metric_sum"]

logger = logging.getLogger(__name__)

_EVERY_S: Final = 0.5
_TIMEOUT_S: Final = 1.0
_MAX_BYTES: Final = 4 << 20


class ServerLoad:
    """Reads the server's metrics twice a second.

    A gauge of Prometheus is the number of requests. The statistics of v2 only count: the time that
    all requests have taken, divided by the time that passed, is how many there were on average
    (Little's law).

    Attributes:
        requests: how many requests the server has; 0 while its metrics cannot be read.
    """

    def __init__(self, config: SidecarConfig) -> None:
        path, _, self._metric = (config.load or "").partition("#")
        if config.load == "v2":
            model = quote(config.meta.get("model", config.service), safe="")
            path = f"/v2/models/{model}/stats"
        self._url = f"http://{format_address(config.host, config.port)}{path}"
        self._before: tuple[float, int] | None = None
        self._failing = False
        self.requests = 0

    async def run(self) -> None:
        """Read until cancelled."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                try:
                    await self._read(session)
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                    self.requests, self._before = 0, None
                    if not self._failing:
                        logger.warning("the server's load is not known: %s: %s", self._url, error)
                    self._failing = True
                else:
                    self._failing = False
                await asyncio.sleep(_EVERY_S)

    async def _read(self, session: aiohttp.ClientSession) -> None:
        async with session.get(self._url, allow_redirects=False) as response:
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}")
            body = await response.content.read(_MAX_BYTES)
        if self._metric:
            self.requests = metric_sum(body.decode("utf-8", "replace"), self._metric)
            return
        now, busy = time.monotonic(), busy_ns(body)
        if self._before is not None and now > self._before[0] and busy >= self._before[1]:
            self.requests = round((busy - self._before[1]) / 1e9 / (now - self._before[0]))
        self._before = now, busy


def metric_sum(text: str, name: str) -> int:
    """The sum of a metric over all its labels, rounded; 0 or more.

    Raises:
        ValueError: it is not there, or not Prometheus' text.
    """
    values = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    ]
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"no metric {name!r}")
    return max(0, round(sum(values)))


def busy_ns(body: bytes) -> int:
    """The nanoseconds that all requests have taken so far, by v2's statistics.

    Raises:
        ValueError: it is not v2's statistics.
    """
    try:
        stats: Any = msgspec.json.decode(body)["model_stats"]
        ended = [
            each["inference_stats"].get(key, {}) for each in stats for key in ("success", "fail")
        ]
        return sum(int(each.get("ns", 0)) for each in ended)
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not statistics of v2: {error!r}") from error
