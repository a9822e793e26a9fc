"""`/v1/stream` over a real connection: answers, errors, flow control, drain, and lost clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable

import aiohttp
import pytest

from fingerpost.client.frames import (
    HEARTBEAT,
    STREAM_TYPE,
    Ended,
    FrameDecoder,
    Opened,
    StreamAnswer,
    StreamImage,
    frame_head,
    read_server_head,
)
from fingerpost.errors import BadAnswer
from fingerpost.registry import LOAD_HEADER, LoadReport, WorkerState
from fingerpost.worker.config import RequestConfig, StreamConfig
from tests.support.colours import encoded
from tests.support.optional import not_none
from tests.support.rig import Rig, serving
from tests.support.waiting import settled, until

PATH = "/v1/stream/colours"
TYPE = {"Content-Type": STREAM_TYPE}
COLOURS = ("red", "green", "blue")


def framed(data: bytes, key: str = "", deadline_ms: float | None = None) -> bytes:
    return frame_head(StreamImage(key=key, deadline_ms=deadline_ms), len(data)) + data


async def chunks(frames: Iterable[bytes]) -> AsyncIterator[bytes]:
    for frame in frames:
        yield frame


class Answers:
    """What a stream's response says, frame by frame."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        self._decoder = FrameDecoder(max_body_bytes=0, max_head_bytes=1_000_000, error=BadAnswer)
        self.raw = b""

    async def next(self) -> Opened | StreamAnswer | Ended | None:
        while (frame := self._decoder.take()) is None:
            chunk = await asyncio.wait_for(self._content.readany(), 10)
            if not chunk:
                assert not self._decoder.partial
                return None
            self.raw += chunk
            self._decoder.feed(chunk)
        return read_server_head(frame.head)

    async def all(self) -> tuple[list[StreamAnswer], Ended]:
        opened = await self.next()
        assert isinstance(opened, Opened)
        found = []
        while isinstance(answer := await self.next(), StreamAnswer):
            found.append(answer)
        assert isinstance(answer, Ended)
        assert await self.next() is None
        return sorted(found, key=lambda each: each.seq), answer


async def send(
    http: aiohttp.ClientSession, frames: Iterable[bytes], path: str = PATH, **headers: str
) -> tuple[list[StreamAnswer], Ended]:
    async with http.post(path, data=chunks(frames), headers=TYPE | headers) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == STREAM_TYPE
        assert LoadReport.from_header(response.headers[LOAD_HEADER]).rif == 0
        return await Answers(response.content).all()


async def test_every_image_gets_its_answer(http: aiohttp.ClientSession, rig: Rig) -> None:
    frames = [framed(encoded(COLOURS[n % 3]), f"{n}.png") for n in range(200)]
    answers, ended = await send(http, frames, f"{PATH}@7?top=1")
    assert ended == Ended(taken=200, reason="done")
    assert [answer.seq for answer in answers] == list(range(200))
    for n, answer in enumerate(answers):
        assert (answer.result.name, answer.version) == (f"{n}.png", "7")
        ((label, score),) = answer.result.predictions
        assert (label, score > 0.99) == (COLOURS[n % 3], True)
        assert answer.result.timings_ms is not None
    async with http.get("/metrics") as response:
        assert 'images_total{model="colours"} 200.0' in await response.text()


async def test_answers_come_while_the_client_still_sends(http: aiohttp.ClientSession) -> None:
    first_answer = asyncio.Event()

    async def images() -> AsyncIterator[bytes]:
        yield framed(encoded("red"))
        await asyncio.wait_for(first_answer.wait(), 10)
        yield framed(encoded("blue"))

    async with http.post(PATH, data=images(), headers=TYPE) as response:
        answers = Answers(response.content)
        assert isinstance(await answers.next(), Opened)
        first = await answers.next()
        first_answer.set()
        second = await answers.next()
        assert isinstance(first, StreamAnswer)
        assert isinstance(second, StreamAnswer)
        assert [each.result.predictions[0][0] for each in (first, second)] == ["red", "blue"]
        assert await answers.next() == Ended(taken=2, reason="done")


