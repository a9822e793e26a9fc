"""The authority of all certificates is replaced, while clients send images by mutual TLS."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from fingerpost.client import Client
from fingerpost.errors import FingerpostError
from fingerpost.security.ca import Authority, Issued, make_authority
from fingerpost.security.tls import TlsConfig
from tests.faults.field import Field
from tests.faults.load import SERVICE, Load
from tests.faults.table import Table
from tests.support.colours import encoded
from tests.support.ports import free_port
from tests.support.processes import Processes
from tests.support.sleeper import Sleeper

_DOMAIN = "example.org"
# Files are read again within a second after they change, for new connections.
_READ_S = 1.5


@pytest.mark.timeout(90)
async def test_an_authority_that_is_rotated(
    processes: Processes, table: Table, tmp_path: Path
) -> None:
    row = table.row("26", "the authority and all certificates rotated")
    authority = make_authority(tmp_path / "ca", _DOMAIN)
    issued = {
        "registry": authority.issue("registry"),
        "proxy": authority.issue("proxy"),
        "worker": authority.issue("worker", SERVICE),
        "client": authority.issue("client", "camera"),
    }
    believes = ("--tls-ca", authority.certificate, "--trust-domain", _DOMAIN)

    def shown(name: str) -> tuple[object, ...]:
        made = issued[name]
        pair = ("--tls-cert", made.certificate, "--tls-key", made.key)
        return (*pair, "--tls-client-ca", authority.certificate)

    def access(name: str) -> tuple[object, ...]:
        made = issued[name]
        pair = ("--registry-cert-file", made.certificate, "--registry-key-file", made.key)
        return ("--registry-ca-file", authority.certificate, *pair)

    ports = free_port(), free_port()
    registry, proxy = (f"https://127.0.0.1:{port}" for port in ports)
    model = Sleeper(tmp_path / SERVICE, 0.0).folder
    field = Field(processes, model, registry)
    running = [
        processes.start("registry", "--port", ports[0], *shown("registry"), *believes),
        processes.start(
            *("proxy", "--port", ports[1], "--registry", registry, "--service", SERVICE),
            *(*shown("proxy"), *believes, *access("proxy")),
        ),
    ]
    try:
        launched = [field.launch(*shown("worker"), *access("worker")) for _ in range(2)]
        for process in launched:
            await field.adopt(process)
        old = _copy(issued["client"], tmp_path / "old")
        tls = _tls(authority, issued["client"])
        clients = {name: Client(proxy, tls=tls) for name in ("one", "another")}
        async with field.traffic(clients, pause_s=0.05) as load:
            assert await _taken(proxy, _tls(authority, old)), "it is a right one, to begin with"
            both = authority.renew_itself(new_key=True)
            await asyncio.sleep(_READ_S)
            for made in issued.values():
                both.renew(made.certificate, new_key=True)
            await asyncio.sleep(_READ_S)
            both.renew_itself(retire_old=True)
            await asyncio.sleep(_READ_S)
            retired_at = time.monotonic()
            late = {"a client that comes late": Client(proxy, tls=tls)}
            async with Load(late, concurrency=2, pause_s=0.05) as more:
                await more.settle(field.addresses, calls=20)
            taken = await _taken(proxy, _tls(authority, old))
            kept = sum(each.began > retired_at and not each.error for each in load.calls)
    finally:
        for process in (*(each.process for each in field.workers), *running):
            process.end()
    for each in (load, more):
        row.load(each)
    row.at_most("slowest image", load.latencies(0.0)[-1], load.timeout_s, " s")
    row.at_most("images sent with a certificate of the old authority", taken, 0)
    row.done = (
        "`fingerpost ca renew --new-key`, then each certificate of registry, proxy, two workers "
        "and clients with another key, then `--retire-old`, under load by two clients by mutual "
        "TLS and by one that came late; no process was restarted"
    )
    row.note(f"{kept} images by the two clients after the old authority was withdrawn")
    assert kept > 20
    row.check()


def _tls(authority: Authority, made: Issued) -> TlsConfig:
    return TlsConfig(
        cert=str(made.certificate),
        key=str(made.key),
        ca=str(authority.certificate),
        trust_domain=_DOMAIN,
    )


def _copy(made: Issued, folder: Path) -> Issued:
    """What somebody has stolen."""
    folder.mkdir()
    certificate = Path(shutil.copy(made.certificate, folder))
    return Issued(
        certificate=certificate,
        key=Path(shutil.copy(made.key, folder)),
        names=made.names,
        expires=made.expires,
    )


async def _taken(proxy: str, tls: TlsConfig) -> int:
    """How many images of a client with this certificate are answered: one, or none."""
    async with Client(proxy, tls=tls) as client:
        try:
            await client.classify(encoded("red"), SERVICE, timeout_s=3.0)
        except FingerpostError:
            return 0
    return 1
