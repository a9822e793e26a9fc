"""Whether the workers of a new node can run with their options, before any of them starts.

Nothing is started or written, so that a wrong value changes nothing on the machine.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fingerpost.deploy.doctor.finding import Finding, error, warning
from fingerpost.deploy.join.plan import UNIT, UNITS
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fingerpost.deploy.processes.worker_process import PreparedWorker

__all__ = ["NodeWorkers"]

# The folders that the unit makes and its sandbox lets it write to, before and after a restart.
_WRITABLE: Final = tuple(
    Path(each) for each in ("/run/fingerpost-workers", "/var/cache/fingerpost-workers")
)
_DROP_INS: Final = UNITS / f"{UNIT}.d"
_WRITTEN: Final = ("uds", "access_log", "audit_log")
_READ: Final = (
    "admin_token_file", "callers", "lease_keys", "registration_key", "zmq_clients", "zmq_key",
)  # fmt: skip
_FIRST_FREE_PORT: Final = 1024
# A folder with more files is not looked through to its end.
_MOST_FILES: Final = 10_000


class NodeWorkers:
    """The workers that the unit of `fingerpost join` would start.

    Args:
        prepared: what `fingerpost worker` makes of their options.
        values: the values of these options, by the names of its arguments.
        models: the folder of models.

    Attributes:
        grpc_port, zmq_port, uds: where else they shall listen; None is nowhere.

    Raises:
        ConfigurationError: a worker would not start with these.
    """

    def __init__(
        self, prepared: PreparedWorker, values: Mapping[str, Any], *, models: Path
    ) -> None:
        from fingerpost.worker.address import advertised_host

        self._prepared, self._values = prepared, values
        self._models = models
        config = self._prepared.config
        self.grpc_port, self.zmq_port, self.uds = config.grpc_port, config.zmq.port, config.uds
        for name, number in (("--grpc-port", self.grpc_port), ("--zmq-port", self.zmq_port)):
            if number and number < _FIRST_FREE_PORT:
                raise ConfigurationError(
                    f"{name} {number} is a port for which the service has no right: use one from "
                    f"{_FIRST_FREE_PORT} on"
                )
        for name in _WRITTEN:
            self._check_writable(name)
        for file in self._read_files():
            if not file.is_file():
                raise ConfigurationError(
                    f"the workers' options name {file}, and there is no such file"
                )
        if config.registration.advertise is not None:
            advertised_host(config)

    @property
    def processes(self) -> int:
        """How many there are, one on each GPU."""
        return len(self._prepared.placements)

    def check_start(self) -> None:
        """Do what a worker does before it asks the registry and loads a model.

        Raises:
            ConfigurationError: a file is not valid, or an address is not one of this machine.
        """
        from fingerpost.registry.http.app import bind
        from fingerpost.security.callers.policy_file import read_policy
        from fingerpost.worker.address import advertised_host
        from fingerpost.worker.serving.lease_keys import LeaseKeys
        from fingerpost.worker.tasks.loading import load_model
        from fingerpost.worker.worker import Worker

        config = self._prepared.config
        loading = self._prepared.placements[0].load_config()
        Worker(self._prepared.source, lambda files: load_model(files, loading), config)
        advertised_host(config)
        if config.callers.policy is not None:
            read_policy(Path(config.callers.policy))
        if config.leases.keys_file is not None:
            LeaseKeys.from_file(config.leases.keys_file)
        bind(config.host, 0).close()

    def model_names(self) -> list[str]:
        """The models that they shall serve, sorted.

        Raises:
            ConfigurationError: there are none.
        """
        return sorted(self._prepared.source.scan())

    def look(self) -> Iterator[Finding]:
        """What is known of their files and address."""
        try:
            self.model_names()
        except ConfigurationError as failed:
            text = str(failed).partition(": give it as")[0]  # as options that join has not
            yield error("models", text, "name the folder that has them as NAME/VERSION/")
        for path in (self._models, *self._read_files()):
            if (closed := _closed_to_others(path)) is not None:
                mode = closed.stat().st_mode & 0o777
                yield error(
                    "rights",
                    f"{closed} (mode {mode:04o}) cannot be read by the service, whose user exists "
                    "only while it runs",
                    f"chmod -R o+rX {closed}, or make a secret a credential: docs/nodes.md",
                )
        advertise = self._prepared.config.registration.advertise
        if advertise is not None and (problem := _elsewhere(advertise)):
            yield warning(
                "advertise",
                problem,
                "it is right behind NAT or a load balancer; else give an address of this machine",
            )

    def _read_files(self) -> list[Path]:
        """The files that options after `--` name."""
        given = (self._values.get(name) for name in _READ)
        return [Path(each) for each in given if each is not None]

    def _check_writable(self, name: str) -> None:
        value = self._values.get(name)
        if value is None or value == "-":
            return
        if _DROP_INS.is_dir() or any(Path(value).is_relative_to(each) for each in _WRITABLE):
            return
        option = name.replace("_", "-")
        raise ConfigurationError(
            f"--{option} {value} is where the service may not write: use "
            f"{_WRITABLE[0] / Path(value).name}, or open the folder by a drop-in of its unit, in "
            f"{_DROP_INS} (ReadWritePaths=)"
        )


def _closed_to_others(path: Path) -> Path | None:
    """The first folder on the way to a path, or file in it, that only its owner can read."""
    for folder in reversed(path.parents):
        if folder.exists() and not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    if not path.exists():
        return None  # whoever needs it says so
    count = 0
    for place, folders, files in os.walk(path, followlinks=False):
        for name in ("", *folders, *files):
            count += 1
            each = Path(place) / name
            if count > _MOST_FILES or not each.exists():
                continue
            needed = stat.S_IROTH | (stat.S_IXOTH if each.is_dir() else 0)
            if each.stat().st_mode & needed != needed:
                return each
    if path.is_file() and not path.stat().st_mode & stat.S_IROTH:
        return path
    return None


def _elsewhere(host: str) -> str:
    """Why an address is not one of this machine; empty if it is."""
    import socket

    from fingerpost.registry.own_address import is_own_address

    try:
        addresses = {each[4][0] for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError as failed:
        return f"--advertise {host} is not known to the name server ({failed.strerror})"
    if any(is_own_address(str(each)) for each in addresses):
        return ""
    return f"--advertise {host} is not an address of this machine"
