"""A socket that speaks TLS, with the methods that a `Connection` uses of a plain one.

OpenSSL reads and writes the kernel's socket itself, one record of at most 16 KB at a time, without
the memory buffers of asyncio's transports: an image is encrypted straight into the kernel's buffer.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

__all__ = ["TlsSocket", "open_tls"]

_RECORD_BYTES: Final = 1 << 14
# Up to here the pieces of a request are joined: each one would be a record and a call of its own.
_JOIN_BYTES: Final = 1 << 16


class TlsSocket:
    """A connected socket whose handshake is over.

    Args:
        tls: the socket; non-blocking.
        keep: called once with the session, when the first answer has come: a server sends its
            tickets after the handshake.
    """

    __slots__ = ("_keep", "_tls", "close", "fileno", "getsockopt", "setsockopt")

    def __init__(self, tls: ssl.SSLSocket, keep: Callable[[ssl.SSLSession | None], None]) -> None:
        self._tls = tls
        self._keep: Callable[[ssl.SSLSession | None], None] | None = keep
        self.fileno = tls.fileno
        self.close = tls.close
        self.getsockopt = tls.getsockopt
        self.setsockopt = tls.setsockopt

    @property
    def session_reused(self) -> bool:
        """Whether the handshake was a resumed one."""
        return bool(self._tls.session_reused)

    def recv(self, most: int) -> bytes:
        """What one record brought; `most` is at least a whole one, so that none stays in OpenSSL.

        Raises:
            BlockingIOError: there is none yet.
            OSError: the connection broke; `ssl.SSLError` if the peer does not accept our
                certificate.
        """
        try:
            data = self._tls.recv(most)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        if self._keep is not None:
            self._keep(self._tls.session)
            self._keep = None
        return data

    def sendmsg(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Send as much as the kernel accepts; return how many bytes.

        What was not accepted must come again unchanged: OpenSSL holds its encrypted record.

        Raises:
            BlockingIOError: nothing was accepted.
            OSError: the connection broke.
        """
        sent = 0
        try:
            for piece in _records(pieces):
                view = memoryview(piece)
                while view:
                    accepted = self._tls.send(view)
                    sent += accepted
                    view = view[accepted:]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if not sent:
                raise BlockingIOError from None
        except ssl.SSLError as error:  # the worker may have answered before: reading will see
            raise ConnectionAbortedError(str(error)) from error
        return sent


def _records(pieces: Sequence[bytes | memoryview]) -> Sequence[bytes | memoryview]:
    """The same bytes, in pieces of which the first fills a record."""
    if len(pieces) == 1:
        return pieces
    if sum(map(len, pieces)) <= _JOIN_BYTES:
        return (b"".join(pieces),)
    head, body, *rest = pieces
    taken = max(0, _RECORD_BYTES - len(head))
    view = memoryview(body)
    return (b"".join((head, view[:taken])), view[taken:], *rest)


async def open_tls(
    sock: socket.socket,
    context: ssl.SSLContext,
    host: str,
    session: ssl.SSLSession | None,
    keep: Callable[[ssl.SSLSession | None], None],
) -> TlsSocket:
    """Shake hands over a connected, non-blocking socket, which it owns from now on.

    Args:
        session: of an earlier connection with the same context; the handshake is then shorter.

    Raises:
        ssl.SSLError: one side does not accept the other one's certificate.
        OSError: the connection broke.
    """
    try:
        tls = context.wrap_socket(
            sock, do_handshake_on_connect=False, server_hostname=host, session=session
        )
    except BaseException:
        sock.close()
        raise
    loop = asyncio.get_running_loop()
    try:
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await _ready(loop.add_reader, loop.remove_reader, tls.fileno())
            except ssl.SSLWantWriteError:
                await _ready(loop.add_writer, loop.remove_writer, tls.fileno())
            else:
                return TlsSocket(tls, keep)
    except BaseException:
        tls.close()
        raise


async def _ready(add: Any, remove: Any, descriptor: int) -> None:
    ready = asyncio.Event()
    add(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        remove(descriptor)
