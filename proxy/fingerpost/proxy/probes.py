"""Ask the workers themselves: their load, and whether anybody answers at their address."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from fingerpost.basics.log_limit import LogLimit
from fingerpost.basics.supervision import count_unexpected
from fingerpost.client.wire import INSTANCE_PATH
from fingerpost.errors import ConnectionRefused, PeerError, TlsFailed
from fingerpost.proxy.demand import Demand
from fingerpost.registry.load_client import LoadClient
from fingerpost.security.tls import ClientTls

if TYPE_CHECKING:
    from fingerpost.proxy.config import ProxyConfig
    from fingerpost.proxy.directory import Directory
    from fingerpost.registry import Instance, LoadReport

__all__ = ["LoadProbes"]

# Probes under way at once; a worker that hangs holds one for the timeout at most.
_CONCURRENT: Final = 16
_TIMEOUT_S: Final = 0.5
_KEEP_ALIVE_S: Final = 15.0
_LOG_EVERY_S: Final = 60.0

logger = logging.getLogger(__name__)


class LoadProbes:
    """Asks every worker for its load report, and remembers which workers refuse connections.

    A worker that refuses a connection has ended. The proxy sees that at its next probe, often
    before the registry's own check. It does not name the worker until it accepts connections again.

    Args:
        directory: the snapshots whose instances are asked.
        config: the proxy's settings, of which the two for probes are used.

    Attributes:
        reports: the last load report of each instance, by id.
        refusing: ids of the instances that refused the last probe's connection, or whose address
            another process has now.
        boot_ids: by id, of the instances whose entry has none, such as those of a static list: the
            process that answered last there, if it serves requests that name it.
        verified: ids of the instances whose certificate was accepted at the last probe that
            reached them. No other one is named, where `ca` is configured. Foreign ones show none:
            they are named because the operator names their service.
        demand: how much each service was used lately.
    """

    def __init__(self, directory: Directory, config: ProxyConfig) -> None:
        self._directory = directory
        self._interval_s = config.probe_interval_s
        self._max_per_s = config.max_probes_per_s
        self.reports: dict[str, LoadReport] = {}
        self.refusing: frozenset[str] = frozenset()
        self.boot_ids: dict[str, int] = {}
        self.verified: frozenset[str] = frozenset()
        self.demand = Demand()
        self._tls = ClientTls(config.tls)
        self._verifies = bool(self._interval_s) and self._tls.requires
        self._log = LogLimit(_LOG_EVERY_S)

    def accepting_instances(self, instances: tuple[Instance, ...]) -> tuple[Instance, ...]:
        """The instances that did not refuse the last probe; all of them if all did."""
        if self._verifies:
            instances = tuple(each for each in instances if each.id in self.verified)
        if not self.refusing:
            return instances
        accepting = tuple(each for each in instances if each.id not in self.refusing)
        return accepting or instances

    def leave_out(self, instance: Instance) -> None:
        """Do not name this one before the next probe: it is not the process of its entry."""
        self.refusing |= {instance.id}

    async def run(self) -> None:
        """Probe all instances again and again until cancelled."""
        async with LoadClient(
            timeout_s=_TIMEOUT_S,
            max_concurrent=_CONCURRENT,
            keep_alive_s=_KEEP_ALIVE_S,
            tls=self._tls,
        ) as client:
            while True:
                instances = [
                    each for snapshot in self._directory.snapshots() for each in snapshot.instances
                ]
                await self._round(client, instances)
                self.demand.probed(self._directory.snapshots(), self.reports, time.monotonic())
                pause_s = max(self._interval_s, len(instances) / self._max_per_s)
                await asyncio.sleep(pause_s)

    async def _round(self, client: LoadClient, instances: list[Instance]) -> None:
        refusing: set[str] = set()
        verified = set(self.verified)

        async def probe(instance: Instance) -> None:
            try:
                if instance.foreign:
                    if instance.load_target:
                        self.reports[instance.id] = await client.get(instance)
                    else:
                        await client.connect(instance)
                    verified.add(instance.id)
                    return
                report = await client.get(instance)
                verified.add(instance.id)
                if instance.boot_id in (0, report.boot_id):
                    self.reports[instance.id] = report
                else:
                    refusing.add(instance.id)
                if not instance.boot_id and self.boot_ids.get(instance.id) != report.boot_id:
                    self.boot_ids.pop(instance.id, None)
                    await client.get(
                        instance, f"{INSTANCE_PATH}{report.boot_id}/{instance.service}"
                    )
                    self.boot_ids[instance.id] = report.boot_id
            except ConnectionRefused:
                refusing.add(instance.id)
                self.boot_ids.pop(instance.id, None)
            except TlsFailed as error:
                verified.discard(instance.id)
                refusing.add(instance.id)
                if count := self._log.count(time.monotonic()):
                    logger.warning("%d probes, the last: %s", count, error)
            except PeerError:
                return  # busy, or not a Fingerpost worker: the registry's check decides that
            except Exception as error:  # must not end the round for all other workers
                count_unexpected("load probes", error)

        await asyncio.gather(*(probe(instance) for instance in instances))
        present = {instance.id for instance in instances}
        self.reports = {id_: each for id_, each in self.reports.items() if id_ in present}
        self.refusing = frozenset(refusing)
        self.verified = frozenset(verified & present)
        self.boot_ids = {id_: each for id_, each in self.boot_ids.items() if id_ in present}
