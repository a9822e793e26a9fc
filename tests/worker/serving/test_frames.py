"""Frames in the memory of clients: what is mapped, what is refused, and that nothing stays."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import numpy as np
import pytest

from fingerpost.client.wire import FRAME_HEADER
from fingerpost.security.grant import NO_LIMITS
from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.backends.pixels import stack
from fingerpost.worker.config import RequestConfig
from fingerpost.worker.images import ImageConfig
from tests.support.colours import RGB, encoded
from tests.support.rig import Rig, serving
from tests.support.waiting import settled, until

pytestmark = pytest.mark.shell

CLASSIFY = "http://worker/v1/classify/colours"
SHAPE = (30, 40, 3)
SIZE = 3600
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
NAME = "fingerpost-test-frame"


class Sender:
    """A client by hand: the socket for frames, and HTTP at the one beside it."""

    def __init__(self, rig: Rig, path: Path, http: aiohttp.ClientSession) -> None:
        self.rig = rig
        self.http = http
        self.path = path
        self.sockets: list[socket.socket] = []

    def connected(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.settimeout(10)
        made.connect(f"{self.path}.frames")
        self.sockets.append(made)
        return made

    def send(self, descriptor: int, by: socket.socket | None = None) -> str:
        """Send the memory of a frame; the token."""
        token = secrets.token_hex(8)
        socket.send_fds(by or self.connected(), [token.encode()], [descriptor])
        return token

    async def ask(
        self, header: str, *, data: bytes = b"", url: str = CLASSIFY
    ) -> tuple[int, dict[str, Any]]:
        async with self.http.post(url, headers={FRAME_HEADER: header}, data=data) as response:
            return response.status, await response.json()

    async def classify(self, descriptor: int, shape: tuple[int, ...] = SHAPE) -> tuple[int, str]:
        """The status, and the label or the error."""
        described = "x".join(map(str, shape))
        status, body = await self.ask(f"{self.send(descriptor)} UINT8 {described}")
        if status == 200:
            return status, body["results"][0]["predictions"][0][0]
        return status, f"{body['error']['code']}: {body['error']['message']}"


@pytest.fixture
async def sender(short_folder: Path) -> AsyncIterator[Sender]:
    path = short_folder / "fingerpost.sock"
    limits: dict[str, Any] = {
        "images": ImageConfig(max_bytes=200_000, max_pixels=100_000, max_side=1000),
        "requests": RequestConfig(max_bytes=250_000),
    }
    async with serving(uds=str(path), **limits) as rig:
        connector = aiohttp.UnixConnector(str(path))
        async with aiohttp.ClientSession(connector=connector) as http:
            one = Sender(rig, path, http)
            yield one
            assert await one.classify(MAKERS["right"]()) == (200, "red")  # it goes on
            for each in one.sockets:
                each.close()
            await until(lambda: not rig.service.frames._senders)
        assert rig.service.memory.used == 0
        assert rig.rif == 0
        for each in list(DESCRIPTORS):
            os.close(each)
            DESCRIPTORS.remove(each)
        assert left() == 0


DESCRIPTORS: list[int] = []  # of the test itself


def memory(data: bytes, seals: int = SEALS) -> int:
    descriptor = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    DESCRIPTORS.append(descriptor)
    os.write(descriptor, data)
    if seals:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def red() -> bytes:
    return np.full(SHAPE, RGB["red"], np.uint8).tobytes()


def opened(descriptor: int) -> int:
    DESCRIPTORS.append(descriptor)
    return descriptor


def plain_file() -> int:
    return opened(os.open(__file__, os.O_RDONLY))


def pipe() -> int:
    read, write = os.pipe()
    opened(write)
    return opened(read)


def write_only() -> int:
    return opened(os.open(f"/proc/self/fd/{memory(red())}", os.O_WRONLY))


async def test_a_model_may_write_into_its_input(sender: Sender) -> None:
    """It writes into a copy of the pages: the client's memory stays as it is."""
    pixels = np.full((16, 16, 3), RGB["red"], np.uint8)
    descriptor = memory(pixels.tobytes())
    request: Any = SimpleNamespace(
        headers={FRAME_HEADER: f"{sender.send(descriptor)} UINT8 16x16x3"},
        content_length=0,
        remote=f"uid {os.geteuid()}",
    )
    held: Any = SimpleNamespace(body_bytes=0, grant=NO_LIMITS)
    frame = sender.rig.service.frames.take(request, held)
    batch = stack([frame], ImageInput(height=16, width=16, dtype="uint8"))
    assert np.shares_memory(batch, frame)
    batch[:] = 7
    assert os.pread(descriptor, 768, 0) == pixels.tobytes()
    sender.rig.service.memory.give(held)


