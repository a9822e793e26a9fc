"""Images from a client on a machine with systemd, without pause."""

from __future__ import annotations

import json
import subprocess
import time

from tests.machines.machine import Machine

__all__ = ["Load"]

_CODE = """
import asyncio, collections, io, json, sys
from PIL import Image
from fingerpost.client import Client
from fingerpost.errors import FingerpostError
file = io.BytesIO()
Image.new("RGB", (64, 64), (40, 40, 40)).save(file, "PNG")
async def main():
    used, errors = collections.Counter(), []
    async with Client("http://10.79.0.1:12480", "http://10.79.0.2:12480") as client:
        reading = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        while not reading.done():
            try:
                worker = (await client.classify(file.getvalue(), model="digits")).address
                used[worker] += 1
                if used[worker] == 1:
                    print(worker, flush=True)
            except FingerpostError as error:
                errors.append(str(error))
            await asyncio.sleep(0.01)
    print(json.dumps([used, errors]))
asyncio.run(main())
"""


class Load:
    """Images from a client on a machine, one after the other, while inside `with`.

    It begins when the first one has been answered.

    Attributes:
        used: how many images each worker answered, by its address.
        errors: the error of each image that failed.
    """

    def __init__(self, machine: Machine) -> None:
        self._command = machine.command("/opt/fingerpost/bin/python3", "-c", _CODE)
        self.used: dict[str, int] = {}
        self.errors: list[str] = []
        self.seconds = 0.0
        self._seen: set[str] = set()

    @property
    def done(self) -> int:
        return sum(self.used.values())

    @property
    def failed(self) -> int:
        return len(self.errors)

    def __str__(self) -> str:
        return f"{self.done} images in {self.seconds:.0f} s, {self.failed} failed"

    def __enter__(self) -> Load:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self._read()
        self.seconds = -time.monotonic()
        return self

    def until_used(self, worker: str) -> None:
        """Wait until a worker has answered an image: one on that host, or at that `host:port`."""
        while worker not in self._seen:
            self._read()

    def _read(self) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._process.communicate()
        address = line.strip()
        self._seen |= {address, address.rpartition(":")[0]}

    def __exit__(self, *_: object) -> None:
        self.seconds += time.monotonic()
        output, errors = self._process.communicate(timeout=60)
        assert output, errors
        self.used, self.errors = json.loads(output.splitlines()[-1])
