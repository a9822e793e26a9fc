"""Ask the workers themselves: their load, and whether anybody answers at their address."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from fingerpost.registry import LoadReport

if TYPE_CHECKING:
    from fingerpost.proxy.config import ProxyConfig
    from fingerpost.proxy.directory import Directory
    from fingerpost.registry import Instance

__all__ = ["LoadProbes"]

# Probes under way at once; a worker that hangs holds one for the timeout at most.
_CONCURRENT = 16
_TIMEOUT_S = 0.5


class LoadProbes:
    """Keeps the last load report of every worker, and the set of those that refused connections.

    A worker that refuses a connection is gone: the registry learns it within its check's interval,
    the proxy at its next probe. It is left out of answers until it accepts again.
    """

    def __init__(self, directory: Directory, config: ProxyConfig) -> None:
        self._directory = directory
        self._interval_s = config.probe_interval_s
        self._max_per_s = config.max_probes_per_s
        self.reports: dict[str, LoadReport] = {}
        self.refusing: frozenset[str] = frozenset()

    def answering(self, instances: tuple[Instance, ...]) -> tuple[Instance, ...]:
        """Those that did not refuse the last probe; all of them where all did."""
        if not self.refusing:
            return instances
        well = tuple(each for each in instances if each.id not in self.refusing)
        return well or instances

    async def run(self) -> None:
        """Probe round after round until cancelled."""
        connector = TCPConnector(limit=_CONCURRENT, keepalive_timeout=15.0)
        timeout = ClientTimeout(total=_TIMEOUT_S)
        async with ClientSession(connector=connector, timeout=timeout) as session:
            while True:
                instances = [
                    each for snapshot in self._directory.snapshots() for each in snapshot.instances
                ]
                await self._round(session, instances)
                pause_s = max(self._interval_s, len(instances) / self._max_per_s)
                await asyncio.sleep(pause_s)

    async def _round(self, session: ClientSession, instances: list[Instance]) -> None:
        gate = asyncio.Semaphore(_CONCURRENT)
        refused: set[str] = set()

        async def probe(instance: Instance) -> None:
            async with gate:
                try:
                    async with session.get(f"{instance.url}/load") as response:
                        report = msgspec.json.decode(await response.read(), type=LoadReport)
                except ConnectionRefusedError:
                    refused.add(instance.id)
                except ClientError as error:
                    if isinstance(getattr(error, "os_error", None), ConnectionRefusedError):
                        refused.add(instance.id)
                except (TimeoutError, msgspec.MsgspecError):
                    return  # busy, or no worker of ours: the registry's check judges that
                else:
                    self.reports[instance.id] = report

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.gather(*(probe(instance) for instance in instances))
        present = {instance.id for instance in instances}
        self.reports = {id_: each for id_, each in self.reports.items() if id_ in present}
        self.refusing = frozenset(refused)
