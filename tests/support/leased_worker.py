"""A worker whose leases end when they say so, for tests that cannot wait for the 30 s of skew:

python -m tests.support.leased_worker REGISTRY NAME
"""

from __future__ import annotations

import asyncio
import logging
import sys

from fingerpost.basics.shutdown import ShutdownSignals
from fingerpost.security.leases.config import LeaseRules
from fingerpost.worker import Worker, WorkerConfig
from fingerpost.worker.config import LeasesConfig
from tests.support.standby import Colours


async def main(registry: str, name: str) -> None:
    leases = LeasesConfig(required=True, rules=LeaseRules(skew_s=0.5))
    config = WorkerConfig(registry=registry, leases=leases)
    async with Worker.for_object(Colours(), name=name, config=config) as worker:
        signals = ShutdownSignals()
        await worker.register()
        await signals.wait()
        await worker.leave()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main(*sys.argv[1:]))
