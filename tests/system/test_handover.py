"""A proxy restarted under load refuses no connection and loses no request."""

from __future__ import annotations

import asyncio
import signal
import time

import aiohttp
import psutil
import pytest

from tests.support.ports import free_port
from tests.support.processes import Processes, get_json
from tests.support.waiting import until_blocking


@pytest.fixture
def proxy_url(processes: Processes) -> str:
    registry = processes.registry()
    return processes.proxy(registry, "--service", "digits")


def listeners(url: str) -> set[int]:
    port = int(url.rsplit(":", 1)[1])
    return {
        each.pid
        for each in psutil.net_connections("tcp")
        if each.laddr and each.laddr.port == port and each.status == psutil.CONN_LISTEN and each.pid
    }


async def test_sighup_hands_the_socket_over(proxy_url: str) -> None:
    statuses: list[int] = []
    done = asyncio.Event()

    async def ask_on_new_connections() -> None:
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as http:
            while not done.is_set():
                async with http.get(f"{proxy_url}/v1/services") as response:
                    await response.read()
                    statuses.append(response.status)

    async def ask_on_a_kept_connection() -> None:
        async with aiohttp.ClientSession() as http:
            while not done.is_set():
                async with http.get(f"{proxy_url}/health/live") as response:
                    await response.read()
                    statuses.append(response.status)

    successors = []
    try:
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(ask_on_new_connections())
                tasks.create_task(ask_on_a_kept_connection())
            for _ in range(3):
                (old,) = listeners(proxy_url)
                psutil.Process(old).send_signal(signal.SIGHUP)
                await asyncio.to_thread(
                    until_blocking, lambda old=old: listeners(proxy_url) - {old}
                )
                successors += listeners(proxy_url) - {old}
                await asyncio.to_thread(
                    until_blocking,
                    lambda old=old: (
                        not psutil.pid_exists(old)
                        or psutil.Process(old).status() == psutil.STATUS_ZOMBIE
                    ),
                )
            done.set()
        assert set(statuses) == {200}
        assert len(statuses) > 500
        print(f"{len(statuses)} requests during 3 restarts, none refused")
    finally:
        for pid in successors:
            if psutil.pid_exists(pid):
                psutil.Process(pid).kill()


def test_further_sighups_end_nothing(processes: Processes) -> None:
    """Those that come while a successor starts, and while the old process closes connections."""
    registry = processes.registry()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    proxy = processes.start("proxy", "--port", port, "--registry", registry)
    until_blocking(lambda: get_json(f"{url}/health/ready"))
    successors: set[int] = set()
    try:
        while psutil.Process(proxy.pid).status() != psutil.STATUS_ZOMBIE:
            proxy.signal(signal.SIGHUP)
            successors |= listeners(url) - {proxy.pid}
            time.sleep(0.002)
        assert proxy.wait() == 0, proxy.output()
        successors |= listeners(url)
        assert len(successors) == 1, "one was enough"
        assert get_json(f"{url}/health/ready") is not None
        assert proxy.output().count("has taken over") == 1
    finally:
        for pid in successors:
            if psutil.pid_exists(pid):
                psutil.Process(pid).kill()


async def test_a_held_lookup_is_answered_when_the_proxy_leaves(
    processes: Processes,
) -> None:
    registry = processes.registry()
    port = free_port()
    proxy = processes.start("proxy", "--port", port, "--registry", registry, "--service", "digits")
    url = f"http://127.0.0.1:{port}"
    await asyncio.to_thread(until_blocking, lambda: get_json(f"{url}/health/ready"))
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{url}/v1/resolve/digits") as response:
            index = response.headers["Fingerpost-Index"]
        held = asyncio.create_task(http.get(f"{url}/v1/resolve/digits?index={index}&wait=60s"))
        await asyncio.to_thread(
            until_blocking, lambda: "waiting_lookups 1.0" in _text(f"{url}/metrics")
        )
        proxy.signal(signal.SIGTERM)
        response = await asyncio.wait_for(held, 5)
        assert response.status == 503
        assert response.headers["Connection"] == "close"
        response.release()
    assert await asyncio.to_thread(proxy.wait) == 0


def test_a_handed_over_descriptor_that_is_no_socket(processes: Processes) -> None:
    import os
    import subprocess
    import sys

    run = subprocess.run(
        [sys.executable, "-m", "fingerpost.deploy.cli", "proxy"],
        env={**os.environ, "FINGERPOST_LISTEN_FD": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == 1
    assert "file descriptor 0 cannot be used" in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


def _text(url: str) -> str:
    import urllib.request

    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
        return str(answer.read().decode())
