"""All checks of a machine, one after the other."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Final

from fingerpost.deploy.doctor.cluster_checks import ClusterChecks
from fingerpost.deploy.doctor.credential_checks import check_credentials
from fingerpost.deploy.doctor.finding import Level, error, ok
from fingerpost.deploy.doctor.framework_checks import check_frameworks, installed_packages
from fingerpost.deploy.doctor.gpu_checks import check_gpus
from fingerpost.deploy.doctor.gpu_state import read_gpus
from fingerpost.deploy.doctor.grpc_checks import check_grpc, check_ports
from fingerpost.deploy.doctor.machine_checks import check_machine
from fingerpost.deploy.doctor.machine_state import read_machine
from fingerpost.deploy.doctor.model_checks import check_models
from fingerpost.deploy.doctor.serving_checks import check_serving
from fingerpost.deploy.doctor.socket_checks import check_socket

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from fingerpost.client.credential import Credential
    from fingerpost.deploy.doctor.finding import Finding
    from fingerpost.registry import RegistryConfig
    from fingerpost.security.tls.config import TlsConfig

__all__ = ["EXIT_ERRORS", "examine", "exit_status"]

EXIT_ERRORS: Final = 3
"""The exit status where a finding is an error; 1 and 2 are those of a command that cannot run."""


def examine(
    *,
    registry: str | None,
    registry_config: RegistryConfig,
    proxies: Sequence[str] = (),
    tls: TlsConfig | None = None,
    credential: Credential | None = None,
    models: Path | None = None,
    port: int = 0,
    grpc_port: int | None = None,
    xds_port: int | None = None,
    zmq_port: int | None = None,
    uds: str | None = None,
    processes: int = 1,
    running: bool = False,
    token_file: str | None = None,
    serving_s: float | None = None,
) -> list[Finding]:
    """Look at this machine, and at its cluster.

    Args:
        registry, registry_config, proxies, tls, credential, port: see `ClusterChecks`; without a
            registry and proxies, only the machine is looked at.
        models: the folder of its models.
        grpc_port: the port at which workers here shall serve gRPC; 0 is one that is not known, and
            None is none.
        xds_port: likewise that at which a proxy here shall serve xDS.
        zmq_port: likewise that at which workers here shall serve ZeroMQ.
        uds: the path at which workers here shall listen.
        running: whether the workers run already, and have their ports and sockets.
        token_file: the file of `credential`, if it has one.
        processes: how many workers there shall be, at `port` and those after it.
        serving_s: wait so long until the workers that run here serve; proxies are then asked
            whether they name them, in place of whether they reach a port.
    """
    machine = read_machine()
    gpus = read_gpus()
    found = [
        ok("python", f"Python {sys.version.split()[0]} at {sys.executable}"),
        *check_machine(machine, gpus=bool(gpus.gpus)),
        *check_gpus(gpus, cards=machine.cards, mps=machine.mps),
        *check_frameworks(installed_packages(), gpus),
    ]
    if models is not None:
        found += check_models(models)
    found += check_credentials(registry_config, tls, token_file)
    running = running or serving_s is not None
    if uds is not None:
        found += check_socket(uds, processes=processes, running=running)
    asked = {"grpc": grpc_port, "xds": xds_port, "zmq": zmq_port}
    grpc_ports = {kind: number for kind, number in asked.items() if number is not None}
    found += check_grpc(grpc_ports, port=port, running=running)
    if port and not running:
        # With a proxy, it is asked whether it reaches the first one.
        asked_back = registry is not None and bool(proxies)
        found += check_ports(range(port + asked_back, port + processes))
    if registry is not None:
        checks = ClusterChecks(
            registry=registry,
            registry_config=registry_config,
            proxies=proxies,
            tls=tls,
            credential=credential,
            port=port,
            name=machine.name,
            grpc_ports={
                kind: number for kind, number in grpc_ports.items() if number and kind != "zmq"
            },
        )
        if serving_s is None:
            found += asyncio.run(checks.run())
        else:
            found += asyncio.run(
                check_serving(
                    registry=registry,
                    registry_config=registry_config,
                    proxies=proxies,
                    tls=tls,
                    credential=credential,
                    within_s=serving_s,
                )
            )
    if os.name != "posix":
        found.append(error("system", f"{sys.platform} is not supported", "use Linux or macOS"))
    return found


def exit_status(findings: Iterable[Finding], *, strict: bool) -> int:
    """0, or `EXIT_ERRORS` where a finding is an error; with `strict` also for a warning."""
    worst = max((each.level for each in findings), default=Level.OK)
    return EXIT_ERRORS if worst >= (Level.WARNING if strict else Level.ERROR) else 0
