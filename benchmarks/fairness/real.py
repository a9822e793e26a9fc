"""`python -m benchmarks.fairness.real`: a tenant at ten times its share, with real workers.

16 worker processes that require leases sleep 0.5 s for each batch and 0.1 s for each of its images,
8 at most: 98 images/s together, and hardly any processor time. 100 clients of ten tenants in one
process send images of 1 KB at random times, with leases of their tenants: nine of them 0.8 of their
share, the tenth its share, or ten times that. At last all are one tenant, as without fair queues. A
latency counts from when its image was due.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.harness.environments import CACHE, installed
from benchmarks.harness.results import Goal, report
from benchmarks.harness.servers import free_port, running, wait_for
from fingerpost.client import Client, ClientConfig
from fingerpost.errors import FingerpostError
from fingerpost.security.caller import Caller, Rights
from fingerpost.security.key_files import save_public_keys
from fingerpost.security.keys import SigningKey
from fingerpost.security.leases.config import LeaseConfig
from fingerpost.security.leases.signer import LeaseSigner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PROGRAM: Final = [sys.executable, "-m", "fingerpost.deploy.cli"]
_WORKERS, _TENANTS, _CLIENTS = 16, 10, 10  # clients of each tenant
_BATCH: Final = 8
_CAPACITY: Final = _WORKERS * _BATCH / (0.5 + 0.1 * _BATCH)
_SHARE: Final = _CAPACITY / _TENANTS
_WARM_UP_S: Final = 10.0
_TIMEOUT_S: Final = 60.0
_IMAGE: Final = bytes(1000)
_MODEL: Final = """
import time

import numpy as np


class Sleeper:
    encoded = True

    def __init__(self, folder):
        self.scores = np.zeros((8, 1), np.float32)

    def predict(self, batch):
        time.sleep(0.5 + 0.1 * len(batch))
        return self.scores[: len(batch)]
"""


def _model() -> Path:
    folder = CACHE / "models" / "shared" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sleeper.py").write_text(_MODEL)
    (folder / "model.toml").write_text('framework = "python"\nclass = "sleeper:Sleeper"\n')
    return folder


@contextlib.contextmanager
def _workers(key: SigningKey) -> Iterator[list[str]]:
    """The addresses of all workers."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        keys, registry, found = Path(folder) / "keys.json", free_port(), []
        save_public_keys(key.public, keys)
        process = stack.enter_context(running([*_PROGRAM, "registry", "--port", registry]))
        wait_for(f"http://127.0.0.1:{registry}/v1/status/leader", process)
        for _ in range(_WORKERS):
            port = free_port()
            command = [
                *_PROGRAM, "worker", "--port", port, "--registry", f"http://127.0.0.1:{registry}",
                "--model", _model(), "--lease", 0, "--max-per-client", 0, "--max-batch", _BATCH,
                "--max-queue", 64, "--require-lease", "--lease-keys", keys,
            ]  # fmt: skip
            process = stack.enter_context(running(command))
            wait_for(f"http://127.0.0.1:{port}/health/ready", process)
            found.append(f"127.0.0.1:{port}")
        yield found


class _Load:
    """Sends the images of all tenants, and keeps the latencies of those due after the warm-up.

    Attributes:
        latencies: of the images of all tenants but the last one, in seconds.
        answered: images of all tenants that were answered after the warm-up.
        failed: images of the others that were not.
    """

    def __init__(self, seconds: float, rng: random.Random) -> None:
        self._rng = rng
        self._clock = asyncio.get_running_loop().time
        self._from = self._clock() + _WARM_UP_S
        self._until = self._from + seconds
        self.latencies: list[float] = []
        self.answered = self.failed = 0

    async def tenant(self, clients: Sequence[Client], rate: float, *, greedy: bool) -> None:
        """Send images of one tenant, at random times, until the end."""
        due = self._clock()
        async with asyncio.TaskGroup() as group:
            while (due := due + self._rng.expovariate(rate)) < self._until:
                await asyncio.sleep(max(0.0, due - self._clock()))
                group.create_task(self._send(self._rng.choice(clients), due, greedy=greedy))

    async def _send(self, client: Client, due: float, *, greedy: bool) -> None:
        failed = False
        try:
            await client.classify(_IMAGE, "shared")
        except FingerpostError:
            failed = True
        now = self._clock()
        if self._from <= now < self._until and not failed:
            self.answered += 1
        if not greedy and due >= self._from:
            self.failed += failed
            if not failed:
                self.latencies.append(now - due)


