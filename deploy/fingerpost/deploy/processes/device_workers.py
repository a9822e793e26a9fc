"""Several worker processes on this machine, one or more for each device (GPU or CPU)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

from fingerpost.basics.printable import printable_json
from fingerpost.basics.service_manager import ServiceManager
from fingerpost.basics.shutdown import ShutdownSignals
from fingerpost.deploy.console import err
from fingerpost.deploy.processes.notify_socket import NotifySocket
from fingerpost.deploy.processes.supervised import SupervisedProcess
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fingerpost.worker.backends.devices import Placement

__all__ = ["DeviceWorkers", "process_arguments", "run_device_workers"]

# Options that each process gets a value of its own for; all of them take a value.
_PER_PROCESS: Final = (
    "--device",
    "--devices",
    "--memory-fraction",
    "--processes-per-device",
    "--port",
    "--grpc-port",
    "--zmq-port",
    "--uds",
)
_NO_PORTS: Final[Mapping[str, int]] = MappingProxyType({})
# How often what the processes have told is looked at.
_LOOK_S: Final = 0.25


class DeviceWorkers:
    """One `fingerpost worker` process for each placement, while inside `async with`.

    A process that a signal ended, such as the kernel's when memory is short, is restarted by
    `SupervisedProcess`, after 0.2 to 10 s. A process that ends with an error of its own, such as
    for a GPU that fell off the bus, is restarted after `retry_s`, while the others go on. `run`
    raises only when all processes have failed.

    `async with` starts all of them; its end drains all of them and waits until they have ended.

    Args:
        placements: one for each process.
        arguments: arguments of `fingerpost worker` for all of them; see `process_arguments`.
        port: the port of the first process; the next ones count up from it. 0 picks a free port
            for each.
        more_ports: likewise for other transports, by their option, such as `--grpc-port`.
        uds: path of the Unix sockets, to which `.0`, `.1` and so on are added; None for none.
        grace_s: how long a process may take to drain, in seconds.
        on_line: called with a process's name and each line that it writes.
        retry_s: pause before a process that failed is restarted, in seconds.
        service_manager: is told when all processes are registered that have not failed, and what
            they do. A process whose engine or event loop stalls for its `watchdog_s` is killed and
            started again, while the others go on.
    """

    def __init__(
        self,
        placements: Sequence[Placement],
        arguments: Sequence[str],
        *,
        port: int,
        grace_s: float,
        on_line: Callable[[str, str], None],
        retry_s: float = 60.0,
        service_manager: ServiceManager | None = None,
        more_ports: Mapping[str, int] = _NO_PORTS,
        uds: str | None = None,
    ) -> None:
        self._service_manager = service_manager or ServiceManager()
        self._reports = NotifySocket(watchdog_s=self._service_manager.watchdog_s)
        self._was_ready = False
        self._grace_s = grace_s
        self._on_line = on_line
        self._retry_s = retry_s
        self._failed: dict[int, ConfigurationError] = {}
        self.processes = [
            SupervisedProcess(
                f"{number}.{placement.option[:12]}",
                process_arguments(
                    arguments,
                    placement,
                    port and port + number,
                    {option: first and first + number for option, first in more_ports.items()},
                    uds and f"{uds}.{number}",
                ),
                on_line,
                environment=lambda: self._reports.environment,
            )
            for number, placement in enumerate(placements)
        ]
        count = len(self.processes)
        firsts = {"--port": port, **more_ports}
        for option, first in firsts.items():
            if first + count > 65536:
                raise ConfigurationError(
                    f"{option} {first}: {count} processes from there on end above 65535"
                )
        for (one, first), (other, second) in combinations(firsts.items(), 2):
            if first and second and abs(first - second) < count:
                raise ConfigurationError(
                    f"{one} {first} and {other} {second}: {count} processes count up from each, "
                    f"so put {count} between them"
                )

    async def __aenter__(self) -> Self:
        """Start all processes."""
        await self._reports.__aenter__()
        try:
            for process in self.processes:
                await process.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drain all processes at once."""
        self._service_manager.stopping(f"draining {len(self.processes)} processes")
        await asyncio.gather(*(process.stop(self._grace_s) for process in self.processes))
        await self._reports.__aexit__()

    async def run(self) -> None:
        """Keep the processes running until cancelled.

        Raises:
            ConfigurationError: all processes have failed; this is the last one's error.
        """
        tasks = [
            asyncio.create_task(self._keep(number, process), name=f"keep {process.name}")
            for number, process in enumerate(self.processes)
        ]
        informing = [
            asyncio.create_task(self._watch_processes(), name="reports"),
            asyncio.create_task(
                self._service_manager.keep_informed(self.status_line, lambda: True), name="systemd"
            ),
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in (*tasks, *informing):
                task.cancel()
            await asyncio.gather(*tasks, *informing, return_exceptions=True)

    def status_line(self) -> str:
        """What the processes do, on one line."""
        reports = [(each.name, self._reports.report(each.pid)) for each in self.processes]
        ready = sum(report.ready for _, report in reports)
        each = "; ".join(f"{name}: {report.status}" for name, report in reports)
        return f"{ready} of {len(reports)} processes ready; {each}"

    async def _watch_processes(self) -> None:
        """Tell when the processes are ready, and kill one that stalls."""
        limit_s = self._reports.watchdog_s
        while True:
            await asyncio.sleep(_LOOK_S)
            self._reports.forget_others({each.pid for each in self.processes if each.pid})
            for process in self.processes:
                silent_s = self._reports.silent_s(process.pid)
                if limit_s is not None and silent_s > limit_s:
                    self._on_line(
                        process.name,
                        f"has stalled for {silent_s:.0f} s: it is killed and started again",
                    )
                    process.kill()
            waiting = any(
                number not in self._failed and not self._reports.report(process.pid).ready
                for number, process in enumerate(self.processes)
            )
            if not waiting and not self._was_ready:
                self._was_ready = True
                self._service_manager.ready(self.status_line())

    async def _keep(self, number: int, process: SupervisedProcess) -> None:
        while True:
            try:
                await process.wait_failed()
            except ConfigurationError as error:
                self._failed[number] = error
                if len(self._failed) == len(self.processes):
                    raise
            else:
                return  # it was stopped
            self._on_line(process.name, f"failed; the next try is in {self._retry_s:g} s")
            await asyncio.sleep(self._retry_s)
            await process.start()
            del self._failed[number]


def process_arguments(
    arguments: Sequence[str],
    placement: Placement,
    port: int,
    more_ports: Mapping[str, int] = _NO_PORTS,
    uds: str | None = None,
) -> list[str]:
    """The command line of one process, made from that of `fingerpost worker` for all devices.

    Args:
        arguments: the arguments after `worker`.
        placement: the process's device and its share of the device's memory.
        port: the port for this process; 0 picks a free one.
        more_ports: likewise for other transports, by their option.
        uds: the path of its Unix socket; None for none.
    """
    kept = ["worker"]
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in _PER_PROCESS:
            skip = True
        elif not argument.startswith(tuple(f"{each}=" for each in _PER_PROCESS)):
            kept.append(argument)
    kept += ["--device", placement.option, "--port", str(port)]
    for option, number in more_ports.items():
        kept += [option, str(number)]
    if uds is not None:
        kept += ["--uds", uds]
    if placement.memory_fraction is not None:
        kept += ["--memory-fraction", f"{placement.memory_fraction:g}"]
    return kept


def run_device_workers(
    placements: Sequence[Placement],
    arguments: Sequence[str],
    *,
    port: int,
    grace_s: float,
    follow_parent: bool,
    service_manager: ServiceManager,
    more_ports: Mapping[str, int | None] = _NO_PORTS,
    uds: str | None = None,
) -> None:
    """Run `fingerpost worker` for each placement, until SIGTERM; then drain all of them.

    Args:
        placements, arguments, port, more_ports, uds, grace_s, service_manager: see
            `DeviceWorkers`.
        follow_parent: see `ShutdownSignals`.

    Raises:
        ConfigurationError: none of them can run.
    """

    async def run() -> None:
        signals = ShutdownSignals(follow_parent=follow_parent)
        workers = DeviceWorkers(
            placements,
            arguments,
            port=port,
            grace_s=grace_s,
            on_line=_print_line,
            service_manager=service_manager,
            more_ports={each: first for each, first in more_ports.items() if first is not None},
            uds=uds,
        )
        async with workers:
            await signals.cancel_on_signal(workers.run())

    asyncio.run(run())


def _print_line(name: str, line: str) -> None:
    """Mark a line with its process's name; a line of the access log is JSON and stays as it is."""
    if line.startswith('{"time":'):
        sys.stdout.write(f"{printable_json(line)}\n")
        sys.stdout.flush()
    else:
        err.print(f"{name} | {line}")
