"""The connections to one worker: shared in order, kept for a while, made anew when stale."""

from __future__ import annotations

import asyncio
import socket

import pytest
from tests.client.transport.peer import Conversation, Peer, answer
from tests.client.transport.sender import Sender, no_answer, pieces
from tests.support.sockets import open_sockets
from tests.support.waiting import until

from fingerpost.client.images.oneshot import OneShot
from fingerpost.client.routing import Outcome
from fingerpost.errors import Unreachable

REPORT = b'{"rif":0,"slots":1,"state":1,"boot_id":1,"seq":1}'


class HeldPeer:
    """Answers every request once it is let go; images in `bodies`, as they came."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.open = asyncio.Event()

    async def __call__(self, talk: Conversation) -> None:
        while head := await talk.head():
            if head.startswith(b"GET /load"):
                talk.say(answer(REPORT))
                continue
            _, _, length = head.lower().partition(b"content-length: ")
            self.bodies.append(await talk.reader.readexactly(int(length.split(b"\r\n")[0])))
            await self.open.wait()
            talk.say(answer())


async def test_many_share_a_few_connections():
    async with Peer() as peer, Sender(connections_per_worker=16) as sender:
        calls = [sender.send(peer.address, b"%d" % each) for each in range(600)]
        replies = await asyncio.gather(*calls)
        assert {each.outcome for each in replies} == {Outcome.ANSWERED}
        assert sorted(map(int, peer.bodies)) == list(range(600))
        assert peer.connections == peer.most_open == 16


async def test_who_waits_longest_is_next_and_who_leaves_takes_no_place():
    held = HeldPeer()
    async with Peer(held) as peer, Sender(connections_per_worker=1) as sender:
        calls = [asyncio.create_task(sender.send(peer.address, b"%d" % n)) for n in range(40)]
        await until(lambda: held.bodies)
        for call in calls[10:30]:
            call.cancel()
        held.open.set()
        replies = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(each, asyncio.CancelledError) for each in replies].count(True) == 20
        assert list(map(int, held.bodies)) == [*range(10), *range(30, 40)]
        assert peer.connections == 1


@pytest.mark.parametrize("steps", range(6))
async def test_a_place_that_is_promised_to_one_who_leaves_is_the_next_ones(steps):
    """The first is cancelled, and the second with it, or some steps of the loop later."""
    held = HeldPeer()
    async with Peer(held) as peer, Sender(connections_per_worker=1) as sender:
        calls = [asyncio.create_task(sender.send(peer.address, b"%d" % n)) for n in range(4)]
        await until(lambda: held.bodies)
        calls[0].cancel()
        for _ in range(steps):
            await asyncio.sleep(0)
        calls[1].cancel()
        held.open.set()
        for call in calls[2:]:
            assert (await call).outcome is Outcome.ANSWERED
        assert peer.most_open <= 2  # the peer may learn of the end a moment later


async def test_a_question_for_the_load_waits_behind_no_image():
    held = HeldPeer()
    async with Peer(held) as peer, Sender(connections_per_worker=1) as sender:
        calls = [asyncio.create_task(sender.send(peer.address, b"%d" % n)) for n in range(3)]
        await until(lambda: held.bodies)
        assert (await sender.transport.load(peer.address)).slots == 1
        assert peer.connections == 2
        await until(lambda: peer.open == 1)
        held.open.set()
        await asyncio.gather(*calls)
        assert (await sender.transport.load(peer.address)).slots == 1
        assert peer.connections == 2


@pytest.mark.parametrize("question", ["image", "load", "one shot", "busy"])
async def test_a_kept_connection_that_the_worker_had_closed_is_made_anew(monkeypatch, question):
    async def script(talk: Conversation) -> None:
        while (body := await talk.request()) is not None:
            bodies.append(body)
            if talk.number == 1 and len(bodies) > 1:
                return
            talk.say(answer() if question != "load" else answer(REPORT))

    bodies: list[bytes] = []
    if question != "busy":  # which is long ago for none but a worker that dies
        monkeypatch.setattr("fingerpost.client.transport.connection._STALE_S", 0.0)
    async with Peer(script) as peer, Sender() as sender:
        sender.transport.retain([peer.address])
        if question == "load":
            for _ in range(2):
                assert (await sender.transport.load(peer.address)).slots == 1
            assert len(bodies) == 3
            return
        assert (await sender.send(peer.address)).outcome is Outcome.ANSWERED
        data = OneShot(pieces(b"image")) if question == "one shot" else b"image"
        reply = await sender.send(peer.address, data)
        if question == "image":
            assert reply.outcome is Outcome.ANSWERED
            assert bodies == [b"image"] * 3
            assert sender.attempt.sent_bytes == 5
        else:
            assert reply.outcome is Outcome.FAILED
            assert isinstance(reply.error, Unreachable)
            assert bodies == [b"image"] * 2


async def test_but_only_once(monkeypatch):
    async def script(talk: Conversation) -> None:
        if await talk.request() is not None and talk.number == 1:
            talk.say(answer())
            await talk.request()

    monkeypatch.setattr("fingerpost.client.transport.connection._STALE_S", 0.0)
    async with Peer(script) as peer, Sender() as sender:
        await sender.send(peer.address)
        assert (await sender.send(peer.address)).outcome is Outcome.FAILED
        assert peer.connections == 2


async def test_idle_connections_are_closed_after_a_while(monkeypatch):
    held = HeldPeer()
    held.open.set()
    monkeypatch.setattr("fingerpost.client.transport.pool._MAX_IDLE_S", 0.05)
    monkeypatch.setattr("fingerpost.client.transport.pool._EVICT_EVERY_S", 0.01)
    async with Peer(held) as peer, Sender() as sender:
        await asyncio.gather(*(sender.send(peer.address) for _ in range(5)))
        assert peer.most_open == 5
        while peer.open > 1:  # one is enough, and so is always the same
            assert (await sender.send(peer.address)).outcome is Outcome.ANSWERED
        await until(lambda: not peer.open)
        assert peer.connections == 5


async def test_an_idle_connection_that_the_worker_closes_is_closed_too():
    sockets = open_sockets()
    async with Sender() as sender:
        async with Peer() as peer:
            await sender.send(peer.address)
        await until(lambda: open_sockets() <= sockets)
        assert (await sender.send(peer.address)).outcome is Outcome.REFUSED


async def test_closing_fails_those_that_wait():
    async with Peer(no_answer) as peer, Sender(connections_per_worker=2) as sender:
        calls = [asyncio.create_task(sender.send(peer.address)) for _ in range(5)]
        await until(lambda: peer.open == 2)
        await sender.transport.aclose()
        replies = await asyncio.gather(*calls)
        assert {each.outcome for each in replies} == {Outcome.FAILED, Outcome.REFUSED}
        with pytest.raises(RuntimeError, match="closed"):
            await sender.send(peer.address)
        await until(lambda: not peer.open)


async def test_a_worker_that_accepts_no_connection_is_left_after_connect_timeout_s():
    with socket.socket() as full, socket.socket() as one, socket.socket() as two:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # holds one, and answers no further attempt
        for each in (one, two):
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        async with Sender(connect_timeout_s=0.1) as sender:
            reply = await sender.send(f"127.0.0.1:{full.getsockname()[1]}")
        assert reply.outcome is Outcome.REFUSED
        assert "no connection within 0.1 s (connect_timeout_s)" in str(reply.error)


async def test_names_and_ipv6():
    async with Sender() as sender:
        async with Peer() as peer:
            for _ in range(2):
                reply = await sender.send(f"localhost:{peer.port}")
                assert reply.outcome is Outcome.ANSWERED
        assert (await sender.send("localhost:1")).outcome is Outcome.REFUSED
        assert (await sender.send("nowhere.invalid:80")).outcome is Outcome.REFUSED
        async with Peer(host="::1") as peer:
            assert peer.address.startswith("[::1]:")
            assert (await sender.send(peer.address)).outcome is Outcome.ANSWERED


@pytest.mark.parametrize("name", ["localhost", "nowhere.invalid"])
async def test_those_that_come_at_once_share_one_lookup(monkeypatch, name):
    loop = asyncio.get_running_loop()
    asked: list[str] = []
    look_up = loop.getaddrinfo

    async def counted(host, *args, **options):
        asked.append(host)
        return await look_up(host, *args, **options)

    monkeypatch.setattr(loop, "getaddrinfo", counted)
    async with Peer() as peer, Sender() as sender:
        calls = (sender.send(f"{name}:{peer.port}") for _ in range(20))
        outcomes = {each.outcome for each in await asyncio.gather(*calls)}
    assert outcomes == {Outcome.ANSWERED if name == "localhost" else Outcome.REFUSED}
    assert asked == [name]