def left() -> int:
    """How many mappings and descriptors of frames this process has, in which the worker is."""
    found = sum(NAME in line for line in Path("/proc/self/maps").read_text().splitlines())
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of this listing
            found += NAME in each.readlink().as_posix()
    return found


MAKERS: dict[str, Callable[[], int]] = {
    "right": lambda: memory(red()),
    "sealed against everything": lambda: memory(red(), SEALS | fcntl.F_SEAL_WRITE),
}
WRONG: dict[str, tuple[Callable[[], int], str]] = {
    "not sealed": (lambda: memory(red(), 0), "may shrink: seal it with F_SEAL_SHRINK"),
    "not against shrinking": (lambda: memory(red(), fcntl.F_SEAL_GROW), "may shrink"),
    "too short": (lambda: memory(red()[:-1]), "has 3,599 bytes, but UINT8 [30, 40, 3] has 3,600"),
    "too long": (lambda: memory(red() + b"x"), "has 3,601 bytes"),
    "empty": (lambda: memory(b""), "has 0 bytes"),
    "a file": (plain_file, "not in a memfd"),
    "a pipe": (pipe, "not in a memfd"),
    "not readable": (write_only, "cannot be mapped"),
}


@pytest.mark.parametrize("case", MAKERS)
async def test_a_sealed_frame_is_used_where_it_is(sender: Sender, case: str) -> None:
    assert await sender.classify(MAKERS[case]()) == (200, "red")
    assert sender.rig.backend.seen == 1


async def test_all_routes_of_images_take_frames(sender: Sender) -> None:
    token = sender.send(memory(red()))
    status, body = await sender.ask(f"{token} UINT8 30x40x3", url="http://worker/v1/infer/colours")
    assert (status, body["results"][0]["predictions"][0][0]) == (200, "red")
    token = sender.send(memory(red()))
    rows: Any
    status, rows = await sender.ask(f"{token.upper()} uint8 30x40x3", url="http://worker/")
    assert (status, rows[0][0]) == (200, "red")


async def test_it_is_mapped_until_the_model_has_run(sender: Sender) -> None:
    """A frame of the model's own size goes to the model as it is."""
    pixels = np.full((16, 16, 3), RGB["blue"], np.uint8)
    descriptor = memory(pixels.tobytes())
    before = left()
    sender.rig.backend.gate.clear()
    running = asyncio.create_task(sender.classify(descriptor, (16, 16, 3)))
    try:
        await until(sender.rig.engine.running_s)
        assert left() == before + 2  # the mapping, and the descriptor that Python keeps of it
        assert sender.rig.service.memory.used == pixels.nbytes
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 0)
    finally:
        sender.rig.backend.gate.set()
    assert await running == (200, "blue")
    await until(lambda: left() == before)


@pytest.mark.parametrize("case", WRONG)
async def test_memory_that_is_not_a_frame_is_refused(sender: Sender, case: str) -> None:
    make, why = WRONG[case]
    status, text = await sender.classify(make())
    assert (status, text.partition(":")[0]) == (422, "invalid_frame")
    assert why in text
    assert sender.rig.backend.seen == 0


async def test_memory_that_shrinks_is_never_mapped(sender: Sender) -> None:
    """Reading a page that is gone would end the worker."""
    descriptor = memory(red(), 0)
    token = sender.send(descriptor)
    os.ftruncate(descriptor, 0)
    status, body = await sender.ask(f"{token} UINT8 30x40x3")
    assert (status, body["error"]["code"]) == (422, "invalid_frame")


@pytest.mark.parametrize(
    ("shape", "status"),
    [((1001, 1, 3), 413), ((400, 300, 3), 413), ((300, 300, 3), 413), ((0, 40, 3), 422)],
)
async def test_limits_are_those_of_images(
    sender: Sender, shape: tuple[int, ...], status: int
) -> None:
    """A side, the pixels, and the bytes of a request; a frame without pixels is none."""
    assert (await sender.classify(memory(red()), shape))[0] == status


