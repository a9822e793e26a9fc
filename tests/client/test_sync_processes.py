"""The synchronous client and processes: forks, copies, interrupts and exits, in real programs.

The programs run by themselves, because a fork of the tests' own process would take its threads'
locks along. Warnings are errors in them, but for the one of Python 3.12 about any fork of a process
with threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.colours import encoded
from tests.support.waiting import until

BEGIN = """
import faulthandler, gc, multiprocessing, os, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from fingerpost.client import ClientConfig, SyncClient
from fingerpost.registry import open_registry

proxy, red, green = sys.argv[1], *(bytes.fromhex(each) for each in sys.argv[2:4])

HUNG_S = 30  # then a process says where it is, and ends
faulthandler.register(signal.SIGALRM, chain=True)
signal.alarm(HUNG_S)

def ask(client, image):
    return client.classify(image, "colours").label

def child(use):
    pid = os.fork()
    if not pid:
        signal.alarm(HUNG_S)
        use()
        gc.collect()
        sys.exit(0)  # all of Python's own end, that it may complain
    return pid

def ended_well(*pids):
    codes = [os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in pids]
    assert codes == [0] * len(pids), codes
"""


@asynccontextmanager
async def running(
    program: str, folder: Path, proxy: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program; it must end without a word."""
    path = folder / "program.py"
    path.write_text(BEGIN + program)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", path),
        *(proxy, encoded("red").hex(), encoded("green").hex()),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # so that its children can be killed with it
    )
    try:
        yield process
        said, _ = await process.communicate()
        assert (said.decode(), process.returncode) == ("", 0)
    finally:
        with contextlib.suppress(ProcessLookupError):  # all of them have ended
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()  # for whoever has its output, too


async def run(program: str, folder: Path, proxy: str) -> None:
    async with running(program, folder, proxy):
        pass


FORKS = {
    "after use": """
client = SyncClient(proxy)
stats = client.stats
assert ask(client, red) == "red"
def use():
    assert client.stats.attempts == 0
    assert ask(client, green) == "green"
    assert [each.label for each in client.stream([red] * 20, "colours")] == ["red"] * 20
    client.close()
ended_well(child(use), child(use))
assert ask(client, red) == "red"
assert client.stats is stats and stats.attempts == 2
client.close()
""",
    "before use": """
client = SyncClient(proxy)
ended_well(child(lambda: ask(client, green)))
assert ask(client, red) == "red"
""",
    "of a fork": """
client = SyncClient(proxy)
assert ask(client, red) == "red"
def use():
    assert ask(client, green) == "green"
    ended_well(child(lambda: ask(client, red)))
    assert ask(client, green) == "green"
ended_well(child(use))
assert ask(client, red) == "red"
""",
    "without use in the child": """
client = SyncClient(proxy)
assert ask(client, red) == "red"
ended_well(child(lambda: None), child(client.close))
def forget():
    global client
    del client
ended_well(child(forget))
assert ask(client, red) == "red"
client.close()
""",
    "of a closed client": """
client = SyncClient(proxy)
assert ask(client, red) == "red"
client.close()
def use():
    try:
        ask(client, red)
    except RuntimeError as error:
        assert "this client was closed" in str(error)
    else:
        sys.exit(1)
ended_well(child(use))
""",
    "while other threads use it": """
with SyncClient(proxy) as client, ThreadPoolExecutor(4) as pool:
    images = [red, green] * 200
    labels = pool.map(lambda image: ask(client, image), images)
    ended_well(*(child(lambda: ask(client, green) == "green" or sys.exit(1)) for _ in range(8)))
    assert list(labels) == ["red", "green"] * 200
""",
    "while its thread imports a module": """
class Slow:
    def find_spec(self, name, *_):
        if name == "encodings.idna":  # which the first connection needs
            importing.set()
            forking.wait(30)

importing, forking = threading.Event(), threading.Event()
os.register_at_fork(before=forking.set)  # the last one registered is the first one called
sys.meta_path.insert(0, Slow())
client = SyncClient(proxy)
with ThreadPoolExecutor(1) as pool:
    label = pool.submit(ask, client, red)
    importing.wait()
    ended_well(child(lambda: ask(client, green)))
    assert label.result() == "red"
""",
    "while it streams": """
client = SyncClient(proxy)
stream = client.stream([red] * 100, "colours", ordered=True)
assert next(stream).label == "red"
def use():
    try:
        for result in stream:
            pass
    except RuntimeError as error:
        assert "begun before a fork" in str(error)
    else:
        sys.exit(1)
    assert ask(client, green) == "green"
ended_well(child(use), child(stream.close))
assert [each.index for each in stream] == list(range(1, 100))
""",
    "of one with a Registry": """
with SyncClient(proxy) as guide:
    workers = ",".join(each.address for each in guide.resolve("colours").instances)
client = SyncClient(registry=open_registry(f"static://{workers}"))
assert ask(client, red) == "red"
def use():
    try:
        ask(client, red)
    except RuntimeError as error:
        assert "pass the registry's URL" in str(error)
    else:
        sys.exit(1)
ended_well(child(use))
try:
    multiprocessing.reduction.ForkingPickler.dumps(client)
except TypeError as error:
    assert "pass the registry's URL" in str(error)
else:
    sys.exit(1)
client.close()
""",
}


