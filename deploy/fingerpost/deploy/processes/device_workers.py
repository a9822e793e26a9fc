"""Several worker processes on this machine, one or more for each device."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Self

from fingerpost.deploy.processes.supervised import Child
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fingerpost.worker.backends.devices import Placement

__all__ = ["DeviceWorkers", "child_arguments"]

# What each child is told for itself instead; all of them take a value.
_OWN: Final = ("--device", "--devices", "--memory-fraction", "--processes-per-device", "--port")


class DeviceWorkers:
    """Running from `async with` on; left, every process has drained and ended.

    A process that a signal ended, such as the kernel's when memory is short, is started again by
    `Child`, after 0.2 to 10 s. One that ends with an error of its own, such as a GPU that fell off
    the bus, is started again after `retry_s`, while the others go on. Only where none is left does
    `run` give up, with the last one's error, for whoever started this to decide.

    Args:
        placements: one for each process.
        arguments: of `fingerpost worker`, for all of them; see `child_arguments`.
        port: the first process's, the next one's is one higher; 0 picks a free one for each.
        grace_s: how long a process may take to drain.
        say: called with a process's name and each line it writes.
        retry_s: see above.
    """

    def __init__(
        self,
        placements: Sequence[Placement],
        arguments: Sequence[str],
        *,
        port: int,
        grace_s: float,
        say: Callable[[str, str], None],
        retry_s: float = 60.0,
    ) -> None:
        self._grace_s = grace_s
        self._say = say
        self._retry_s = retry_s
        self._failed: dict[int, ConfigurationError] = {}
        self.children = [
            Child(
                f"{number}.{placement.option[:12]}",
                child_arguments(arguments, placement, port and port + number),
                say,
            )
            for number, placement in enumerate(placements)
        ]
        if port + len(self.children) > 65536:
            raise ConfigurationError(
                f"--port {port}: {len(self.children)} processes from there on end above 65535"
            )

    async def __aenter__(self) -> Self:
        """Start all of them."""
        try:
            for child in self.children:
                await child.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drain all of them at once."""
        await asyncio.gather(*(child.stop(self._grace_s) for child in self.children))

    async def run(self) -> None:
        """Keep them running until cancelled.

        Raises:
            ConfigurationError: every one of them failed.
        """
        tasks = [
            asyncio.create_task(self._keep(number, child), name=f"keep {child.name}")
            for number, child in enumerate(self.children)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, number: int, child: Child) -> None:
        while True:
            try:
                await child.failed()
            except ConfigurationError as error:
                self._failed[number] = error
                if len(self._failed) == len(self.children):
                    raise
            else:
                return  # it was stopped
            self._say(child.name, f"failed; the next try is in {self._retry_s:g} s")
            await asyncio.sleep(self._retry_s)
            await child.start()
            del self._failed[number]


def child_arguments(arguments: Sequence[str], placement: Placement, port: int) -> list[str]:
    """One process's command line, from that of `fingerpost worker` as it was given for all.

    Args:
        arguments: what stands behind `worker`.
    """
    kept = ["worker"]
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in _OWN:
            skip = True
        elif not argument.startswith(tuple(f"{each}=" for each in _OWN)):
            kept.append(argument)
    kept += ["--device", placement.option, "--port", str(port)]
    if placement.memory_fraction is not None:
        kept += ["--memory-fraction", f"{placement.memory_fraction:g}"]
    return kept
