"""One exchange with a peer that says what a test wants, good and bad."""

from __future__ import annotations

import array
import asyncio
import contextlib
import itertools

import pytest
import uvloop
from tests.client.transport.peer import ANSWER, Conversation, Peer, answer
from tests.client.transport.sender import Sender, no_answer, pieces
from tests.support.load_answers import REFUSED, serving
from tests.support.sockets import open_sockets
from tests.support.waiting import settled, until

from fingerpost.client.images.oneshot import OneShot
from fingerpost.client.routing import Outcome
from fingerpost.errors import (
    BadAnswer,
    DeadlineExceeded,
    Draining,
    ImageError,
    ImageTooLarge,
    Overloaded,
    Unreachable,
)
from fingerpost.registry import LoadReport, WorkerState

MB = 1_000_000


@pytest.fixture
async def sender():
    """A sender, and the proof that it leaves no task and no socket."""
    tasks, sockets = asyncio.all_tasks(), open_sockets()
    async with Sender() as sender:
        yield sender
    assert {each for each in asyncio.all_tasks() - tasks if "fingerpost" in repr(each)} == set()
    await until(lambda: open_sockets() <= sockets)


def saying(*pieces: bytes):
    """Answers each request with this, and leaves the connection open."""

    async def script(talk: Conversation) -> None:
        while await talk.request() is not None:
            for piece in pieces:
                talk.say(piece)
                await talk.writer.drain()

    return script


def and_closing(*pieces: bytes):
    async def script(talk: Conversation) -> None:
        await talk.request()
        for piece in pieces:
            talk.say(piece)

    return script


