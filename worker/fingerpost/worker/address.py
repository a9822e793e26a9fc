"""The address that clients are given: which one it is, and whether it can be one."""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError, PeerError
from fingerpost.registry import Instance, ModelInfo
from fingerpost.registry.address_policy import AddressPolicy
from fingerpost.registry.instance import is_host
from fingerpost.registry.load_client import LoadClient
from fingerpost.security.tls import OwnServerTls

if TYPE_CHECKING:
    from fingerpost.security.tls import TlsConfig
    from fingerpost.worker.config import WorkerConfig

__all__ = ["advertised_host", "is_own_address", "reachable_host"]

logger = logging.getLogger(__name__)

# The first host of a registry's URL; ZooKeeper's may have several.
_FIRST_HOST = re.compile(r"[a-z+]+://(?:[^@/]*@)?(\[[^\]]+\]|[^:,/?]+)", re.IGNORECASE)
# How long the worker waits for its own answer at the address that clients are given.
_OWN_ANSWER_S = 1.0


def advertised_host(config: WorkerConfig) -> str:
    """The host that clients are given.

    Logs a warning where it is loopback, and the registry is on another machine.

    Raises:
        ConfigurationError: it cannot be valid, or every client would reject it.
    """
    host = config.registration.advertise or reachable_host(config.host, config.registry)
    if not is_host(host):
        raise ConfigurationError(
            f"{host!r} cannot be given to clients: {_invalid(host)}; name the address or host name "
            "by which they reach this machine with --advertise (registration.advertise)"
        )
    probe = Instance(
        id="x", service="x", host=host, ports={"http": 1}, models=(_MODEL,)
    )  # the policy is about instances
    policy = AddressPolicy.parse(config.registry_config.allow_networks)
    if (rejection := policy.rejection(probe)) is not None:
        raise ConfigurationError(
            f"{host!r} cannot be given to clients, which reject it: {rejection.message}; name "
            "another one with --advertise (registration.advertise)"
        )
    registry = _registry_host(config.registry)
    if (host == "localhost" or _is(host, "is_loopback")) and not _on_this_machine(registry):
        logger.warning(
            "clients are given %s, which is reachable from this machine only, but the registry is "
            "at %s: listen on 0.0.0.0 (--host), or name another address with --advertise",
            host,
            registry,
        )
    return host


_MODEL = ModelInfo(name="x", versions=("1",))


def _invalid(host: str) -> str:
    bare = host.strip("[]")
    if host != bare and is_host(bare):
        return f"write it without brackets, {bare}"
    if host.endswith(".") and is_host(host.rstrip(".")):
        return f"leave out the dot at its end, {host.rstrip('.')}"
    name, colon, port = host.rpartition(":")
    if colon and port.isdigit() and is_host(name.strip("[]")):
        return f"leave out the port, {name.strip('[]')}"
    if "_" in host:
        return "a host name has letters, digits and hyphens, and no underscore"
    return "it is neither an IP address nor a host name"


def reachable_host(host: str, registry: str) -> str:
    """The address for clients of a worker that listens on `host`.

    That is `host` itself, or where it is a wildcard the local address of the route to the registry.
    Where the registry is on this machine, as Consul's agent is, it is the local address of the
    default route.

    Raises:
        ConfigurationError: this machine has no such address.
    """
    if not _is(host, "is_unspecified"):
        return host
    target = _registry_host(registry)
    if target == "localhost" or _is(target, "is_loopback"):
        # Addresses for documentation (RFC 5737, RFC 3849), so that the default route decides.
        target = "2001:db8::1" if ":" in host else "192.0.2.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))  # chooses a route, and sends nothing
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ConfigurationError(
            f"the address of this machine that clients can reach is not known ({error.strerror}): "
            "name it with --advertise"
        ) from error


async def is_own_address(instance: Instance, tls: TlsConfig | None = None) -> bool:
    """Whether this process itself answers at the address that clients are given; else logs why.

    `tls` is its own.
    """
    async with LoadClient(
        timeout_s=_OWN_ANSWER_S, max_concurrent=1, tls=OwnServerTls(tls)
    ) as client:
        try:
            report = await client.get(instance)
        except PeerError as error:
            logger.warning(
                "this worker does not get its own answer at %s, the address that clients are "
                "given (%s); name another one with --advertise, if they do not either",
                instance.address,
                error,
            )
            return False
    if report.boot_id == instance.boot_id:
        return True
    logger.error(
        "another process answers at %s, the address that clients are given: name the address of "
        "this one with --advertise",
        instance.address,
    )
    return False


def _registry_host(registry: str) -> str:
    if registry.startswith("kubernetes:"):  # of a pod, whose default route is the cluster's network
        return "localhost"
    match = _FIRST_HOST.match(registry)
    return match[1].strip("[]") if match else "localhost"


def _on_this_machine(host: str) -> bool:
    """Whether an address is this machine's; True where only a name server knows."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        return True
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def _is(host: str, what: str) -> bool:
    try:
        return bool(getattr(ipaddress.ip_address(host), what))
    except ValueError:
        return False