@pytest.mark.parametrize("kind", FORKS)
async def test_a_fork(kind: str, colours: str, tmp_path: Path) -> None:
    await run(FORKS[kind], tmp_path, colours)


COPIES = """
client = SyncClient(proxy, config=ClientConfig(timeout_s=20))

def use(image):
    return ask(client, image), client.stats.attempts

def begin(copy):
    global client
    client = copy

if __name__ == "__main__":
    assert ask(client, red) == "red"
    context = multiprocessing.get_context("METHOD")
    with context.Pool(2, begin, (client,)) as pool:
        answers = pool.map(use, [red, green] * 10, chunksize=1)
        pool.close()
        pool.join()
    assert [label for label, _ in answers] == ["red", "green"] * 10
    assert max(attempts for _, attempts in answers) <= 20
    assert (ask(client, green), client.stats.attempts) == ("green", 2)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
async def test_a_pool_of_processes(method: str, colours: str, tmp_path: Path) -> None:
    await run(COPIES.replace("METHOD", method), tmp_path, colours)


async def test_many_threads_and_no_close(colours: str, tmp_path: Path) -> None:
    program = """
client = SyncClient(proxy)
def stream(at):
    found = list(client.stream([(at, [red, green][at % 2])] * 50, "colours", ordered=at % 3 == 0))
    return {(each.key, each.label) for each in found}, len(found)
with ThreadPoolExecutor(16) as pool:
    for at, (found, count) in enumerate(pool.map(stream, range(32))):
        assert (found, count) == ({(str(at), ["red", "green"][at % 2])}, 50)
assert client.stats.attempts == 1600 and client.stats.lookups <= 2
assert sum(each.name == "fingerpost client" for each in threading.enumerate()) == 1
"""
    await run(program, tmp_path, colours)


INTERRUPTED = {
    "classify": "client.classify(red, 'digits')",
    "stream": "list(client.stream([red] * 3, 'digits', concurrency=1))",
}


@pytest.mark.parametrize("call", INTERRUPTED)
async def test_ctrl_c_ends_the_call_and_nothing_else(call: str, cluster, tmp_path: Path) -> None:
    [worker] = await cluster.workers("one")
    proxy = await cluster.proxy(worker)

    async def never(request):
        await asyncio.Event().wait()

    worker.behave = never
    program = f"""
client = SyncClient(proxy)
try:
    {INTERRUPTED[call]}
except KeyboardInterrupt:
    pass
else:
    sys.exit(1)
assert client.classify(green, "digits").label == str(len(green))
"""
    async with running(program, tmp_path, proxy.url) as process:
        await until(lambda: worker.running)
        worker.behave = None
        process.send_signal(signal.SIGINT)
        await process.wait()
    assert worker.running == 0
