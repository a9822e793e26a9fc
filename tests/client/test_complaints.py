"""What users of other systems complain about does not happen here; docs/complaints.md lists it."""

from __future__ import annotations

import asyncio
import os
import re
import time
import tracemalloc
import urllib.request
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from benchmarks.routing.scenario import Scenario
from benchmarks.routing.simulator import simulate
from tests.support.optional import not_none

from fingerpost.client import RoutingConfig
from fingerpost.errors import Unreachable
from fingerpost.registry import WatchConfig, open_registry

ROOT = Path(__file__).parents[2]
MB = 1 << 20


def named_tests() -> list[tuple[str, str]]:
    text = (ROOT / "docs" / "complaints.md").read_text()
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)


def test_every_test_that_the_docs_name_exists():
    assert len(named_tests()) > 20
    for path, name in named_tests():
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path} has no {name}"


# A missing service makes blocking queries spin: hashicorp/consul#4810, #5358.


async def test_watching_a_missing_service_does_not_spin(consul_url):
    """Consul wakes such a watch with every change of any service: here 40 of them."""

    def change(number: int) -> None:
        for path, body in (
            ("register", b'{"Name": "unrelated-%d"}' % number),
            (f"deregister/unrelated-{number}", None),
        ):
            url = f"{consul_url}/v1/agent/service/{path}"
            request = urllib.request.Request(url, data=body, method="PUT")  # noqa: S310
            urllib.request.urlopen(request, timeout=5).close()  # noqa: S310

    config = WatchConfig()
    async with aclosing(open_registry(consul_url)) as registry:
        watch = registry.watch("nobody-registered-this")
        view = await watch.ready(5)
        began = time.monotonic()
        for number in range(20):
            await asyncio.to_thread(change, number)
        took_s = time.monotonic() - began
        assert watch.polls <= 1 + config.burst + config.polls_per_s * took_s
        assert not view.known
        assert (watch.changes, watch.errors) == (1, 0)


# With many clients of little traffic, least-request turns random: envoyproxy/envoy#20907.


@pytest.mark.slow
def test_many_clients_with_little_traffic_do_not_choose_at_random():
    """200 clients with an image a second each, so that what each of them has sent says nothing.

    p90 and p99 at most 0.8 of those of a random choice, and of the least of two by one's own
    count, which is no better than chance then.
    """
    few = Scenario(clients=200, speeds=(1.0,) * 20, slots=1, load=0.7, duration_s=20.0)
    ours, *others = (simulate_with(few, rule) for rule in ("hot-cold", "power-of-two", "random"))
    for other in others:
        assert ours.quantile(0.9) <= 0.8 * other.quantile(0.9)
        assert ours.quantile(0.99) <= 0.8 * other.quantile(0.99)


# A herd on some GPUs while others are idle: triton-inference-server/client#820.


@pytest.mark.slow
@pytest.mark.parametrize("clients", [1, 4, 40])
def test_no_worker_is_idle_while_there_is_a_herd_on_others(clients):
    """Of 16 equal workers each has 0.7 to 1.3 of its part of the images in every 4 s."""
    equal = Scenario(clients=clients, speeds=(1.0,) * 16, load=0.8, duration_s=20.0)
    result = simulate_with(equal, "hot-cold")
    for since in range(4, 20, 4):
        shares = [16 * result.share(worker, since, since + 4) for worker in range(16)]
        assert min(shares) > 0.7, (since, shares)
        assert max(shares) < 1.3, (since, shares)


def simulate_with(scenario: Scenario, rule: str):
    return simulate(replace(scenario, routing=RoutingConfig(policy=rule)))


# Uploads over 1 MiB are never retried: envoyproxy/envoy#32464, #6930. And where they are, the
# buffers for it swell memory: curioswitch/pyqwest#217.


def reading(worker, *, broken_after: int | None = None):
    """Reads a body and keeps none of it; breaks the connection after so many bytes."""
    worker.received = 0

    async def behave(request: web.Request) -> web.StreamResponse:
        count = 0
        async for piece in request.content.iter_any():
            count += len(piece)
            if broken_after is not None and count > broken_after:
                not_none(request.transport).abort()
                break
        worker.received += count
        return await worker.answer(request)

    return behave


@contextmanager
def allocating(at_most_bytes: int):
    """Fails where more than that is allocated at a time, ours and the little servers' together."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= at_most_bytes, f"{peak / MB:.1f} MB"


@pytest.mark.parametrize("kind", ["bytes", "path"])
async def test_a_large_upload_that_breaks_is_sent_again(cluster, tmp_path, kind):
    """Four of 16 MiB at a time, the first attempts at one worker break off in the middle.

    Bytes are held once, by the caller; a file is read once for all attempts.
    """
    breaking, good = await cluster.workers("breaking", "good")
    breaking.behave = reading(breaking, broken_after=8 * MB)
    good.behave = reading(good)
    client = await cluster.client(breaking, good)
    image: bytes | Path = os.urandom(16 * MB)
    own = 8 * MB
    if kind == "path":
        path = tmp_path / "image"
        path.write_bytes(image)
        image = path
        own += 4 * 16 * MB
    with allocating(own):
        results = await asyncio.gather(*(client.classify(image, "digits") for _ in range(4)))
    assert {each.worker for each in results} == {"good"}
    assert good.received == 4 * 16 * MB
    assert {each.retried for each in results} >= {("unreachable",)}


async def test_a_source_that_is_read_once_is_never_held_whole(cluster):
    """64 MiB from an iterator. Begun, it cannot be sent again, and says so instead."""
    breaking, good = await cluster.workers("breaking", "good")
    good.behave = reading(good)
    client = await cluster.client(good)

    async def pieces():
        for _ in range(1024):
            yield bytes(64 << 10)

    with allocating(8 * MB):
        assert (await client.classify(pieces(), "digits")).image_bytes == 64 * MB
    assert good.received == 64 * MB
    breaking.behave = reading(breaking, broken_after=8 * MB)
    client = await cluster.client(breaking)
    with allocating(8 * MB), pytest.raises(Unreachable):
        await client.classify(pieces(), "digits")