async def test_a_bad_image_fails_alone(http: aiohttp.ClientSession) -> None:
    bad = {
        3: (framed(b""), "empty_image"),
        4: (framed(b"no image"), "unsupported_image"),
        5: (framed(encoded("red")[:60]), "broken_image"),
        6: (framed(b"\xff\xd8\xff" + bytes(300_000)), "image_too_large"),
        7: (b"\x00\x00\x00\x03\x00\x00\x00\x00{}}", "invalid_request"),
        8: (framed(encoded("red"), deadline_ms=-1), "deadline"),
    }
    frames = [bad[n][0] if n in bad else framed(encoded("green")) for n in range(20)]
    answers, ended = await send(http, frames)
    assert ended == Ended(taken=20, reason="done")
    for n, answer in enumerate(answers):
        if n in bad:
            assert not_none(answer.result.error).code == bad[n][1]
        else:
            assert answer.result.predictions[0][0] == "green"


async def test_an_image_s_own_deadline(http: aiohttp.ClientSession, rig: Rig) -> None:
    rig.backend.gate.clear()
    frames = [framed(encoded("red"), deadline_ms=30)]
    (answer,), ended = await send(http, frames)
    assert not_none(answer.result.error).code == "deadline"
    assert ended == Ended(taken=1, reason="done")
    rig.backend.gate.set()


