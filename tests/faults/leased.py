"""A cluster whose workers want leases, and whose proxy knows its callers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fingerpost.client import Client
from fingerpost.security.callers.policy_editor import add_caller
from fingerpost.security.key_files import save_signing_key
from fingerpost.security.keys import SigningKey
from tests.faults.field import Field
from tests.faults.load import SERVICE, Load
from tests.support.optional import not_none
from tests.support.ports import free_port
from tests.support.processes import Process, Processes
from tests.support.sleeper import Sleeper
from tests.support.waiting import until

__all__ = ["LIFE_S", "Leased"]

LIFE_S = 10.0
"""How long a lease lasts: as short as can be."""

_WORKERS = 2


@dataclass
class Leased:
    """Two workers that start at once, and a proxy.

    Attributes:
        field: the workers.
        key: the file of the proxy's key.
        api_key: of the caller `camera`.
        proxy: the proxy's URL.
    """

    field: Field
    key: Path
    api_key: str
    proxy: str
    folder: Path
    process: Process | None = None

    @classmethod
    async def start(
        cls,
        processes: Processes,
        folder: Path,
        registry: str,
        launch: Callable[[Field], Process] = lambda field: field.launch("--require-lease"),
    ) -> Leased:
        """Bring all of it up.

        Args:
            folder: for keys and the model.
            registry: URL of a registry that runs.
            launch: starts a worker.
        """
        key, callers = folder / "lease.key", folder / "callers.toml"
        save_signing_key(SigningKey.generate(), key)
        api_key = add_caller(callers, "camera", tenant="plant", role="").key
        field = Field(processes, Sleeper(folder / SERVICE, 0.0).folder, registry)
        port = free_port()
        leased = cls(field, key, api_key, f"http://127.0.0.1:{port}", folder)
        await leased.start_proxy()
        for process in [launch(field) for _ in range(_WORKERS)]:
            await field.adopt(process)
        await until(lambda: all(leased.accepted()), "the workers have the proxy's key")
        return leased

    async def start_proxy(self) -> None:
        """Start the proxy, at the same port each time; it is waited for by the first images."""
        port = self.proxy.rpartition(":")[2]
        self.process = self.field.processes.start(
            *("proxy", "--port", port, "--registry", self.field.registry, "--service", SERVICE),
            *("--lease-key", self.key, "--lease-life", LIFE_S),
            *("--callers", self.folder / "callers.toml"),
        )

    def client(self) -> Client:
        """A client of the proxy."""
        return Client(self.proxy, api_key=self.api_key)

    def leases(self, load: Load) -> set[str]:
        """What the load's clients carry now."""
        return {not_none(each._resolver).lease(SERVICE) for each in load.clients.values()}

    def accepted(self) -> list[frozenset[str]]:
        """The keys whose leases each worker accepts now, by its log."""
        found = [
            re.findall(r"leases of these keys are accepted: (.*)", each.process.output())
            for each in self.field.workers
        ]
        return [frozenset(lines[-1].split(", ") if lines else ()) for lines in found]

    def end(self) -> None:
        """End all processes."""
        for worker in self.field.workers:
            worker.process.end()
        if self.process is not None:
            self.process.end()
