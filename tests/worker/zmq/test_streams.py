"""Streams over ZeroMQ: answers and errors as HTTP's, credit, cancellation, leases, drain."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fingerpost.registry import LoadReport, WorkerState
from fingerpost.worker.config import RequestConfig, StreamConfig
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.images import ImageConfig
from fingerpost.worker.telemetry.access_log import AccessLog
from tests.support.bad_images import BAD
from tests.support.colours import encoded
from tests.support.leases import lease, verifier, wrong_leases
from tests.support.rig import Rig, serving
from tests.support.waiting import until
from tests.support.zmq_peers import connected

RED = encoded("red")


async def test_an_answer_is_that_of_http_with_the_load(rig: Rig) -> None:
    async with connected(rig.zmq_port) as dealer:
        opened = await dealer.open("colours@7", top=2)
        assert opened == {
            "type": "opened",
            "model": "colours@7",
            "credit": 64,
            "credit_bytes": 64_000_000,
            "max_image_bytes": 200_000,
        }
        await dealer.send(b"a.png", b"", RED)
        key, answer, load = await dealer.take()
    assert key == b"a.png"
    assert LoadReport.from_header(load).boot_id == 1
    path = "/v1/classify/colours@7?top=2"
    async with aiohttp.ClientSession(rig.url) as http, http.post(path, data=RED) as response:
        other = await response.json()
    one = answer["results"][0]
    assert one.pop("timings_ms").keys() == other["results"][0].pop("timings_ms").keys()
    assert one.pop("name") == "a.png"
    assert other["results"][0].pop("name") == "data"
    assert answer == other


async def test_many_images_are_in_flight(rig: Rig) -> None:
    async with connected(rig.zmq_port) as dealer:
        await dealer.open(top=1)
        colours = ("red", "green", "blue")
        for n in range(60):
            await dealer.send(str(n).encode(), b"{}", encoded(colours[n % 3]))
        found = {key: answer for key, answer, _ in [await dealer.take() for _ in range(60)]}
        for n in range(60):
            best = found[str(n).encode()]["results"][0]["predictions"][0][0]
            assert best == colours[n % 3]
        await dealer.order("end")
        assert (await dealer.take())[1] == {"type": "ended", "taken": 60, "reason": "done"}
        assert (await dealer.open("colours"))["type"] == "opened"  # once more on the same socket
    await until(lambda: rig.service.memory.used == 0)


async def test_the_table_of_bad_images_is_that_of_http() -> None:
    async with serving(zmq=True, images=ImageConfig()) as rig:
        async with connected(rig.zmq_port) as dealer:
            await dealer.open()
            for name, (image, kind) in BAD.items():
                answer = await dealer.ask(image)
                assert (answer["status"], answer["error"]["code"]) == (kind.status, kind.code), name
            assert "results" in await dealer.ask(RED)
        await until(lambda: rig.service.memory.used == 0)


@pytest.mark.parametrize(
    ("order", "status", "code"),
    [
        ({"model": "other"}, 404, "unknown_model"),
        ({"model": "Not a name"}, 400, "invalid_name"),
        ({"model": "colours", "boot_id": 2}, 421, "misdirected"),
        ({"model": "colours", "class": "other"}, 400, "invalid_request"),
    ],
)
async def test_a_stream_that_is_refused_can_be_opened_again(
    rig: Rig, order: dict[str, Any], status: int, code: str
) -> None:
    async with connected(rig.zmq_port) as dealer:
        ended = await dealer.open(**order)
        assert (ended["type"], ended["taken"], ended["reason"]) == ("ended", 0, "failed")
        assert (ended["status"], ended["error"]["code"]) == (status, code)
        assert (await dealer.open(**{"class": "batch", "boot_id": 1}))["type"] == "opened"
        assert "results" in await dealer.ask(RED)


async def test_an_image_has_its_own_limits_and_errors() -> None:
    limits = BatchingConfig(max_batch=1, max_queue=1)
    async with serving(zmq=True, batching=limits) as rig, connected(rig.zmq_port) as dealer:
        await dealer.open()
        too_large = await dealer.ask(bytes(200_001))
        assert (too_large["status"], too_large["error"]["code"]) == (413, "image_too_large")
        late = await dealer.ask(RED, deadline_ms=0)
        assert late["status"] == 504
        wrong = await dealer.ask(RED, deadline_ms="soon")
        assert (wrong["status"], wrong["error"]["code"]) == (400, "invalid_request")
        rig.backend.gate.clear()
        for n in range(6):
            await dealer.send(b"%d" % n, b"{}", RED)
        _, refused, load = await dealer.take()
        assert (refused["status"], refused["error"]["code"]) == (429, "overloaded")
        assert refused["error"]["retry_after_s"] > 0
        assert LoadReport.from_header(load).rif >= 1
        rig.backend.gate.set()
        for _ in range(5):
            await dealer.take()


async def test_a_body_without_memory_for_it_is_refused_and_not_kept() -> None:
    limits = RequestConfig(max_memory_bytes=150_000, max_bytes=150_000)
    large = RED + bytes(100_000)
    async with (
        serving(zmq=True, requests=limits) as rig,
        connected(rig.zmq_port) as dealer,
        connected(rig.zmq_port) as other,
    ):
        await dealer.open()
        await other.open()
        rig.backend.gate.clear()
        await dealer.send(b"1", b"{}", large)
        await until(lambda: rig.rif == 1)
        refused = await other.ask(large)
        assert refused["status"] == 429
        assert "--max-memory" in refused["error"]["message"]
        assert rig.service.memory.used < 150_000
        rig.backend.gate.set()
        assert "results" in (await dealer.take())[1]
        assert "results" in await other.ask(large)


async def test_a_cancelled_image_is_not_run_and_gives_back_its_credit() -> None:
    window = StreamConfig(window=1)
    async with serving(zmq=True, streams=window, batching=BatchingConfig(max_batch=1)) as rig:
        rig.backend.gate.clear()
        async with connected(rig.zmq_port) as dealer, connected(rig.zmq_port) as other:
            await other.open()
            await other.send(b"", b"{}", RED)
            await until(lambda: rig.engine.running_s() > 0)
            await dealer.open()
            await dealer.send(b"one", b"{}", RED)
            await until(lambda: rig.rif == 2)
            await dealer.order("cancel", b"one")
            key, order, _ = await dealer.take()
            assert (key, order) == (b"one", {"type": "cancelled"})
            assert rig.rif == 1
            await dealer.send(b"two", b"{}", RED)
            rig.backend.gate.set()
            assert (await dealer.take())[0] == b"two"
            await dealer.order("cancel", b"two")  # it was answered before
            assert "results" in await dealer.ask(RED, b"three")
            await other.take()
        assert rig.backend.seen == 3


async def test_a_suspect_image_is_announced_before_it_begins(rig: Rig) -> None:
    async with connected(rig.zmq_port) as dealer:
        await dealer.open()
        await dealer.send(b"key", b'{"suspect": true}', RED)
        assert (await dealer.take())[:2] == (b"key", {"type": "begun"})
        assert "results" in (await dealer.take())[1]


async def test_a_lease_is_wanted_in_the_first_message() -> None:
    async with serving(zmq=True, leases=verifier()) as rig, connected(rig.zmq_port) as dealer:
        for token, status, code in wrong_leases().values():
            if len(token) <= 2048:
                ended = await dealer.open(lease=token)
                assert (ended["status"], ended["error"]["code"]) == (status, code), token[:40]
        bound = lease(thumbprint="a" * 43)
        assert (await dealer.open(lease=bound))["error"]["code"] == "lease_wrong_certificate"
        assert rig.backend.seen == 0
        assert (await dealer.open(lease=lease()))["type"] == "opened"
        assert "results" in await dealer.ask(RED)


async def test_a_stream_ends_with_its_lease_and_goes_on_with_another_one() -> None:
    async with (
        serving(zmq=True, leases=verifier(skew_s=0)) as rig,
        connected(rig.zmq_port) as dealer,
    ):
        ends_soon = lease(ahead_s=-299)  # of 300 s
        assert (await dealer.open(lease=ends_soon))["type"] == "opened"
        rig.backend.gate.clear()
        await dealer.send(b"in time", b"{}", RED)
        await until(lambda: rig.rif == 1)
        await asyncio.sleep(1.2)  # a lease lives for seconds
        await dealer.send(b"too late", b"{}", RED)
        rig.backend.gate.set()
        key, answer, _ = await dealer.take()
        assert (key, "results" in answer) == (b"in time", True)
        _, ended, _ = await dealer.take()
        assert (ended["taken"], ended["error"]["code"]) == (1, "lease_expired")
        again = await dealer.open(lease=ends_soon)
        assert again["error"]["code"] == "lease_expired"
        assert (await dealer.open(lease=lease()))["type"] == "opened"
        assert "results" in await dealer.ask(RED)


async def test_a_draining_worker_answers_what_it_has_and_says_where_it_stopped(rig: Rig) -> None:
    async with connected(rig.zmq_port) as dealer:
        await dealer.open()
        rig.backend.gate.clear()
        await dealer.send(b"1", b"{}", RED)
        await until(lambda: rig.rif == 1)
        rig.service.admission.state = WorkerState.DRAINING
        await dealer.send(b"2", b"{}", RED)  # it has not heard of the drain
        assert not await rig.service.admission.idle(0.05)
        rig.backend.gate.set()
        assert (await dealer.take())[0] == b"1"
        assert (await dealer.take())[1] == {"type": "ended", "taken": 1, "reason": "draining"}
        assert await rig.service.admission.idle(5)
        assert (await dealer.open())["type"] == "opened"  # for whoever knows it from before
        assert (await dealer.take())[1]["reason"] == "draining"


async def test_an_idle_stream_is_ended_and_an_unanswered_one_is_not() -> None:
    async with (
        serving(zmq=True, streams=StreamConfig(idle_timeout_s=0.2)) as rig,
        connected(rig.zmq_port) as dealer,
    ):
        await dealer.open()
        rig.backend.gate.clear()
        await dealer.send(b"1", b"{}", RED)
        await until(lambda: rig.rif == 1)
        began = time.monotonic()
        await until(lambda: time.monotonic() - began > 0.5)
        rig.backend.gate.set()
        assert "results" in (await dealer.take())[1]
        _, ended, _ = await dealer.take()
        assert "idle for 0.2 s" in ended["error"]["message"]


async def test_a_client_that_leaves_frees_its_images(rig: Rig) -> None:
    rig.backend.gate.clear()
    async with connected(rig.zmq_port) as dealer:
        await dealer.open()
        await dealer.send(b"1", b"{}", RED)
        await until(lambda: rig.rif == 1)
    await until(lambda: rig.rif == 0 and rig.service.memory.used == 0)
    assert await rig.service.admission.idle(5)
    rig.backend.gate.set()


async def test_each_image_is_in_the_access_log(tmp_path: Path) -> None:
    path = tmp_path / "log"

    def log(metrics: Any) -> AccessLog:
        return AccessLog(str(path), dropped=metrics.access_log_dropped)

    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with serving(zmq=True, access_log=log) as rig, connected(rig.zmq_port) as dealer:
        await dealer.open()
        await dealer.ask(RED, traceparent=trace)
        await dealer.ask(b"nothing")
        await until(lambda: path.exists() and path.read_text().count("\n") == 2)
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["path"], first["model"], first["status"], first["images"]) == (
        *("/zmq/colours", "colours"),
        *(200, 1),
    )
    assert (first["client"], first["body_bytes"]) == ("127.0.0.1", len(RED))
    assert first["trace_id"] == trace[3:35]
    assert (second["status"], second["error"]) == (415, "unsupported_image")
