"""`python -m benchmarks.worker.leases`: what leases cost, and what a flood of wrong ones does.

Two workers, one of which requires leases, get the same requests in short slices in turn; so do two
clients, of which one carries a lease. Then honest images are timed while somebody else sends forged
leases, and in turn with that, while the same sender has none at all.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.harness.environments import installed
from benchmarks.harness.load import post
from benchmarks.harness.pictures import photo
from benchmarks.harness.processes import resident_bytes
from benchmarks.harness.results import Goal, report
from benchmarks.harness.servers import free_port, running, wait_for
from benchmarks.worker.nothing import nothing_model
from fingerpost.client import Client, ClientConfig
from fingerpost.security.caller import ANYBODY
from fingerpost.security.key_files import save_public_keys
from fingerpost.security.keys import SigningKey
from fingerpost.security.leases.config import LeaseConfig
from fingerpost.security.leases.signer import LeaseSigner

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

KEY = SigningKey.generate()
PROGRAM = [sys.executable, "-m", "fingerpost.deploy.cli"]
CONNECTIONS = 16
HONEST_PER_S = 200
_SLICE_S = 0.5


def lease(service: str) -> str:
    """A lease that lasts longer than all of this."""
    return (
        LeaseSigner(lambda: KEY, LeaseConfig(life_s=3600.0), time.time).sign(ANYBODY, service).token
    )


@contextlib.contextmanager
def workers(folder: Path) -> Iterator[dict[str, tuple[str, subprocess.Popen[bytes]]]]:
    """URL and process of a worker without and of one with `--require-lease`."""
    keys = folder / "keys.json"
    save_public_keys(KEY.public, keys)
    registry = free_port()
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(running([*PROGRAM, "registry", "--port", registry]))
        wait_for(f"http://127.0.0.1:{registry}/v1/status/leader", process)
        found = {}
        for name, options in (
            ("without", ()),
            ("with", ("--require-lease", "--lease-keys", keys)),
        ):
            port = free_port()
            command = [
                *PROGRAM, "worker", "--port", port, "--registry", f"http://127.0.0.1:{registry}",
                "--model", nothing_model(), "--lease", 0, "--max-per-client", 0, *options,
            ]  # fmt: skip
            process = stack.enter_context(running(command))
            wait_for(f"http://127.0.0.1:{port}/health/ready", process)
            found[name] = (f"http://127.0.0.1:{port}", process)
        yield found


def cpu_ns(pid: int) -> int:
    """Processor time of all threads, in nanoseconds: `/proc` has the finer figure."""
    tasks = Path(f"/proc/{pid}/task")
    return sum(int((each / "schedstat").read_text().split()[0]) for each in tasks.iterdir())


def shell_us(url: str, pid: int, body: Path, token: str | None) -> float:
    """The worker's processor time for each image, in microseconds."""
    before = cpu_ns(pid)
    load = post(
        f"{url}/v1/classify/nothing", body, connections=CONNECTIONS, seconds=1, bearer=token
    )
    return (cpu_ns(pid) - before) / load.requests / 1e3


async def client_us(pairs: int, body: bytes) -> list[tuple[float, float]]:
    """The client's processor time for each image, without and with a lease, in pairs."""
    found = []
    with running([sys.executable, "-m", "benchmarks.client.tiny_worker"]) as process:
        port = 0
        while not port:
            ports = [each.laddr.port for each in psutil.Process(process.pid).net_connections()]
            port = ports[0] if ports else 0
            await asyncio.sleep(0.05)
        config, source = ClientConfig(lease=lease("digits")), f"static://127.0.0.1:{port}"
        async with (
            Client(source) as without,
            Client(source, config=config) as carrying,
        ):
            for number in range(pairs + 1):
                order = (without, carrying) if number % 2 else (carrying, without)
                took = {each: await _slice_us(each, body) for each in order}
                found.append((took[without], took[carrying]))
    return found[1:]


async def _slice_us(client: Client, body: bytes, count: int = 600) -> float:
    left = count

    async def sender() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await client.classify(body, "digits")

    began = time.process_time()
    await asyncio.gather(*(sender() for _ in range(CONNECTIONS)))
    return (time.process_time() - began) / count * 1e6


