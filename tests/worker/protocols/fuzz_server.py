"""A worker service in a process of its own, whose event loop and memory can be watched."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from tempfile import TemporaryDirectory
from typing import IO, Any

from fingerpost.worker.config import RequestConfig, StreamConfig
from fingerpost.worker.eventloop import run_main
from fingerpost.worker.images import ImageConfig
from fingerpost.worker.serving.malloc import limit_malloc_arenas
from tests.support.pauses import LoopPauses
from tests.support.rig import serving

__all__ = ["SETTINGS", "Server"]

# Short limits, so that a body that stops is answered soon.
SETTINGS = {
    "requests": RequestConfig(body_timeout_s=0.3, max_bytes=400_000),
    "streams": StreamConfig(idle_timeout_s=0.3, heartbeat_s=0.1, window=8),
    "shared_memory": True,
}
# The limits that workers have, but for what a test would wait for.
AS_DEPLOYED = {"images": ImageConfig(), "requests": RequestConfig(body_timeout_s=1.0)}


async def _serve(settings: dict[str, Any], uds: str) -> None:
    """Serve until standard input ends; after each line of it, write the pauses of the loop."""
    limit_malloc_arenas()
    async with serving(uds=uds, grpc=True, zmq=True, **settings) as rig:
        pauses = LoopPauses()
        print(rig.port, rig.grpc_port, rig.zmq_port, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(pauses.take()[-1000:]), flush=True)
        await pauses.close()


class Server:
    """A worker service in a process of its own, inside `with`.

    Args:
        as_deployed: with the limits that workers have by default.
        log: gets what it writes to standard error.

    Attributes:
        port, grpc_port, zmq_port: where it listens.
        uds: the path of its Unix socket.
    """

    def __init__(self, *, as_deployed: bool = False, log: IO[str] | None = None) -> None:
        command = [sys.executable, "-m", "tests.worker.protocols.fuzz_server"]
        self._folder = TemporaryDirectory(prefix="fingerpost-")
        self.uds = f"{self._folder.name}/http.sock"
        command += [self.uds, *["--as-deployed"] * as_deployed]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        self.pid = self._process.pid
        self.port, self.grpc_port, self.zmq_port = map(int, self._said().split())

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def pauses(self) -> list[float]:
        """How long its loop was held at a time since the last call: seconds, the longest last."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: list[float] = json.loads(self._said())
        return found

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


if __name__ == "__main__":
    run_main(_serve(AS_DEPLOYED if "--as-deployed" in sys.argv else SETTINGS, sys.argv[1]))
