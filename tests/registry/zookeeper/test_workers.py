"""Workers that are killed, stopped or hang: when their nodes go, and come back."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time

import pytest
from tests.support.optional import not_none
from tests.support.waiting import until

from fingerpost.registry.engine_check import HttpCheckConfig

PROGRAM = """
import asyncio, sys, time
from fingerpost.registry import Instance, ModelInfo
from fingerpost.registry.zookeeper.registry import ZooKeeperRegistry

async def answer(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
    writer.close()

async def main(url, service):
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    models = (ModelInfo(name="flowers", versions=("1",)),)
    instance = Instance(
        id=f"{service}-{port}",
        service=service,
        host="127.0.0.1",
        ports={"http": port},
        models=models,
    )
    registry = ZooKeeperRegistry(url, session_timeout_s=2.0)
    await registry.register(instance)
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, lambda: time.sleep(float(sys.stdin.readline())))
    print("registered", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
async def process(url, service):
    """A process that registered a worker, and hangs its event loop for as long as it is told to."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, url, service, stdin=-1, stdout=-1
    )
    assert await not_none(process.stdout).readline() == b"registered\n"
    yield process
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)
        process.kill()
    await process.communicate()


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
async def test_a_worker_that_is_gone_leaves_with_its_session(
    connect, url, service, process, name, record_property
):
    watch = connect(url).watch(service)
    assert (await watch.ready(5)).instances
    started = time.monotonic()
    process.send_signal(getattr(signal, name))
    await until(lambda: not watch.view.instances, within_s=5)
    gone_s = time.monotonic() - started
    record_property("gone_s", round(gone_s, 2))
    print(f"{name}: off the list after {gone_s:.2f} s with a session of 2 s")
    # Between two of its pings, which come every third of the session's timeout; and a tick.
    assert 1.0 < gone_s < 3.0
    if name == "SIGSTOP":
        process.send_signal(signal.SIGCONT)
        await until(lambda: watch.view.instances, within_s=5)


async def test_a_worker_whose_event_loop_hangs_is_taken_off_long_before_its_session(
    connect, url, service, process
):
    watch = connect(url).watch(service)
    assert (await watch.ready(5)).instances
    started = time.monotonic()
    process.stdin.write(b"3\n")
    await until(lambda: not watch.view.instances, within_s=5)
    print(f"hung event loop: off the list after {time.monotonic() - started:.2f} s")
    assert time.monotonic() - started < 2.0
    assert watch.view.known
    await until(lambda: watch.view.instances, within_s=6)


async def test_a_sick_engine_stays_off_the_list_across_sessions(
    connect, url, worker, service, tree
):
    registry = connect(url, check_config=HttpCheckConfig(interval_s=0.1))
    worker.healthy = False
    registration = await registry.register(worker.instance(service))
    entry = registration.instance.id
    await until(lambda: tree.names(service) == [entry, f"{entry}:sick"])
    old = tree.owner(registration.instance)
    await asyncio.to_thread(tree.expire, registry)
    await until(lambda: tree.owner(registration.instance) not in (0, old), within_s=5)
    await until(lambda: tree.names(service) == [entry, f"{entry}:sick"])
    assert (await registry.list(service)).instances == ()
    worker.healthy = True
    await until(lambda: tree.names(service) == [entry])
    await registration.deregister()
