"""Whether the link or the peer holds up what was sent, against the real kernel."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
import threading
from collections.abc import Iterator

import pytest
from tests.support.paced import paced_socket
from tests.support.waiting import until

from fingerpost.client.transport.in_kernel import waits_for_link

pytestmark = pytest.mark.shell
_BYTES = 100_000


@contextlib.contextmanager
def connected(bytes_per_s: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection whose link has a rate; the first sends."""
    with socket.create_server(("127.0.0.1", 0)) as server, paced_socket(bytes_per_s) as sender:
        sender.connect(server.getsockname())
        receiver, _ = server.accept()
        with receiver:
            sender.setblocking(False)
            yield sender, receiver


async def test_bytes_on_a_slow_link_wait_for_it_until_they_have_arrived():
    with connected(_BYTES) as (sender, receiver):
        sent = sender.send(bytes(_BYTES))
        assert waits_for_link(sender)
        left = sent

        def read() -> None:
            nonlocal left
            while left:
                left -= len(receiver.recv(1 << 16))

        reader = threading.Thread(target=read)
        reader.start()
        await until(lambda: not waits_for_link(sender))
        reader.join()
    assert not waits_for_link(sender)  # closed


async def test_bytes_for_a_peer_that_does_not_read_wait_for_the_peer():
    with connected(1 << 30) as (sender, _):
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.send(bytes(1 << 20))
        await until(lambda: not waits_for_link(sender))
        [held_bytes] = struct.unpack("i", fcntl.ioctl(sender, termios.TIOCOUTQ, bytes(4)))
        assert held_bytes > 0


def test_a_unix_socket_has_no_link():
    one, other = socket.socketpair()
    with one, other:
        one.send(bytes(1000))
        assert not waits_for_link(one)
