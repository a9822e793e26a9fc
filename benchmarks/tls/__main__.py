"""`python -m benchmarks.tls`: images by TLS against plain HTTP, in turn, on kept connections.

Two workers whose model does nothing, one with TLS; the client in this process. So all that is
measured is HTTP and TLS: with a model that takes time, less is lost. *OpenSSL alone* is what the
library takes to encrypt and to decrypt as many bytes in memory, without sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.harness.environments import ROOT
from benchmarks.harness.results import Goal, report
from benchmarks.harness.servers import free_port, running
from benchmarks.harness.slices import CONNECTIONS, cpu_s, send_images, slice_of, worker
from fingerpost.client import Client
from fingerpost.client.transport.tls_socket import open_tls
from fingerpost.security.tls import ClientTls, TlsConfig

_SIZES = {"20 KB": 20_000, "640 KB": 640_000}
_HANDSHAKES = 100


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed P-256 certificate for 127.0.0.1, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
               "-nodes", "-days", "2", "-subj", "/CN=bench", "-addext",
               "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


async def _connection_us(
    worker: tuple[int, int], context: ssl.SSLContext, *, resume: bool
) -> dict[str, float]:
    """CPU time of both processes for a connection with one small answer; how many were resumed."""
    process, port = worker
    session: ssl.SSLSession | None = None
    cpu, theirs, reused = time.process_time(), cpu_s(process), 0
    loop = asyncio.get_running_loop()
    for _ in range(_HANDSHAKES):
        kept: list[ssl.SSLSession | None] = []
        plain = socket.socket()
        plain.setblocking(False)
        await loop.sock_connect(plain, ("127.0.0.1", port))
        tls = await open_tls(plain, context, "127.0.0.1", session if resume else None, kept.append)
        reused += bool(tls.session_reused)
        tls.sendmsg([b"GET /load HTTP/1.1\r\nHost: bench\r\n\r\n"])
        while True:
            await asyncio.sleep(0.0005)
            try:
                tls.recv(1 << 14)
                break
            except BlockingIOError:
                continue
        tls.close()
        session = kept[0]
    cost_s = time.process_time() - cpu + cpu_s(process) - theirs
    return {"CPU us of both": cost_s / _HANDSHAKES * 1e6, "resumed": reused / (_HANDSHAKES - 1)}


def _openssl_us(size: int, cert: Path, key: Path) -> dict[str, float]:
    """What OpenSSL takes in memory to encrypt, and to decrypt, so many bytes."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    client = ssl.create_default_context(cafile=str(cert))
    client.check_hostname = False
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sender, receiver = client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)
    for _ in range(2):
        for side in (sender, receiver):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    body, room = os.urandom(size), bytearray(1 << 14)
    encrypt, decrypt = [], []
    for _ in range(40):
        start = time.thread_time()
        view = memoryview(body)
        while view:
            view = view[sender.write(view) :]
        middle = time.thread_time()
        left = size
        while left:
            read: Any = receiver.read(1 << 14, room)
            left -= read
        encrypt.append(middle - start)
        decrypt.append(time.thread_time() - middle)
    return {
        "encrypt us": statistics.median(encrypt) * 1e6,
        "decrypt us": statistics.median(decrypt) * 1e6,
    }


async def _measure(
    workers: dict[str, tuple[int, int]], cert: Path, seconds: float, pairs: int
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    tls = TlsConfig(ca=str(cert))
    figures: dict[str, dict[str, float]] = {}
    ratios: dict[str, float] = {}
    clients = {
        "plain": Client(f"static://127.0.0.1:{workers['plain'][1]}"),
        "TLS": Client(f"static://127.0.0.1:{workers['TLS'][1]}?scheme=https", tls=tls),
    }
    for size, count in _SIZES.items():
        body = os.urandom(count)
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in clients}
        for client in clients.values():
            await send_images(client, body, seconds)
        for pair in range(pairs):
            for name in ("plain", "TLS") if pair % 2 else ("TLS", "plain"):
                each = await slice_of(clients[name], workers[name][0], body, seconds)
                taken[name].append(each)
        for name, slices in taken.items():
            figures[f"{size}: {name}"] = {
                key: statistics.median(each[key] for each in slices) for key in slices[0]
            }
        ratios[size] = statistics.median(
            t["images/s"] / p["images/s"] for t, p in zip(taken["TLS"], taken["plain"], strict=True)
        )
    context = ClientTls(tls).for_host()
    for name, resume in {"whole": False, "resumed": True}.items():
        costs = await _connection_us(workers["TLS"], context, resume=resume)
        figures[f"a connection, {name} handshake"] = costs
    for client in clients.values():
        await client.aclose()
    return figures, ratios


def main() -> int:
    """Measure, report, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--note", nargs="*", default=(), help="sentences for the record")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cert, key = certificate(folder)
        registry = free_port()
        program = [sys.executable, "-m", "fingerpost.deploy.cli"]
        stack.enter_context(running([*program, "registry", "--port", registry], cwd=ROOT))
        workers = {
            "plain": stack.enter_context(worker(registry)),
            "TLS": stack.enter_context(worker(registry, "--tls-cert", cert, "--tls-key", key)),
        }
        figures, ratios = asyncio.run(_measure(workers, cert, given.seconds, given.pairs))
        alone = _openssl_us(_SIZES["640 KB"], cert, key)
    figures["640 KB: OpenSSL alone"] = alone
    plain = figures["640 KB: plain"]
    cost_us = plain["client CPU us/image"] + plain["worker CPU us/image"]
    possible = cost_us / (cost_us + alone["encrypt us"] + alone["decrypt us"])
    figures["640 KB: OpenSSL alone"]["possible share of plain"] = possible
    kept = report(
        "tls",
        "TLS against plain HTTP, 16 connections, a model that does nothing",
        figures,
        [
            Goal(claim="640 KB: images/s by TLS / plain", ratio=ratios["640 KB"], bound=0.85),
            Goal(
                claim="640 KB: images/s by TLS / what OpenSSL alone would leave",
                ratio=ratios["640 KB"] / possible,
                bound=0.85,
            ),
            Goal(
                claim="a client that comes again: share of handshakes that are resumed",
                ratio=figures["a connection, resumed handshake"]["resumed"],
                bound=1.0,
            ),
        ],
        versions={"OpenSSL": ssl.OPENSSL_VERSION.split()[1]},
        notes=given.note,
        settings={"seconds": given.seconds, "pairs": given.pairs, "connections": CONNECTIONS},
    )
    return not kept


if __name__ == "__main__":
    sys.exit(main())