def flood_p99s_ms(url: str, body: bytes, seconds: float) -> tuple[float, float]:
    """The honest client's p99 beside a flood without leases, and beside one of forged leases.

    Both floods come from 127.0.0.2. They run in turn for half a second each, so that whatever else
    the machine does disturbs both alike; one of them is stopped meanwhile.
    """
    port = url.rpartition(":")[2]
    head = (
        f"POST /v1/classify/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        f"Authorization: Bearer {lease('nothing')}\r\n\r\n"
    ).encode()
    taken: tuple[list[float], list[float]] = ([], [])
    with (
        running([sys.executable, "-c", _FLOOD, port, "none"]) as plain,
        running([sys.executable, "-c", _FLOOD, port, KEY.kid]) as forged,
        socket.create_connection(("127.0.0.1", int(port))) as honest,
    ):
        floods = plain, forged
        for number in range(round(4 * seconds)):
            which = number % 2
            floods[1 - which].send_signal(signal.SIGSTOP)
            floods[which].send_signal(signal.SIGCONT)
            end = time.perf_counter() + _SLICE_S
            while (began := time.perf_counter()) < end:
                honest.sendall(head + body)
                answer = honest.recv(65536)
                assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
                taken[which].append((time.perf_counter() - began) * 1e3)
                time.sleep(1 / HONEST_PER_S)
        for each in floods:
            each.send_signal(signal.SIGCONT)
    without, with_forged = (statistics.quantiles(each, n=100)[98] for each in taken)
    return without, with_forged


# One connection, and for each request a lease of its own, with the name of the real key.
_FLOOD = """
import base64, json, secrets, socket, sys
port, kid = int(sys.argv[1]), sys.argv[2]
head = json.dumps({"alg": "Ed25519", "kid": kid}).encode()
head = base64.urlsafe_b64encode(head).rstrip(b"=").decode()
connect = lambda: socket.create_connection(
    ("127.0.0.1", port), source_address=("127.0.0.2", 0)
)
peer = connect()
while True:
    token = f"{head}.{secrets.token_urlsafe(240)}.{secrets.token_urlsafe(63)}AA"
    right = f"Authorization: Bearer {token}\\r\\n" if kid != "none" else ""
    ask = "POST /v1/classify/nothing HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\n"
    ask += right + "\\r\\n"
    peer.sendall(ask.encode())
    if not peer.recv(65536):
        peer = connect()
"""


def main() -> int:
    """Measure, report, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20, help="of each flood")
    options = parser.parse_args()
    picture = photo(320, 240, 20)
    body = picture.read_bytes()
    pairs: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder, workers(Path(folder)) as found:
        urls = {name: (url, process.pid) for name, (url, process) in found.items()}
        tokens = {"without": None, "with": lease("nothing")}
        for number in range(options.pairs + 1):
            order = ("without", "with") if number % 2 else ("with", "without")
            took = {name: shell_us(*urls[name], picture, tokens[name]) for name in order}
            pairs.append((took["without"], took["with"]))
        url, pid = urls["with"]
        before = resident_bytes(pid)
        quiet, flooded = flood_p99s_ms(url, body, options.seconds)
        grown = (resident_bytes(pid) - before) / 1e6
    shell, client = pairs[1:], asyncio.run(client_us(options.pairs, body))
    figures = {
        "worker": _row(shell),
        "client": _row(client),
        "honest p99, a flood without leases": {"ms": quiet},
        "honest p99, a flood of forged leases": {"ms": flooded, "memory grown, MB": grown},
    }
    more = {name: statistics.median(b - a for a, b in each) for name, each in
            (("worker", shell), ("client", client))}  # fmt: skip
    ratio = statistics.median(b / a for a, b in shell)
    goals = [
        Goal(claim="worker, us more an image", ratio=more["worker"], bound=3.0, at_most=True),
        Goal(claim="client, us more an image", ratio=more["client"], bound=3.0, at_most=True),
        Goal(claim="worker with / without", ratio=ratio, bound=1.03, at_most=True),
        Goal(
            claim="honest p99, forged leases / no leases",
            ratio=flooded / quiet,
            bound=1.25,
            at_most=True,
        ),
        Goal(claim="memory grown in the flood, MB", ratio=grown, bound=5.0, at_most=True),
    ]
    kept = report(
        "leases",
        "Signed leases, images of 20 KB, 16 connections",
        figures,
        goals,
        versions=installed(Path(sys.executable), "aiohttp", "cryptography", "joserfc"),
        settings={"pairs": options.pairs, "seconds": options.seconds},
    )
    return 0 if kept else 1


def _row(pairs: list[tuple[float, float]]) -> dict[str, float]:
    return {
        "without, us": statistics.median(a for a, _ in pairs),
        "with, us": statistics.median(b for _, b in pairs),
        "more, us": statistics.median(b - a for a, b in pairs),
    }


if __name__ == "__main__":
    sys.exit(main())
