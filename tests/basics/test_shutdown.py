"""How a process ends by signals, whatever it is doing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.shell

PROCESS = """
import asyncio, collections, itertools, {loop} as loop
from fingerpost.basics.shutdown import ShutdownSignals

async def main():
    signals = ShutdownSignals()
    print("ready", flush=True)
    await asyncio.sleep(0.01)
    if {held}:
        collections.deque(itertools.repeat(0), maxlen=0)  # in C, for ever
    await signals.wait()
    print("first", flush=True)
    await asyncio.sleep(60)

loop.run(main())
"""


def started(*, loop: str, held: bool) -> subprocess.Popen[str]:
    code = PROCESS.format(loop=loop, held=held)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_process_whose_loop_is_held(
    loop: str, number: signal.Signals
) -> None:
    with started(loop=loop, held=True) as process:
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(number)
        assert process.wait(5) == -number


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_waited_for_and_any_second_one_ends(
    loop: str, first: signal.Signals, second: signal.Signals
) -> None:
    with started(loop=loop, held=False) as process:
        process.send_signal(first)
        assert process.stdout is not None
        assert process.stdout.readline() == "first\n"
        began = time.monotonic()
        process.send_signal(second)
        assert process.wait(30) == -second
        assert time.monotonic() - began < 20
