"""Running streams do not notice that a proxy, a registry or Consul is lost, and ask for nothing."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from fingerpost.client import Client, Result
from fingerpost.errors import RegistryError
from tests.support.colours import encoded
from tests.support.consul_process import ConsulProcess
from tests.support.ports import free_port
from tests.support.processes import Process, Processes, get_json
from tests.support.sleeper import Sleeper
from tests.support.waiting import until_blocking

_SOME = 400
_IMAGES = [encoded(colour) for colour in ("red", "green", "blue")]


async def _checked(results: AsyncIterator[Result], count: int) -> None:
    """Take so many results, all of them right at the first attempt."""
    for _ in range(count):
        result = await anext(results)
        assert result.error is None
        assert result.attempts == 1
        assert result.label == ("red", "green", "blue")[result.index % 3]


def _registry(processes: Processes) -> tuple[Process, str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = processes.start("registry", "--port", port)
    until_blocking(lambda: get_json(f"{url}/v1/status/leader"))
    return process, url


@pytest.mark.parametrize("lost", ["proxy", "registry", "consul"])
async def test_a_stream_goes_on_without(
    lost: str, processes: Processes, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    end: Callable[[], object]
    if lost == "consul":
        consul: ConsulProcess = request.getfixturevalue("consul_process")
        consul.start()
        registry, end = consul.url, consul.stop
    else:
        process, registry = _registry(processes)
        end = process.end
    model = Sleeper(tmp_path / "colours", 0.001)
    workers = [processes.worker(registry, model.folder) for _ in range(2)]
    for worker in workers:
        until_blocking(lambda worker=worker: "ready at" in worker.output())
    if lost == "proxy":
        port = free_port()
        proxy = processes.start("proxy", "--port", port, "--registry", registry)
        until_blocking(lambda: get_json(f"http://127.0.0.1:{port}/health/ready"))
        client, end = Client(f"http://127.0.0.1:{port}"), proxy.end
    else:
        client = Client(registry=registry)
    async with client, aclosing(client.stream(itertools.cycle(_IMAGES), "colours")) as results:
        await _checked(results, _SOME)
        lookups = client.stats.lookups
        await _checked(results, _SOME)
        # One is held; it may come back in this time, but none is made for an image.
        assert client.stats.lookups <= lookups + 1
        await asyncio.to_thread(end)
        lost_at = time.monotonic()
        lookups = client.stats.lookups
        await _checked(results, _SOME)
        # It asks in vain now and then, at a rate of its own.
        assert client.stats.lookups <= lookups + 5 + 5 * (time.monotonic() - lost_at)
        # Lost it really is.
        with pytest.raises(RegistryError):
            await client.services()
        await _checked(results, _SOME)
        assert client.stats.retries == {}
    for worker in workers:
        worker.signal(signal.SIGTERM)