async def _case(
    workers: Sequence[str], tokens: Sequence[str], times: float, seconds: float, seed: int
) -> _Load:
    """All clients at once; the last tenant sends so many times its share."""
    async with contextlib.AsyncExitStack() as stack:
        tenants = []
        for token in tokens:
            config = ClientConfig(lease=token, timeout_s=_TIMEOUT_S)
            of_tenant = [
                Client(f"static://{','.join(workers)}", config=config) for _ in range(_CLIENTS)
            ]
            for each in of_tenant:
                await stack.enter_async_context(each)
            tenants.append(of_tenant)
        load = _Load(seconds, random.Random(seed))
        async with asyncio.TaskGroup() as group:
            for number, clients in enumerate(tenants):
                greedy = number == _TENANTS - 1
                rate = times * _SHARE if greedy else 0.8 * _SHARE
                group.create_task(load.tenant(clients, rate, greedy=greedy))
    return load


def main() -> int:
    """Measure, report, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each case and round")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    key = SigningKey.generate()
    signer = LeaseSigner(lambda: key, LeaseConfig(life_s=3600.0), time.time)
    names = [f"t{number}" for number in range(_TENANTS)]
    own, same = (
        [signer.sign(Caller(tenant=name, rights=Rights()), "shared").token for name in each]
        for each in (names, ["all"] * _TENANTS)
    )
    cases = {
        "at its share": (own, 1.0),
        "at ten times its share": (own, 10.0),
        "at ten times, all one tenant": (same, 10.0),
    }
    found: dict[str, list[_Load]] = {name: [] for name in cases}
    with _workers(key) as workers:
        for number in range(options.rounds):
            for name, (tokens, times) in cases.items():
                load = asyncio.run(_case(workers, tokens, times, options.seconds, number))
                print(f"  {name}: {len(load.latencies)} images of the others", flush=True)
                found[name].append(load)
    figures = {}
    for name, loads in found.items():
        ordered = sorted(each for load in loads for each in load.latencies)
        figures[name] = {
            "others' p50, ms": 1000 * ordered[len(ordered) // 2],
            "others' p99, ms": 1000 * ordered[len(ordered) * 99 // 100],
            "others failed": float(sum(load.failed for load in loads)),
            "images/s of all": sum(load.answered for load in loads)
            / (options.seconds * options.rounds),
        }
    modest, greedy, unfair = figures.values()
    goals = [
        Goal(
            claim="the others' p99, at ten times / at its share",
            ratio=greedy["others' p99, ms"] / modest["others' p99, ms"],
            bound=1.1,
            at_most=True,
        ),
        Goal(
            claim="images/s, tenants / all one tenant",
            ratio=greedy["images/s of all"] / unfair["images/s of all"],
            bound=0.97,
        ),
        Goal(claim="images of the others that failed", ratio=greedy["others failed"], bound=0,
             at_most=True),
    ]  # fmt: skip
    kept = report(
        "fairness",
        "One of ten tenants sends more than its share; the others 0.8 of theirs",
        figures,
        goals,
        notes=[f"A batch of {_BATCH} takes 1.3 s; {_CAPACITY:.0f} images/s are possible."],
        versions=installed(Path(sys.executable), "aiohttp"),
        settings={"seconds": options.seconds, "rounds": options.rounds},
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
