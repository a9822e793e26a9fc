"""Clients of ZeroMQ that break the rules are dropped and counted, and disturb no other."""

from __future__ import annotations

import asyncio
import contextlib
import random
from functools import partial
from typing import Any

import psutil
import pytest
import zmq
import zmq.asyncio

from fingerpost.registry.http.connection_config import ConnectionConfig
from fingerpost.registry.http.refusals import REFUSED_CONNECTIONS
from fingerpost.worker.config import RequestConfig, StreamConfig
from fingerpost.worker.zmq import server as server_module
from tests.support.colours import encoded
from tests.support.rig import Rig, serving
from tests.support.waiting import until
from tests.support.zmq_peers import Dealer, connected, greeted

RED = encoded("red")


def dropped(rig: Rig, reason: str) -> float:
    value = rig.service._metrics.registry.get_sample_value(
        "fingerpost_worker_zmq_dropped_clients_total", {"reason": reason}
    )
    return value or 0.0


def _seen(rig: Rig, count: int) -> bool:
    return rig.backend.seen == count or bool(dropped(rig, "not_reading"))


async def is_served(dealer: Dealer) -> None:
    assert "results" in await dealer.ask(RED)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ((b"one frame",), "frames"),
        ((b"", b"{}", b"image", b"more"), "frames"),
        ((b"",) * 5000, "frames"),
        ((b"k" * 256, b"{}", RED), "frames"),
        ((b"", b"not JSON"), "order"),
        ((b"", b"[" * 4000), "order"),
        ((b"", b'{"type": "close"}'), "order"),
        ((b"", b'{"type": "open", "model": "colours"}'), "order"),  # it is open already
        ((b"", b'{"type": "open", "top": -1}'), "order"),
        ((b"", b'{"type": "open", "lease": "' + b"x" * 5000 + b'"}'), "order"),
        ((b"", b"\xff\xfe"), "order"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else f"{len(value)} frames",
)
async def test_what_is_not_a_message_ends_the_connection(
    rig: Rig, frames: tuple[bytes, ...], reason: str
) -> None:
    async with connected(rig.zmq_port) as honest, connected(rig.zmq_port) as dealer:
        await honest.open()
        await dealer.open()
        monitor = dealer.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        await dealer.send(*frames)
        _, ended, _ = await dealer.take()
        assert (ended["reason"], ended["error"]["code"]) == ("failed", "invalid_request")
        await asyncio.wait_for(monitor.recv_multipart(), 10)
        dealer.socket.disable_monitor()
        assert dropped(rig, reason) == 1
        await is_served(honest)
    await until(lambda: rig.service.memory.used == 0)


async def test_an_image_head_that_is_not_valid_is_the_images_own_error(rig: Rig) -> None:
    async with connected(rig.zmq_port) as dealer:
        await dealer.open()
        for head in (b"[", b"\xff", b"[" * 4000, b"{" + b" " * 5000 + b"}", b'{"waited_ms": -1}'):
            await dealer.send(b"key", head, RED)
            _, answer, _ = await dealer.take()
            assert (answer["status"], answer["error"]["code"]) == (400, "invalid_request")
        await is_served(dealer)


async def test_a_client_past_its_credit_is_dropped() -> None:
    async with serving(zmq=True, streams=StreamConfig(window=4)) as rig:
        async with connected(rig.zmq_port) as honest, connected(rig.zmq_port) as dealer:
            await honest.open()
            rig.backend.gate.clear()
            assert (await dealer.open())["credit"] == 4
            for _ in range(5):
                await dealer.send(b"", b"{}", RED)
            await until(lambda: dropped(rig, "credit") == 1)
            rig.backend.gate.set()
            await is_served(honest)
        await until(lambda: rig.rif == 0 and rig.service.memory.used == 0)


async def test_a_client_past_its_bytes_is_dropped() -> None:
    limits = RequestConfig(max_bytes=200_000)
    async with serving(zmq=True, requests=limits) as rig, connected(rig.zmq_port) as dealer:
        await dealer.open()
        rig.backend.gate.clear()
        for _ in range(2):
            await dealer.send(b"", b"{}", RED + bytes(150_000))
        await until(lambda: dropped(rig, "credit") == 1)
        rig.backend.gate.set()


async def test_images_without_a_stream_are_dropped() -> None:
    async with serving(zmq=True, streams=StreamConfig(window=4)) as rig:
        async with connected(rig.zmq_port) as dealer:
            for _ in range(5):
                await dealer.send(b"", b"{}", RED)
            await until(lambda: dropped(rig, "order") == 1)
        assert rig.backend.seen == 0


async def test_a_frame_over_the_limit_ends_the_connection() -> None:
    limits = RequestConfig(max_bytes=300_000)
    async with serving(zmq=True, requests=limits) as rig, connected(rig.zmq_port) as dealer:
        await dealer.open()
        monitor = dealer.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        await dealer.send(b"", b"{}", bytes(300_001))
        await asyncio.wait_for(monitor.recv_multipart(), 10)
        dealer.socket.disable_monitor()
        await until(lambda: rig.service.memory.used == 0)


