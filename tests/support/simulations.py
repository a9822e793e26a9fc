"""Simulated clusters in processes of their own, begun before the tests that wait for them.

Called as `python -m tests.support.simulations FOLDER PID NUMBER COUNT`, see `Simulations.begin`.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import psutil
from benchmarks.routing.scenario import Result, Scenario
from benchmarks.routing.simulator import simulate

from tests.support.parallel import Turns

__all__ = ["Simulations", "simulates"]

F = TypeVar("F", bound=Callable[..., object])

_ROOT = Path(__file__).parents[2]
_EVERY_S = 0.5  # a look whether the run lives


def simulates(scenarios: Callable[..., Iterable[Scenario]]) -> Callable[[F], F]:
    """Decorate a test with what it simulates, as a function of its parameters.

    The test gets the results, in the same order, as `results`.
    """

    def decorate(test: F) -> F:
        test.simulates = scenarios  # type: ignore[attr-defined]
        return test

    return decorate


class Simulations:
    """Simulates in the background, as many at a time as there are cores.

    A simulation is seeded, so that its result does not depend on the process or the order. They
    have the lowest priority, and take the time that other tests wait; those that measure speed
    have the machine to themselves, as from other tests. Their order is from the last to the first:
    a test that comes before its result simulates itself, and both meet in the middle.

    Args:
        folder: that the processes of a run have in common, in which `Turns` are taken too.
        several: whether there are several.
    """

    def __init__(self, folder: Path, *, several: bool) -> None:
        self._folder = folder / "simulations"
        self._folder.mkdir(exist_ok=True)
        self._several = several
        self._processes: list[subprocess.Popen[bytes]] = []

    def begin(self, scenarios: Iterable[Scenario]) -> None:
        """Begin them, unless another process of this run has."""
        try:
            with (self._folder / "scenarios").open("xb") as file:
                pickle.dump(list(dict.fromkeys(scenarios)), file)
        except FileExistsError:
            return
        # They end with the run, which in several processes is longer than the life of this one.
        run = os.getppid() if self._several else os.getpid()
        count = min(4, os.cpu_count() or 1)
        for number in range(count):
            arguments = [str(self._folder), str(run), str(number), str(count)]
            process = subprocess.Popen(
                [sys.executable, "-m", __name__, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # what fails here fails in the test as well
                cwd=_ROOT,
            )
            self._processes.append(process)

    def result(self, scenario: Scenario) -> Result:
        """What was simulated, or is now."""
        try:
            written = _place(self._folder, scenario).read_bytes()
        except FileNotFoundError:
            return simulate(scenario)
        result: Result = pickle.loads(written)  # noqa: S301  # ours
        return result

    def close(self) -> None:
        """End what this process has begun, unless others may use it."""
        for process in self._processes:
            if self._several:
                process.returncode = 0  # nobody waits for it
            else:
                process.kill()
                process.wait()


def _place(folder: Path, scenario: Scenario) -> Path:
    """Where the result of a scenario is: its fields are numbers and names."""
    return folder / hashlib.sha256(repr(scenario).encode()).hexdigest()


def _main(folder: Path, run: int, number: int, count: int) -> None:
    """Simulate each `count`-th scenario, while the run lives."""
    os.nice(19)

    def look(*_: object) -> None:
        if not psutil.pid_exists(run):
            os._exit(0)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _EVERY_S, _EVERY_S)
    scenarios = pickle.loads((folder / "scenarios").read_bytes())  # noqa: S301  # ours
    for scenario in scenarios[::-1][number::count]:
        place = _place(folder, scenario)
        with Turns(folder.parent).turn(alone=False):
            result = simulate(scenario)
        new = place.with_suffix(".new")
        new.write_bytes(pickle.dumps(result))
        new.rename(place)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