def and_resetting(*pieces: bytes):
    async def script(talk: Conversation) -> None:
        await talk.request()
        for piece in pieces:
            talk.say(piece)
            await talk.writer.drain()
        talk.reset()

    return script


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(ANSWER), ANSWER)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    ("script", "connections"),
    [
        (saying(answer()), 1),
        (saying(CHUNKED), 1),
        (saying(CONTINUE, b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", answer()), 1),
        (saying(*(bytes([each]) for each in answer())), 1),
        (saying(answer(Connection="close")), 2),
        (and_closing(OK + b"\r\n" + ANSWER), 2),
        (saying(answer() + answer()), 2),
        (saying(answer() + b"nonsense"), 2),
    ],
    ids=[
        "length", "chunked", "informational", "byte by byte", "connection close",
        "until the end", "two answers", "nonsense afterwards",
    ],
)  # fmt: skip
async def test_good_answers(sender, script, connections):
    async with Peer(script) as peer:
        for _ in range(2):
            reply = await sender.send(peer.address)
            assert reply.outcome is Outcome.ANSWERED
            assert reply.answer.results[0].predictions == (("a", 0.75),)
            assert sender.attempt.sent_bytes == 5
            assert sender.attempt.sent_at is not None
            await until(lambda: connections == 1 or not peer.open)  # the peer knows too
        assert peer.connections == connections


async def forever(talk: Conversation) -> None:
    await talk.request()
    talk.say(OK + b"Content-Length: 1000000000000\r\n\r\n")
    while True:
        talk.say(b"x" * 100_000)
        await talk.writer.drain()


@pytest.mark.parametrize(
    ("script", "error", "match"),
    [
        (and_closing(), Unreachable, "closed without an answer"),
        (and_resetting(), Unreachable, "reset"),
        (and_closing(b"<html>"), BadAnswer, "not valid HTTP/1.1"),
        (saying(b"SSH-2.0-OpenSSH_9.2\r\n"), BadAnswer, "not valid HTTP/1.1"),
        (and_closing(OK), BadAnswer, "closed after 17 bytes"),
        (and_closing(CONTINUE), Unreachable, "closed without an answer"),
        (and_closing(answer()[:-1]), BadAnswer, "closed after"),
        (and_closing(CHUNKED[:-1]), BadAnswer, "closed after"),
        (and_resetting(OK + b"\r\n" + ANSWER), BadAnswer, "during an answer"),
        (saying(answer(b"hello")), BadAnswer, "hello"),
        (saying(answer(b"")), BadAnswer, "not a valid answer to a classification"),
        (saying(b"HTTP/1.1 204 No Content\r\n\r\n"), BadAnswer, "HTTP 204"),
        (saying(b"HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\n\r\n"), BadAnswer, "307"),
        (saying(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), BadAnswer, "another protocol"),
        (saying(OK + b"X: " + b"x" * 100_000), BadAnswer, "head of an answer of more than"),
        (forever, BadAnswer, "an answer of more than"),
    ],
)
async def test_bad_answers(sender, script, error, match):
    async with Peer(script) as peer:
        reply = await sender.send(peer.address)
        assert reply.outcome is Outcome.FAILED
        with pytest.raises(error, match=match):
            raise reply.error
        assert peer.address in str(reply.error) or "HTTP" in str(reply.error)
        assert peer.connections == 1
        with pytest.raises(error, match=r"/load|" + match):
            await sender.transport.load(peer.address)


@pytest.mark.parametrize("reply", REFUSED.values(), ids=REFUSED)
async def test_a_load_report_that_the_registrys_client_refuses(sender, reply):
    async with serving(reply) as (instance, requests):
        with pytest.raises(BadAnswer):
            await sender.transport.load(instance.address)
        assert len(requests) == 1
        assert b"cookie" not in requests[0].lower()


async def test_errors_and_reports_are_read_from_any_spelling(sender):
    report = LoadReport(rif=1, slots=4, state=WorkerState.READY, boot_id=1, seq=1).to_header()
    refusal = answer(
        Overloaded("full").to_json(), "429 Too Many Requests",
        RETRY_after="7", ENDPOINT_load_METRICS=report,
    )  # fmt: skip
    async with Peer(saying(refusal)) as peer:
        reply = await sender.send(peer.address)
        assert reply.outcome is Outcome.OVERLOADED
        assert reply.error.retry_after_s == 7
        assert reply.report == report
        assert (await sender.send(peer.address)).outcome is Outcome.OVERLOADED
        assert peer.connections == 1


async def endless(read: list[int]):
    for number in itertools.count():
        read.append(number)
        yield b"x" * 100_000


async def stuck(read: list[int]):
    try:
        yield b"x"
        await asyncio.Event().wait()
    finally:
        read.append(-1)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ImageTooLarge("20 MB are too many"), Outcome.ANSWERED),
        (Overloaded("full"), Outcome.OVERLOADED),
        (Draining("leaving"), Outcome.DRAINING),
        (DeadlineExceeded("late"), Outcome.ABANDONED),
    ],
)
@pytest.mark.parametrize("source", ["bytes", "endless", "stuck"])
@pytest.mark.parametrize("then", ["closes", "waits"])
async def test_a_worker_may_refuse_before_it_has_read_the_image(
    sender, error, outcome, source, then
):
    ended = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.head()
        talk.say(answer(error.to_json(), f"{error.status} No"))
        if then == "waits":
            await talk.closed()
        ended.set()

    read: list[int] = []
    data = {
        "bytes": b"x" * 20 * MB,
        "endless": OneShot(endless(read)),
        "stuck": OneShot(stuck(read)),
    }[source]
    async with Peer(script) as peer:
        reply = await sender.send(peer.address, data)
        assert reply.outcome is outcome
        assert str(reply.error) == str(error)
        assert sender.attempt.sent_at is None
        assert sender.attempt.sent_bytes < 20 * MB
        if source == "stuck":
            assert read == [-1]
        await ended.wait()


async def test_an_answer_that_trickles_is_waited_for():
    async def script(talk: Conversation) -> None:
        await talk.request()
        whole = answer()
        for start in range(0, len(whole), 40):
            talk.say(whole[start : start + 40])
            await asyncio.sleep(0.15)

    async with Peer(script) as peer, Sender(response_timeout_s=0.5) as sender:
        assert (await sender.send(peer.address)).outcome is Outcome.ANSWERED


async def test_and_one_that_stops_is_not():
    async with Peer(saying(answer()[:-1])) as peer, Sender(response_timeout_s=0.1) as sender:
        reply = await sender.send(peer.address)
        assert reply.outcome is Outcome.FAILED
        assert "no response for 0.1 s" in str(reply.error)