REFUSED = {
    "another type": (PATH, {"Content-Type": "image/png"}, 415, "unsupported_image"),
    "compressed": (PATH, TYPE | {"Content-Encoding": "gzip"}, 415, "unsupported_image"),
    "unknown model": ("/v1/stream/flowers", TYPE, 404, "unknown_model"),
    "unknown version": (f"{PATH}@8", TYPE, 404, "unknown_model"),
    "bad top": (f"{PATH}?top=x", TYPE, 400, "invalid_request"),
    "late": (PATH, TYPE | {"Fingerpost-Deadline-Ms": "0"}, 504, "deadline"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused_by_the_headers(http: aiohttp.ClientSession, name: str) -> None:
    path, headers, status, code = REFUSED[name]
    async with http.post(path, data=b"", headers=headers) as response:
        assert response.status == status
        assert (await response.json())["error"]["code"] == code
        assert LOAD_HEADER in response.headers


async def test_no_frames(http: aiohttp.ClientSession) -> None:
    for body, words in (
        (b"GET / HTTP/1.1\r\n\r\n", "the head of a frame has"),
        (framed(encoded("red"))[:-5], "within a frame"),
    ):
        answers, ended = await send(http, [body])
        assert answers == []
        assert ended.error is not None
        assert (ended.taken, ended.reason, ended.error.code) == (0, "failed", "invalid_request")
        assert words in ended.error.message


async def test_a_stream_s_deadline(http: aiohttp.ClientSession) -> None:
    async def images() -> AsyncIterator[bytes]:
        yield framed(encoded("red"))
        await asyncio.sleep(60)

    headers = TYPE | {"Fingerpost-Deadline-Ms": "300"}
    async with http.post(PATH, data=images(), headers=headers) as response:
        answers, ended = await Answers(response.content).all()
    assert [answer.result.predictions[0][0] for answer in answers] == ["red"]
    assert (ended.taken, ended.reason, not_none(ended.error).code) == (1, "failed", "deadline")


async def test_silence_ends_a_stream_and_heartbeats_keep_it() -> None:
    async with (
        serving(streams=StreamConfig(idle_timeout_s=0.4, heartbeat_s=0.05)) as rig,
        aiohttp.ClientSession(rig.url) as http,
    ):
        beats = 0

        async def images() -> AsyncIterator[bytes]:
            nonlocal beats
            while beats < 20:
                await asyncio.sleep(0.05)
                beats += 1
                yield HEARTBEAT
            yield framed(encoded("red"))
            await asyncio.sleep(60)

        async with http.post(PATH, data=images(), headers=TYPE) as response:
            answers = Answers(response.content)
            found, ended = await answers.all()
        assert len(found) == 1
        assert ended.error is not None
        assert (beats, ended.reason, ended.error.code) == (20, "failed", "invalid_request")
        assert "no byte for 0.4 s" in ended.error.message
        assert HEARTBEAT in answers.raw


async def test_the_window_bounds_what_is_read_ahead() -> None:
    async with (
        serving(streams=StreamConfig(window=4)) as rig,
        aiohttp.ClientSession(rig.url) as http,
    ):
        rig.backend.gate.clear()
        image, sent = encoded("red", (300, 300), "BMP")[:190_000], 0

        async def images() -> AsyncIterator[bytes]:
            nonlocal sent
            for _ in range(300):
                yield framed(image)
                sent += 1

        image = encoded("red", (250, 250), "BMP")
        async with http.post(PATH, data=images(), headers=TYPE) as response:
            await until(lambda: rig.rif == 4)
            assert await settled(lambda: sent) < 100  # TCP's buffers are full
            assert rig.rif == 4
            rig.backend.gate.set()
            answers, ended = await Answers(response.content).all()
        assert (len(answers), ended.taken, ended.reason) == (300, 300, "done")


async def test_a_client_that_reads_nothing_stops_the_worker_and_is_dropped_at_last() -> None:
    async with serving(classes=1000, streams=StreamConfig(idle_timeout_s=1.0)) as rig:
        client = socket.create_connection(("127.0.0.1", rig.port))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        head = (
            f"POST {PATH}?top=0 HTTP/1.1\r\nHost: x\r\nContent-Type: {STREAM_TYPE}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n"
        )
        frame = framed(encoded("red", (4, 4)))
        chunk = b"%x\r\n%s\r\n" % (len(frame), frame)

        async def flood() -> None:
            await loop.sock_sendall(client, head.encode())
            while True:
                await loop.sock_sendall(client, chunk * 50)

        flooding = asyncio.create_task(flood())
        try:
            await until(lambda: rig.rif > 0)
            await until(lambda: not rig.service.admission._streams)
            assert rig.rif == 0
            # Some 25 KB an answer: TCP's buffers held these.
            assert rig.backend.seen * 25_000 < 30_000_000
            with pytest.raises(OSError):
                await asyncio.wait_for(flooding, 10)
        finally:
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)
            client.close()


async def test_a_drain_ends_a_stream_after_what_it_has(
    http: aiohttp.ClientSession, rig: Rig
) -> None:
    rig.backend.gate.clear()

    async def images() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield framed(encoded("red"))
        await asyncio.sleep(60)

    async with http.post(PATH, data=images(), headers=TYPE) as response:
        await until(lambda: rig.rif == 3)
        rig.service.admission.state = WorkerState.DRAINING
        assert not await rig.service.admission.idle(0.05)
        rig.backend.gate.set()
        answers, ended = await Answers(response.content).all()
    assert [answer.result.predictions[0][0] for answer in answers] == ["red"] * 3
    assert ended == Ended(taken=3, reason="draining")
    assert await rig.service.admission.idle(5)
    answers, ended = await send(http, [framed(encoded("red"))])
    assert (answers, ended) == ([], Ended(taken=0, reason="draining"))


async def test_an_idle_stream_is_no_load_but_holds_the_drain(
    http: aiohttp.ClientSession, rig: Rig
) -> None:
    async def images() -> AsyncIterator[bytes]:
        yield HEARTBEAT
        await asyncio.sleep(60)

    async with http.post(PATH, data=images(), headers=TYPE) as response:
        answers = Answers(response.content)
        assert isinstance(await answers.next(), Opened)
        assert rig.rif == 0
        assert not await rig.service.admission.idle(0.01)
        rig.service.admission.state = WorkerState.DRAINING
        assert await answers.next() == Ended(taken=0, reason="draining")
    assert await rig.service.admission.idle(5)


@pytest.mark.parametrize("where", ["within a frame", "while images are in flight"])
async def test_a_client_that_goes_leaves_nothing(rig: Rig, where: str) -> None:
    rig.backend.gate.clear()
    async with aiohttp.ClientSession(rig.url) as http:

        async def images() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield framed(encoded("red"))
            if where == "within a frame":
                yield framed(encoded("red"))[:20]
            await asyncio.sleep(60)

        async with http.post(PATH, data=images(), headers=TYPE) as response:
            await until(lambda: rig.rif == 3)
            response.close()
    await until(lambda: rig.rif == 0 and not rig.service.admission._streams)
    assert await rig.service.admission.idle(5)
    assert rig.engine.queued == 0 or rig.backend.seen == 0
    rig.backend.gate.set()


async def test_too_many_streams() -> None:
    async with (
        serving(requests=RequestConfig(max_in_flight=1)) as rig,
        aiohttp.ClientSession(rig.url) as http,
        contextlib.AsyncExitStack() as stack,
    ):

        async def images() -> AsyncIterator[bytes]:
            yield HEARTBEAT
            await asyncio.sleep(60)

        await stack.enter_async_context(http.post(PATH, data=images(), headers=TYPE))
        async with http.post(PATH, data=images(), headers=TYPE) as response:
            assert response.status == 429
        async with http.post("/", data=encoded("red")) as response:
            assert response.status == 200  # an idle stream keeps nobody out
