"""Several worker processes on this machine, one or more for each device (GPU or CPU)."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Final, Self

from fingerpost.basics.printable import printable_json
from fingerpost.deploy.console import err
from fingerpost.deploy.processes.supervised import SupervisedProcess
from fingerpost.errors import ConfigurationError
from fingerpost.registry.shutdown import ShutdownSignals

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
)


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
        grace_s: how long a process may take to drain, in seconds.
        on_line: called with a process's name and each line that it writes.
        retry_s: pause before a process that failed is restarted, in seconds.
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
    ) -> None:
        self._grace_s = grace_s
        self._on_line = on_line
        self._retry_s = retry_s
        self._failed: dict[int, ConfigurationError] = {}
        self.processes = [
            SupervisedProcess(
                f"{number}.{placement.option[:12]}",
                process_arguments(arguments, placement, port and port + number),
                on_line,
            )
            for number, placement in enumerate(placements)
        ]
        if port + len(self.processes) > 65536:
            raise ConfigurationError(
                f"--port {port}: {len(self.processes)} processes from there on end above 65535"
            )

    async def __aenter__(self) -> Self:
        """Start all processes."""
        try:
            for process in self.processes:
                await process.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drain all processes at once."""
        await asyncio.gather(*(process.stop(self._grace_s) for process in self.processes))

    async def run(self) -> None:
        """Keep the processes running until cancelled.

        Raises:
            ConfigurationError: all processes have failed; this is the last one's error.
        """
        tasks = [
            asyncio.create_task(self._keep(number, process), name=f"keep {process.name}")
            for number, process in enumerate(self.processes)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

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


def process_arguments(arguments: Sequence[str], placement: Placement, port: int) -> list[str]:
    """The command line of one process, made from that of `fingerpost worker` for all devices.

    Args:
        arguments: the arguments after `worker`.
        placement: the process's device and its share of the device's memory.
        port: the port for this process; 0 picks a free one.
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
) -> None:
    """Run `fingerpost worker` for each placement, until SIGTERM; then drain all of them.

    Args:
        placements, arguments, port, grace_s: see `DeviceWorkers`.
        follow_parent: see `ShutdownSignals`.

    Raises:
        ConfigurationError: none of them can run.
    """

    async def run() -> None:
        signals = ShutdownSignals(follow_parent=follow_parent)
        workers = DeviceWorkers(
            placements, arguments, port=port, grace_s=grace_s, on_line=_print_line
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