async def test_a_client_that_never_reads_is_dropped_and_holds_little() -> None:
    """Answers wait in its own socket, then in the kernel, then here: up to 24 of them."""
    window = StreamConfig(window=4)
    async with serving(zmq=True, classes=1000, streams=window) as rig:
        async with connected(rig.zmq_port, rcvhwm=1, rcvbuf=4096) as dealer:
            await dealer.open(top=0)
            sent = 0
            while not dropped(rig, "not_reading"):
                sent += 1
                await dealer.send(b"", b"{}", RED)
                await until(partial(_seen, rig, sent))
                await until(lambda: rig.rif == 0)
            assert sent < 1000
        await until(lambda: rig.rif == 0 and rig.service.memory.used == 0)


async def test_frames_without_an_end_are_not_collected() -> None:
    """ZeroMQ itself keeps the frames of a message without a limit until the last one comes."""
    limits = RequestConfig(max_bytes=1_000_000)
    async with serving(zmq=True, requests=limits) as rig, connected(rig.zmq_port) as honest:
        await honest.open()
        process = psutil.Process()
        before = process.memory_info().rss
        async with greeted(rig.zmq_port) as sock:
            loop = asyncio.get_running_loop()
            more = bytes([3]) + (500_000).to_bytes(8, "big") + bytes(500_000)  # more, long
            sent = 0
            with contextlib.suppress(ConnectionError):
                while sent < 4_000_000_000:
                    await asyncio.wait_for(loop.sock_sendall(sock, more), 10)
                    sent += len(more)
                    await asyncio.sleep(0.005)  # 100 MB a second
            assert sent < 4_000_000_000
        assert dropped(rig, "unfinished") == 1
        assert process.memory_info().rss - before < 200_000_000
        await is_served(honest)
        await until(lambda: rig.service.memory.used == 0)


async def test_unfinished_messages_count_as_memory() -> None:
    limits = RequestConfig(max_bytes=1_000_000, max_memory_bytes=1_000_000)
    async with serving(zmq=True, requests=limits) as rig, greeted(rig.zmq_port) as sock:
        loop = asyncio.get_running_loop()
        part = bytes([2]) + (1_000_000).to_bytes(8, "big") + bytes(700_000)
        await loop.sock_sendall(sock, part)
        await until(lambda: rig.service.memory.used > 600_000)
        async with greeted(rig.zmq_port) as other:
            await loop.sock_sendall(other, part)
            await until(lambda: dropped(rig, "memory") == 1)
        await until(lambda: rig.service.memory.used < 800_000)


async def test_a_connection_that_opens_no_stream_is_closed() -> None:
    limits = ConnectionConfig(headers_timeout_s=0.3, idle_timeout_s=0.3)
    async with serving(zmq=True, connections=limits) as rig, greeted(rig.zmq_port) as sock:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while await asyncio.wait_for(loop.sock_recv(sock, 4096), 10):
                pass
        async with connected(rig.zmq_port, reconnect_ivl=-1) as dealer:
            await dealer.open()
            await dealer.order("end")
            monitor = dealer.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            await asyncio.wait_for(monitor.recv_multipart(), 10)
            dealer.socket.disable_monitor()


async def test_as_many_connections_as_the_limit() -> None:
    before = REFUSED_CONNECTIONS["max_connections"]
    async with serving(zmq=True, connections=ConnectionConfig(max_connections=1)) as rig:
        async with connected(rig.zmq_port) as first:
            await first.open()
            async with connected(rig.zmq_port, reconnect_ivl=-1) as second:
                await second.order("open", model="colours")
                await until(lambda: REFUSED_CONNECTIONS["max_connections"] == before + 1)
            await is_served(first)
        async with connected(rig.zmq_port) as third:
            await third.open()
            await is_served(third)


async def test_a_dead_peer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is stopped, or a machine that is gone, answers no ping."""
    monkeypatch.setattr(server_module, "_PING_MS", 100)
    monkeypatch.setattr(server_module, "_SILENCE_MS", 300)
    async with serving(zmq=True) as rig, greeted(rig.zmq_port) as sock:
        loop = asyncio.get_running_loop()
        order = b'{"type":"open"}'
        await loop.sock_sendall(sock, b"\x01\x00" + bytes([0, len(order)]) + order)
        await until(lambda: rig.service.admission._streams)
        await until(lambda: not rig.service.admission._streams)


async def test_mutated_messages_are_answered_or_end_the_connection(rig: Rig) -> None:
    rng = random.Random(17)
    known: list[list[bytes]] = [
        [b"", b'{"type":"open","model":"colours","top":3}'],
        [b"key", b'{"deadline_ms":5000}', RED],
        [b"key", b'{"type":"cancel"}'],
        [b"", b'{"type":"end"}'],
    ]
    context: Any = zmq.asyncio.Context()
    try:
        for _ in range(60):
            async with Dealer(context, rig.zmq_port, reconnect_ivl=-1) as dealer:
                await dealer.order("open", model="colours")
                for _ in range(4):
                    frames = list(rng.choice(known))
                    at = rng.randrange(len(frames))
                    frame = bytearray(frames[at])
                    for _ in range(rng.randrange(4)):
                        if frame:
                            frame[rng.randrange(len(frame))] = rng.randrange(256)
                    frames[at] = bytes(frame)
                    if not rng.randrange(6):
                        frames.append(b"more")
                    await dealer.send(*frames)
                await dealer.take()
    finally:
        context.destroy(linger=0)
    async with connected(rig.zmq_port) as honest:
        await honest.open()
        await is_served(honest)
    await until(lambda: rig.rif == 0 and rig.service.memory.used == 0)
