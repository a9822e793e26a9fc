"""The steps of the demo: train, serve, stream, lose a worker, and count."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import ClientSession

from fingerpost.client import Client
from fingerpost.deploy.demo.digits import write_digits
from fingerpost.deploy.local.cluster import LocalCluster, LocalClusterConfig
from fingerpost.errors import FingerpostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fingerpost.worker.training import Progress, TrainResult

__all__ = ["CURL_LINES", "DemoResult", "free_port", "stream_held_out", "train_digits"]

# How often the held-out images are streamed, so that the stream is long enough to lose a worker.
_ROUNDS: Final = 12
_CONCURRENCY: Final = 16

# Passes over the images. Left alone the training ended after 22, with 99.7 % of the held-out images
# right; after 8, 10, 12 and 15 these were 99.4, 98.6, 100 and 100 % (one run each).
_EPOCHS: Final = 12

# Shell commands, run exactly as shown; {proxy} is host:port, {image} a file.
CURL_LINES: Final = (
    'curl -s -F data=@{image} "$(curl -s {proxy})"',
    "curl -s -L -H 'Expect: 100-continue' --data-binary @{image} {proxy}/v1/classify/digits",
)


@dataclass(slots=True, kw_only=True)
class DemoResult:
    """The figures of the demo's stream.

    Attributes:
        images: images with a result, or with an error.
        right: images whose best prediction is right.
        lost: images that got an error instead of a prediction.
        seconds: duration of the stream.
        killed: the worker that was killed.
        retried: images that were sent more than once.
        share: answered images by the address of the worker.
        errors: lost images by the code of the error.
        direct_bytes: image bytes that were sent to workers.
        proxy_bytes: image bytes that reached the proxy.
    """

    images: int = 0
    right: int = 0
    lost: int = 0
    seconds: float = 0.0
    killed: str = ""
    retried: int = 0
    share: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    direct_bytes: int = 0
    proxy_bytes: int = 0

    @property
    def accuracy(self) -> float:
        """Share of the answered images whose best prediction is right, 0 to 1."""
        return self.right / max(1, self.images - self.lost)

    @property
    def images_per_s(self) -> float:
        """Images a second over the whole stream, including the loss of the worker."""
        return self.images / max(1e-9, self.seconds)

    @property
    def direct_share(self) -> float:
        """Share of the image bytes that did not go through the proxy, 0 to 1."""
        return self.direct_bytes / max(1, self.direct_bytes + self.proxy_bytes)


def train_digits(data: Path, out: Path, progress: Progress) -> tuple[TrainResult, Path]:
    """Write the digits to `data` and train on them; return the result and the held-out folder."""
    from fingerpost.worker.training import FitConfig, NetworkConfig, TrainConfig, train

    digits = write_digits(data)
    config = TrainConfig(
        images=digits.train,
        out=out,
        network=NetworkConfig(backbone="small"),
        fit=FitConfig(epochs=_EPOCHS),
    )
    return train(config, progress), digits.held_out


async def stream_held_out(
    cluster: LocalCluster, files: list[Path], progress: Callable[[int, int], None]
) -> DemoResult:
    """Stream the held-out images to the workers, and kill one worker meanwhile.

    Args:
        cluster: ready, with workers of the service `digits`.
        files: images, each in a folder named after its class.
        progress: called with the images done and the number of all.
    """
    total = len(files) * _ROUNDS
    result = DemoResult()

    def paths() -> Iterator[Path]:
        for _ in range(_ROUNDS):
            yield from files

    proxy_before = await _proxy_body_bytes(cluster.proxy_url)
    async with Client(cluster.proxy_url) as client:
        await client.classify(files[0], "digits")  # connect and resolve before the clock runs
        started = time.monotonic()
        stream = client.stream(paths(), model="digits", concurrency=_CONCURRENCY)
        async with aclosing(stream) as answers:
            async for answer in answers:
                result.images += 1
                progress(result.images, total)
                if answer.error is not None:
                    result.lost += 1
                    result.errors[answer.error.code] += 1
                    continue
                result.right += answer.label == Path(answer.key).parent.name
                result.retried += answer.attempts > 1
                result.share[answer.address] += 1
                if result.images == total // 3:
                    result.killed = f"{cluster.workers[0].name} (pid {cluster.workers[0].pid})"
                    cluster.workers[0].kill()
        result.seconds = time.monotonic() - started
        result.direct_bytes = client.stats.bytes_sent
    result.proxy_bytes = await _proxy_body_bytes(cluster.proxy_url) - proxy_before
    return result


async def run_curl(line: str, proxy: str, image: Path) -> tuple[str, str]:
    """Run one of `CURL_LINES` in a shell; return the command and its output.

    Raises:
        FingerpostError: curl failed.
    """
    command = line.format(proxy=proxy, image=image)
    process = await asyncio.create_subprocess_shell(
        command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    if process.returncode != 0:
        raise FingerpostError(f"{command} ended with status {process.returncode}: {output!r}")
    return command, output.decode("utf-8", "replace").strip()


def free_port(wanted: int) -> int:
    """`wanted` if that port is free on loopback, else any free port."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise FingerpostError("no port is free on 127.0.0.1")


def cluster_config(model: Path) -> LocalClusterConfig:
    """Three workers, and the default ports where they are free."""
    return LocalClusterConfig(
        models=(model,),
        services=(model.name,),
        workers=3,
        proxy_port=free_port(12480),
        registry_port=free_port(12481),
        worker_options=("--threads", "1", "--log-level", "warning"),
    )


async def _proxy_body_bytes(proxy_url: str) -> int:
    async with (
        ClientSession() as session,
        session.get(f"{proxy_url}/metrics") as response,
    ):
        for line in (await response.text()).splitlines():
            if line.startswith("fingerpost_proxy_body_bytes_total "):
                return int(float(line.split()[1]))
    return 0