@pytest.mark.parametrize(
    "header",
    [
        "",
        "0123456789abcdef",
        "0123456789abcdef UINT8",
        "0123456789abcdef FP32 30x40x3",
        "0123456789abcdef UINT8 30x40x4",
        "0123456789abcdef UINT8 -30x40x3",
        "0123456789abcdef UINT8 3000000x40x3",
        "0123456789abcdeg UINT8 30x40x3",
        "0123456789abcdef UINT8 30x40x3 more",
    ],
)
async def test_a_header_that_is_not_valid_is_refused(sender: Sender, header: str) -> None:
    status, body = await sender.ask(header)
    assert (status, body["error"]["code"]) == (400, "invalid_request")


async def test_a_frame_is_asked_for_once_without_a_body(sender: Sender) -> None:
    header = f"{sender.send(memory(red()))} UINT8 30x40x3"
    assert (await sender.ask(header, data=encoded("red")))[0] == 400
    assert (await sender.ask(header))[0] == 200
    status, body = await sender.ask(header)
    assert (status, "send its memfd there first" in body["error"]["message"]) == (422, True)


async def test_a_frame_is_for_its_sender_alone(sender: Sender) -> None:
    """Not for a client of the port, nor for another user of the machine."""
    header = f"{sender.send(memory(red()))} UINT8 30x40x3"
    url = f"{sender.rig.url}/v1/classify/colours"
    headers = {FRAME_HEADER: header}
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, headers=headers) as response,
    ):
        assert response.status == 422
    (one,) = sender.rig.service.frames._senders.values()
    user, one.client = one.client, "uid 12345"
    assert (await sender.ask(header))[0] == 422
    one.client = user
    assert (await sender.ask(header))[0] == 200


def not_frames(by: socket.socket) -> Iterator[Callable[[], object]]:
    token = b"0123456789abcdef"
    good = memory(red())
    yield lambda: by.send(token)
    yield lambda: socket.send_fds(by, [token], [good, good])
    yield lambda: socket.send_fds(by, [token], [good] * 50)
    yield lambda: socket.send_fds(by, [token[1:]], [good])
    yield lambda: socket.send_fds(by, [token * 100], [good])


def has_ended(by: socket.socket) -> bool:
    by.settimeout(0)
    try:
        return by.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("number", range(5))
async def test_what_is_not_a_frame_ends_the_connection(sender: Sender, number: int) -> None:
    by = sender.connected()
    waiting = sender.send(memory(red()), by)
    list(not_frames(by))[number]()
    await until(lambda: has_ended(by))
    assert (await sender.ask(f"{waiting} UINT8 30x40x3"))[0] == 422


async def test_frames_that_nobody_asks_for_are_dropped(sender: Sender) -> None:
    by, descriptor = sender.connected(), memory(red())
    before = left()
    tokens = [sender.send(descriptor, by) for _ in range(40)]
    statuses = [(await sender.ask(f"{each} UINT8 30x40x3"))[0] for each in tokens]
    assert statuses == [422] * 8 + [200] * 32
    sender.send(descriptor, by)
    await until(lambda: left() == before + 1)
    by.close()
    await until(lambda: left() == before)


async def test_without_descriptors_nobody_is_accepted_for_a_while(sender: Sender) -> None:
    """The socket is readable all the time then: it must not keep the loop busy."""
    frames: Any = sender.rig.service.frames
    listener, exhausted = frames._listener, OSError(errno.EMFILE, "Too many open files")

    class Exhausted:
        accepted = 0

        def fileno(self) -> int:
            return int(listener.fileno())

        def accept(self) -> object:
            Exhausted.accepted += 1
            raise exhausted

    frames._listener = Exhausted()
    token = sender.send(memory(red()))
    await until(lambda: Exhausted.accepted == 1)
    await settled(lambda: Exhausted.accepted)
    assert Exhausted.accepted == 1
    frames._listener = listener
    await until(lambda: frames._senders)  # it goes on by itself
    assert (await sender.ask(f"{token} UINT8 30x40x3"))[0] == 200
