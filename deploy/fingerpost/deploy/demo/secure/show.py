"""The steps of the secure demo: start, send, attack, and count."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import deque
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.client import Client
from fingerpost.deploy.console import err, out, print_json
from fingerpost.deploy.demo.secure.attackers import Attackers, Attempt
from fingerpost.deploy.demo.secure.cluster import SecureCluster, secure_cluster
from fingerpost.deploy.demo.secure.files import TRUST_DOMAIN, SecureFiles
from fingerpost.registry.config import RegistryConfig

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SecureResult", "run_secure_demo"]

_ON: Final = (
    "mutual TLS: every process and client shows a certificate, workers one with their service",
    "callers: the proxy asks for an API key; its policy has the tenants `plant` and `guests`",
    "leases: workers take images only with one, bound to its model, tenant and certificate",
    "registrations: workers sign theirs, and the proxy leaves out the others",
    "an audit log of orders and refusals",
)


class SecureResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        registry: which registry was used.
        images: the images of an honest caller.
        right: those whose best prediction is right.
        lost: those that got an error.
        attempts: the attackers', and what each got.
        to_impostor: connections that anyone made to the registered impostor.
        audited: refusals in the audit log.
    """

    registry: str
    images: int
    right: int
    lost: int
    attempts: list[Attempt]
    to_impostor: int
    audited: int

    @property
    def safe(self) -> bool:
        """Whether every attacker was refused, and no honest image was lost."""
        refused = all(each.refused for each in self.attempts)
        return refused and not self.to_impostor and not self.lost and self.images > 0


def run_secure_demo(
    model: Path, images: list[Path], *, consul: Path | None, keep: bool, json: bool
) -> SecureResult:
    """Start a cluster with everything on, send images as an honest caller, and attack it.

    Args:
        model: the model's folder, named as the service.
        images: each in a folder named after its class.
        consul: the program `consul`; by default the one on `PATH`, else the embedded registry.
        keep: keep the cluster until Ctrl-C.
        json: print one JSON document instead of a table.

    Raises:
        ConfigurationError: a process cannot run, or the extra `security` is not installed.
    """
    found = shutil.which("consul") if consul is None else str(consul)
    log: deque[str] = deque(maxlen=100)
    with tempfile.TemporaryDirectory(prefix="fingerpost-secure-") as folder:
        work = _run(
            model,
            images,
            Path(folder),
            None if found is None else Path(found),
            lambda name, line: log.append(f"{name} | {line}"),
            keep=keep,
            json=json,
        )
        try:
            return asyncio.run(work)
        except BaseException:
            for line in log:
                err.print(line)
            raise


async def _run(
    model: Path,
    images: list[Path],
    folder: Path,
    consul: Path | None,
    on_line: Callable[[str, str], None],
    *,
    keep: bool,
    json: bool,
) -> SecureResult:
    service = model.name
    err.rule("2  Make an authority, certificates, keys and a policy", align="left")
    files = SecureFiles.make(folder, service)
    err.print(f"trust domain {TRUST_DOMAIN}, all of it in {folder} until the demo ends")
    registry = _registry(consul)
    err.rule("3  Start registry, proxy and 2 workers with everything on", align="left")
    err.print(f"registry: {registry}")
    async with secure_cluster(model, files, consul, on_line) as cluster:
        with err.status("loading and warming up the model in every worker..."):
            await cluster.local.wait_ready(timeout_s=60.0)
        for line in _ON:
            err.print(f"- {line}")
        async with Attackers(cluster, service, images[-1]) as attackers:
            err.rule("4  Attack it", align="left")
            attempts = await attackers.try_all()
            err.rule("5  Send images as an honest caller: the camera of `plant`", align="left")
            right, errors = await _send_honestly(cluster, service, images)
            result = SecureResult(
                registry=registry,
                images=len(images),
                right=right,
                lost=len(errors),
                attempts=attempts,
                to_impostor=attackers.impostor_connections,
                audited=await _audited(files.audit_log),
            )
        if json:
            print_json(result)
        else:
            _print(result)
        if keep:
            await _keep(cluster, service)
    return result


async def _send_honestly(
    cluster: SecureCluster, service: str, images: list[Path]
) -> tuple[int, list[str]]:
    """How many images were seen rightly, and the errors of those that were not answered."""
    files = cluster.files
    # The client checks the signatures itself, too: it need not believe the proxy.
    signed = RegistryConfig(registration_keys=str(files.registration_keys))
    right, errors = 0, list[str]()
    async with Client(
        cluster.local.proxy_url,
        tls=files.camera,
        api_key=files.camera_key,
        registry_config=signed,
    ) as client:
        first = await client.classify(images[0], service)
        err.print(f"{images[0].name} is {first.label!r} ({first.score:.1%}), says {first.worker}")
        async with aclosing(client.stream(images, model=service)) as answers:
            async for answer in answers:
                if answer.error is not None:
                    errors.append(str(answer.error))
                else:
                    right += answer.label == Path(answer.key).parent.name
    for error in sorted(set(errors))[:5]:
        err.print(error)
    return right, errors


async def _audited(path: Path) -> int:
    """The refusals in the audit log, once it has all of them; those left out are counted, too."""
    count = -1
    for _ in range(20):
        before, count = count, await asyncio.to_thread(_count_refusals, path)
        if count == before:
            break
        await asyncio.sleep(0.25)
    return count


def _count_refusals(path: Path) -> int:
    return path.read_text().count('"result":"refused"') if path.exists() else 0


def _registry(consul: Path | None) -> str:
    if consul is None:
        return (
            "the embedded one, which takes only clients with a certificate; with `consul` on PATH, "
            "or --consul FILE, it is Consul with ACLs"
        )
    return f"Consul ({consul}), whose ACLs deny by default; each token may do one thing"


def _print(result: SecureResult) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("ATTACKER", "TRIED", "GOT"):
        table.add_column(column, no_wrap=True, overflow="fold")
    for each in result.attempts:
        table.add_row(each.attacker, each.tried, each.answer if each.refused else "IN")
    out.print(table)
    out.print(
        f"honest caller: {result.images - result.lost} of {result.images} images answered, "
        f"{result.right} of them rightly; {result.to_impostor} connections to the impostor"
    )
    refused = sum(each.refused for each in result.attempts)
    out.print(
        f"attackers: {refused} of {len(result.attempts)} refused; {result.audited} refusals are in "
        "the audit log"
    )


async def _keep(cluster: SecureCluster, service: str) -> None:
    from fingerpost.basics.shutdown import ShutdownSignals

    files, proxy = cluster.files, cluster.local.proxy_url
    tls = f"--tls-ca {files.ca} --tls-cert {files.camera.cert} --tls-key {files.camera.key}"
    err.print("The cluster stays up; Ctrl-C stops it, and removes its keys. Try, as the camera:")
    err.print(f"  export FINGERPOST_API_KEY={files.camera_key}")
    for command in ("status", f"classify IMAGE --model {service}"):
        err.print(
            f"  fingerpost {command} --proxy {proxy} {tls} --trust-domain {TRUST_DOMAIN} "
            f"--registration-keys {files.registration_keys}"
        )
    err.print(f"  tail {files.audit_log}")
    await ShutdownSignals().cancel_on_signal(cluster.local.run())
