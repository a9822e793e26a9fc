"""The secure demo's cluster: what each of its processes is started with."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fingerpost.deploy.demo.demo import free_port
from fingerpost.deploy.key_rotation import RegistryKeys
from fingerpost.deploy.local.cluster import LocalCluster, LocalClusterConfig
from fingerpost.deploy.local.consul import ConsulPorts, LocalConsul
from fingerpost.deploy.options.registry import registry_arguments
from fingerpost.deploy.options.tls import server_tls_arguments
from fingerpost.registry import open_registry
from fingerpost.registry.config import RegistryConfig
from fingerpost.security.key_files import load_signing_key

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from fingerpost.deploy.demo.secure.files import SecureFiles
    from fingerpost.security.tls import TlsConfig

__all__ = ["SecureCluster", "secure_cluster"]

_WORKERS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureCluster:
    """The running cluster.

    Attributes:
        local: its processes.
        files: certificates, keys and policy.
        tokens: files with Consul's ACL tokens, by kind; none with the embedded registry.
    """

    local: LocalCluster
    files: SecureFiles
    tokens: dict[str, Path]

    @property
    def registry_url(self) -> str:
        """Its URL for HTTP requests."""
        return self.local.registry_url.removeprefix("consul+")


@contextlib.asynccontextmanager
async def secure_cluster(
    model: Path, files: SecureFiles, consul: Path | None, on_line: Callable[[str, str], None]
) -> AsyncGenerator[SecureCluster]:
    """A registry, a proxy and two workers with everything on.

    Args:
        model: the model's folder, named as the service.
        files: see `SecureFiles`.
        consul: the program `consul`; None uses the embedded registry.
        on_line: see `LocalCluster`.

    Raises:
        ConfigurationError: a process cannot run.
    """
    async with contextlib.AsyncExitStack() as stack:
        url, tokens = None, {}
        if consul is not None:
            agent = LocalConsul(
                consul,
                files.folder,
                ConsulPorts(**dict(zip(("https", "server", "gossip"), _ports(3), strict=True))),
                tls=files.registry,
                client=files.camera,
                service=model.name,
            )
            await stack.enter_async_context(agent)
            url, tokens = agent.url, agent.tokens
            await _publish(files, url, tokens["keys"])
        config = _config(model, files, url, tokens)
        local = await stack.enter_async_context(LocalCluster(config, on_line))
        yield SecureCluster(local=local, files=files, tokens=tokens)


def _config(
    model: Path, files: SecureFiles, url: str | None, tokens: dict[str, Path]
) -> LocalClusterConfig:
    common = (f"--callers={files.callers}", f"--audit-log={files.audit_log}", "--log-level=warning")
    reads = _access(files, files.proxy, tokens.get("reader"), believes=True)
    writes = _access(files, files.worker, tokens.get("worker"), believes=False)
    return LocalClusterConfig(
        models=(model,),
        services=(model.name,),
        workers=_WORKERS,
        proxy_port=free_port(12480),
        registry_port=free_port(12481),
        registry=url,
        registry_config=reads,
        tls=files.camera,
        registry_options=(
            *server_tls_arguments(files.registry, asks_workers=True),
            f"--audit-log={files.audit_log}",
            "--log-level=warning",
        ),
        proxy_options=(
            *server_tls_arguments(files.proxy, asks_workers=True),
            *registry_arguments(reads),
            f"--lease-key={files.lease_key}",
            "--lease-bind",
            *common,
        ),
        worker_options=(
            *server_tls_arguments(files.worker, asks_workers=False),
            *registry_arguments(writes),
            "--require-lease",
            f"--registration-key={files.registration_key}",
            "--threads=1",
            *common,
        ),
    )


def _access(
    files: SecureFiles, shows: TlsConfig, token: Path | None, *, believes: bool
) -> RegistryConfig:
    """Access to the registry with a certificate and a token; `believes` checks signatures."""
    return RegistryConfig(
        token_file=None if token is None else str(token),
        ca_file=str(files.ca),
        cert_file=shows.cert,
        key_file=shows.key,
        registration_keys=str(files.registration_keys) if believes else None,
    )


async def _publish(files: SecureFiles, url: str, token: Path) -> None:
    """As `fingerpost keys publish`: a proxy's token may only read what is published."""
    registry = open_registry(url, _access(files, files.proxy, token, believes=False))
    try:
        await RegistryKeys(registry).write(load_signing_key(files.lease_key).public)
    finally:
        await registry.aclose()


def _ports(count: int) -> list[int]:
    """Different ports that are free on loopback."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
