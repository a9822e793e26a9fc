"""What depends on a worker's own certificate: how Consul checks it, and whether clients take it."""

from __future__ import annotations

import dataclasses
import ipaddress
import logging
from typing import TYPE_CHECKING

from fingerpost.security.tls.spiffe import wrong_identity
from fingerpost.worker.address import advertised_host

if TYPE_CHECKING:
    from fingerpost.registry.config import RegistryConfig
    from fingerpost.security.tls import ServerTls
    from fingerpost.security.tls.certificate import OwnCertificate
    from fingerpost.worker.config import WorkerConfig

__all__ = ["check_for_tls", "warn_of_identity"]

logger = logging.getLogger(__name__)


def check_for_tls(config: WorkerConfig, tls: ServerTls | None) -> RegistryConfig:
    """The configuration of the worker's registry, with a check that its certificate passes.

    Consul's agent checks a certificate by the host name of the URL, or by `TLSServerName`. A worker
    that asks for a client certificate, or whose certificate has SPIFFE ids only, reports to the
    agent itself instead (TTL). The agent never skips the check of the certificate.
    """
    registry, check = config.registry_config, config.registry_config.check
    others = ("zookeeper:", "kubernetes:", "static:")
    if tls is None or config.registry.startswith(others) or check.mode == "ttl":
        return registry
    host = advertised_host(config)
    name = _expected_name(tls.certificate, host)
    if tls.mutual and check.mode == "http":
        why = (
            "this worker asks clients for a certificate; where the agent has one "
            "(enable_agent_tls_for_checks), use --check https"
        )
    elif name is None:
        why = f"its certificate names neither {host} nor another host"
    else:
        given = dataclasses.replace(check, tls_server_name=name or None)
        return dataclasses.replace(registry, check=given)
    logger.warning("this worker reports to Consul's agent, and is not checked by it: %s", why)
    return dataclasses.replace(registry, check=dataclasses.replace(check, mode="ttl"))


def warn_of_identity(tls: ServerTls | None, service: str) -> None:
    """Say that clients which check SPIFFE ids will not take this worker for one of a service.

    A certificate without an id of Fingerpost's form is not meant for such clients.
    """
    if tls is not None and (problem := wrong_identity(tls.certificate.spiffe_ids, service)):
        logger.warning("clients and proxies with --trust-domain send nothing here: %s", problem)


def _expected_name(cert: OwnCertificate, host: str) -> str | None:
    """The name to check instead of `host`; empty for `host` itself, None if there is none."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        _, _, domain = host.lower().partition(".")
        if {host.lower(), f"*.{domain}"} & {each.lower() for each in cert.dns_names}:
            return ""
    else:
        if any(ipaddress.ip_address(each) == address for each in cert.addresses):
            return ""
    return next((each for each in cert.dns_names if "*" not in each), None)
