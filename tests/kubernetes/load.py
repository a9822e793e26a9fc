"""Images at a fixed rate to a cluster; until SIGTERM. Writes its counts as JSON.

python -m tests.kubernetes.load URL MODEL IMAGE RATE [--tls CA CERT KEY TRUST_DOMAIN]
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from fingerpost.client import Client, ClientConfig
from fingerpost.errors import FingerpostError
from fingerpost.security.tls import TlsConfig


async def main(url: str, model: str, file: str, rate: float, tls: TlsConfig | None) -> None:
    image = Path(file).read_bytes()
    done: list[float] = []
    errors: Counter[str] = Counter()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stopped.set)

    async def one(client: Client) -> None:
        began = time.monotonic()
        try:
            await client.classify(image, model)
            done.append(time.monotonic() - began)
        except FingerpostError as error:
            errors[f"{error.code}: {error.message[:300]}"] += 1

    began = time.monotonic()
    first = 0.0
    async with (
        Client(url, config=ClientConfig(timeout_s=120), tls=tls) as client,
        asyncio.TaskGroup() as group,
    ):
        sent = 0
        while not stopped.is_set():
            group.create_task(one(client))
            sent += 1
            if done and not first:
                first = time.monotonic() - began
                print("first", round(first, 2), flush=True)
            pause_s = began + sent / rate - time.monotonic()
            try:
                await asyncio.wait_for(stopped.wait(), max(0.0, pause_s))
            except TimeoutError:
                continue
    print(
        json.dumps(
            {
                "images": len(done) + errors.total(),
                "failed": errors.total(),
                "errors": errors.most_common(5),
                "slowest_s": round(max(done, default=0.0), 2),
                "first_s": round(first, 2),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    url, model, file, rate, *rest = sys.argv[1:]
    given = None
    if rest:
        _, ca, cert, key, domain = rest
        given = TlsConfig(ca=ca, cert=cert, key=key, trust_domain=domain)
    asyncio.run(main(url, model, file, float(rate), given))