@pytest.mark.parametrize(
    ("several", "body"),
    [
        ((b"12", b"", b"34"), b"1234"),
        ((b"x" * 5 * MB, bytearray(b"y")), b"x" * 5 * MB + b"y"),
        ((memoryview(array.array("I", [1, 2])),), array.array("I", [1, 2]).tobytes()),
        ((), b""),
    ],
    ids=["empty pieces", "large", "of other items", "nothing"],
)
async def test_a_source_that_is_read_once_goes_in_chunks(sender, several, body):
    async with Peer() as peer:
        reply = await sender.send(peer.address, OneShot(pieces(*several)))
        assert reply.outcome is Outcome.ANSWERED
        assert peer.bodies == [body]
        assert sender.attempt.sent_bytes == len(body)
        assert (await sender.send(peer.address)).outcome is Outcome.ANSWERED
        assert peer.connections == 1


async def test_a_source_of_anything_else_is_an_image_error(sender):
    async with Peer() as peer:
        with pytest.raises(ImageError, match="TypeError") as caught:
            await sender.send(peer.address, OneShot(pieces(b"12", "34")))
        assert isinstance(caught.value.__cause__, TypeError)
        assert peer.bodies == []


async def test_a_peer_that_does_not_read_stops_the_reading_of_the_source(sender):
    go_on = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await go_on.wait()
        talk.say(answer())
        await talk.closed()

    read: list[int] = []
    async with Peer(script) as peer:
        call = asyncio.create_task(sender.send(peer.address, OneShot(endless(read))))
        await until(lambda: read)
        assert await settled(lambda: len(read)) * 100_000 < 32 * MB
        assert sender.attempt.sent_bytes < 32 * MB
        go_on.set()
        assert (await call).outcome is Outcome.ANSWERED


async def half_an_answer(talk: Conversation) -> None:
    await talk.request()
    talk.say(answer()[:-10])
    await talk.closed()


async def no_reading(talk: Conversation) -> None:
    await talk.head()
    await asyncio.Event().wait()


@pytest.mark.parametrize("script", [no_answer, half_an_answer, no_reading])
@pytest.mark.parametrize("one_shot", [False, True])
@pytest.mark.parametrize("how", ["cancel", "close", "abort", "cancel and close"])
async def test_an_exchange_that_is_ended_leaves_nothing(script, one_shot, how):
    """Ended after each of the first steps of the event loop, and when nothing more happens."""
    tasks, sockets = asyncio.all_tasks(), open_sockets()
    data = b"x" * 20 * MB
    async with Peer(script) as peer:
        for steps in (*range(1, 8), 200):
            async with Sender() as sender:
                whole = OneShot(pieces(data)) if one_shot else data
                call = asyncio.create_task(sender.send(peer.address, whole))
                for _ in range(steps):
                    await asyncio.sleep(0)
                if "cancel" in how:
                    call.cancel()
                if "close" in how:
                    await sender.transport.aclose()
                if how == "abort":
                    sender.transport.abort(peer.address, "enough")
                    call.cancel()  # whose image is not all sent is not given up
                with contextlib.suppress(asyncio.CancelledError, RuntimeError):
                    assert (await call).error is not None
    await until(lambda: open_sockets() <= sockets and asyncio.all_tasks() <= tasks)


async def test_a_worker_that_is_given_up_answers_nobody(sender):
    async with Peer(no_answer) as peer:
        calls = [asyncio.create_task(sender.send(peer.address)) for _ in range(3)]
        await until(lambda: peer.open == 3)
        await until(lambda: sender.attempt.sent_at is not None)
        sender.transport.abort("127.0.0.1:1", "nobody is there")
        sender.transport.abort(peer.address, "enough")
        for reply in await asyncio.gather(*calls):
            assert reply.outcome is Outcome.FAILED
            assert str(reply.error) == f"{peer.address}: enough"
        await until(lambda: not peer.open)


@pytest.mark.shell
def test_it_runs_on_uvloop_too():
    async def main() -> None:
        async with Peer() as peer, Sender() as sender:
            for data in (b"image", b"x" * 20 * MB, OneShot(pieces(b"12", b"34"))):
                assert (await sender.send(peer.address, data)).outcome is Outcome.ANSWERED
            assert list(map(len, peer.bodies)) == [5, 20 * MB, 4]
            assert peer.connections == 1
        async with Peer(no_reading) as peer, Sender() as sender:
            call = asyncio.create_task(sender.send(peer.address, b"x" * 20 * MB))
            while not sender.attempt.sent_bytes:
                await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    sockets = open_sockets()
    uvloop.run(main())
    assert open_sockets() == sockets
