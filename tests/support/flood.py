"""A process that sends wrong credentials without pause, over a few connections:

    python -m tests.support.flood RATE FILE WORKER... PROXY

RATE is requests a second at each address (`HOST:PORT`), FILE holds a right lease. Workers get
images with that lease changed at random in one place, and the proxy lookups with made-up API keys.
On SIGTERM it prints the answers of each address: `{"127.0.0.1:1": {"401": 800, "429": 200}}`.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import string
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

from aiohttp import ClientError, ClientSession, TCPConnector

from fingerpost.security.callers.api_keys import make_key

_CONNECTIONS = 4
_LETTERS = string.ascii_letters + string.digits + "-_"


def changed(lease: str) -> str:
    """The lease with one other letter; never itself in another spelling."""
    at = random.randrange(len(lease) - 1)  # the last letter has bits that do not count
    other = random.choice([each for each in _LETTERS if each != lease[at]])
    return f"{lease[:at]}{other}{lease[at + 1 :]}"


async def _flood(address: str, path: str, rate: float, lease: str, answers: Counter[str]) -> None:
    loop = asyncio.get_running_loop()
    async with ClientSession(connector=TCPConnector(limit=1)) as http:
        at = loop.time()
        while True:
            at = max(at + _CONNECTIONS / rate, loop.time() - 0.1)
            await asyncio.sleep(at - loop.time())
            credential = changed(lease) if lease else make_key()
            try:
                async with http.request(
                    "POST" if lease else "GET",
                    f"http://{address}{path}",
                    data=b"not an image" if lease else None,
                    headers={"Authorization": f"Bearer {credential}"},
                ) as response:
                    answers[str(response.status)] += 1
            except ClientError as error:
                answers[type(error).__name__] += 1


async def main(rate: float, lease: str, workers: list[str], proxy: str) -> None:
    answers = {each: Counter[str]() for each in (*workers, proxy)}
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    asked = [(each, "/v1/classify/colours", lease) for each in workers]
    asked.append((proxy, "/v1/resolve/colours", ""))
    tasks = [
        asyncio.create_task(_flood(address, path, rate, token, answers[address]))
        for address, path, token in asked
        for _ in range(_CONNECTIONS)
    ]
    print("flooding", flush=True)
    await ended.wait()
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks)
    print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    rate, file, *workers, proxy = sys.argv[1:]
    asyncio.run(main(float(rate), Path(file).read_text(), workers, proxy))
