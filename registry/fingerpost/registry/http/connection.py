"""What a client sends: requests are read here, and given to who answers them.

llhttp, through httptools, reads heads and chunks; a head that came before is not read again, see
`repeated`. A request on a known path goes to its handler; any other becomes one of aiohttp, for the
application. A body of known length whose end is still to come goes past the parser, which would
copy it.

No more than 32 KB are parsed in one turn of the event loop, except of a body whose length is known:
chunks of a byte take 0.5 us each, and 256 KB of them, as much as is read at once, would hold it for
20 ms.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from aiohttp import ClientPayloadError, StreamReader, hdrs
from aiohttp.streams import EMPTY_PAYLOAD
from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from fingerpost.errors import InvalidRequest
from fingerpost.registry.http.answers import (
    answer_by_application,
    answer_bytes,
    answer_failed,
    answer_invalid,
    answer_plain,
)
from fingerpost.registry.http.body import NO_BODY, Body
from fingerpost.registry.http.head import MAX_HEAD_BYTES, RequestLines, message_of, version_of
from fingerpost.registry.http.line import ClientLine
from fingerpost.registry.http.repeated import RepeatedHeads
from fingerpost.registry.http.request import PlainRequest

if TYPE_CHECKING:
    from fingerpost.registry.http.context import ServerContext

__all__ = ["HttpConnection"]

logger = logging.getLogger(__name__)

_SLICE_BYTES: Final = 1 << 15
# Where a head ends that is as short as most.
_SHORT_HEAD_BYTES: Final = 1 << 12
_END: Final = b"\r\n\r\n"
_NOTHING: Final = memoryview(b"")


class HttpConnection(ClientLine):
    """The connection of one client.

    Args:
        context: what all connections of a server share.
    """

    def __init__(self, context: ServerContext) -> None:
        super().__init__(context)
        # The request that is being read.
        self._reader: HttpRequestParser | None = HttpRequestParser(self)  # None: no more is read
        self._lines = RequestLines()
        self._repeated = RepeatedHeads(context.numbers)
        self._fresh: bytes | None = None  # begin with a request, whose head is to be parsed
        self._dry_bytes = 0  # of a head, or of a body's framing, since the last event
        self._in_request = False  # or its body, also one that nobody has asked for
        self._body: Body | StreamReader | None = None
        self._body_left = 0  # of a body whose length is known
        self._past_reader = False  # its rest does not go through the parser
        self._backlog = _NOTHING  # was received, and is parsed in later turns
        self._slicing = False
        self._body_waits = self._stopped = False  # no more is read for a while

    @property
    def idle(self) -> bool:
        """Whether no request is being read or answered, and the client has read all answers."""
        return (
            not (self._busy or self._in_head or self._backlog or self._closing)
            and self._body is None
            and self.transport is not None
            and not self.transport.get_write_buffer_size()
        )

    def _add_bytes(self, answer: bytes) -> None:
        """Send an answer that is known already, in its turn; its request has no body."""
        if self.idle:
            self.write(answer)
            self.touch()
        else:
            self._add(partial(answer_bytes, self, answer))

    # Bytes.

    def data_received(self, data: bytes) -> None:
        if self._reader is None:
            return
        if self._backlog:
            self._backlog = memoryview(b"".join((self._backlog, data)))
            return
        if not (self._in_request or self._busy or self._closing):
            if self._repeat(data):
                return
            self._fresh = data
        if self._past_reader and len(data) <= self._body_left:
            self._feed_body(data)
        elif len(data) <= _SLICE_BYTES and not self._past_reader:
            self._parse(data)
        else:
            self._slice(memoryview(data))
        if self._body_left and not self._past_reader and not self._backlog:
            self._past_reader, self._reader = True, HttpRequestParser(self)
        self._fresh = None

    def _repeat(self, data: bytes) -> bool:
        """Take a request whose head came before, with what has come of its body; False if not so.

        The parser waits for the next request meanwhile. More than one request is left to it.
        """
        found = self._repeated.find(data)
        if found is None:
            return False
        head, head_bytes, headers = found
        context = self._context
        length, came = int(headers.get(hdrs.CONTENT_LENGTH, 0)), len(data) - head_bytes
        if came > length or came > context.read_bytes:
            return False
        content = Body(context.read_bytes, self._hold) if length else NO_BODY
        request = PlainRequest(
            self,
            head.method,
            head.path,
            headers,
            head.version,
            keep_alive=True,
            content=content,
            memo=head.memo,
        )
        handler = head.handler
        if handler is None:
            return not length and self._repeat_answer(request)
        if came < length:
            if came:
                content.feed_data(data[head_bytes:])
            self._body, self._body_left = content, length - came
            self._in_request = self._past_reader = True
            self._dry_bytes = 0
        elif length:
            content.has_come(data[head_bytes:])
        self._add(partial(answer_plain, self, request, handler))
        return True

    def _repeat_answer(self, request: PlainRequest) -> bool:
        """Ask for the answer to such a request anew, and send it; False if there is none now."""
        known = self._context.known
        try:
            answer = None if known is None else known(request)
        except Exception:
            self._fail()
            return True
        if isinstance(answer, bytes):
            self._add_bytes(answer)
        return isinstance(answer, bytes)

    def _slice(self, data: memoryview) -> None:
        """Parse as much as may be parsed in this turn, and the rest in later ones."""
        if self._past_reader:
            first = self._body_left
            self._feed_body(bytes(data[:first]))
        else:
            first = _SLICE_BYTES
            if self._body is None and not self._in_head:
                end = bytes(data[:_SHORT_HEAD_BYTES]).find(_END)
                first = first if end < 0 else end + len(_END)
            self._parse(data[:first])
        data = data[first:]
        if data and (left := self._body_left):
            if self._past_reader:
                self._feed_body(bytes(data[:left]))
            else:
                self._parse(data[:left])
            data = data[left:]
        self._backlog = _NOTHING if self._reader is None else data
        self._update_reading()

    def _next_slice(self) -> None:
        self._slicing = False
        if not (self._body_waits or self._many_wait):
            data, self._backlog = self._backlog, _NOTHING
            self._slice(data)

    def _parse(self, data: bytes | memoryview) -> None:
        try:
            while data and self._reader is not None:
                try:
                    self._reader.feed_data(data)
                    break
                except HttpParserUpgrade as upgrade:  # not offered: the next request follows
                    data = memoryview(data)[upgrade.args[0] :]
                    if left := self._body_left:  # which the parser takes for what follows, too
                        self._past_reader, self._reader = True, HttpRequestParser(self)
                        if data:
                            self._feed_body(bytes(data[:left]))
                        data = data[left:]
        except HttpParserError as error:
            mine = error.__context__
            if isinstance(mine, InvalidRequest):
                self._refuse(mine.message)
            elif isinstance(error, HttpParserCallbackError):
                self._fail()
            else:
                self._refuse(f"{error}{self._lines.where(data)}")
            return
        if self._in_head and self._began_at is None:
            self._begin()
        if self._in_request and not self._body_left:
            self._dry_bytes += len(data)
            if self._dry_bytes > 2 * MAX_HEAD_BYTES:  # the parser keeps a field until it ends
                self._refuse(f"its head or a trailer has more than {MAX_HEAD_BYTES} bytes")

    def _feed_body(self, data: bytes) -> None:
        """Pass on bytes of a body that does not go through the parser."""
        self.on_body(data)
        if not self._body_left:
            self._past_reader = False
            self.on_message_complete()

    def _refuse(self, why: str) -> None:
        """Answer what is not HTTP as every other error is answered, and close."""
        known = self._body is not None  # its handler answers
        self._end_reading(ClientPayloadError(why))
        self._closing = self._closing or known
        if not known:
            logger.debug("%s sent what is not valid HTTP: %s", self.remote, why)
            self._add(partial(answer_invalid, self, why))

    def _fail(self) -> None:
        """Answer that this server has a fault, which goes to its log, and close."""
        logger.exception("a request from %s failed", self.remote)
        self._end_reading()
        self._add(partial(answer_failed, self))

    def _end_reading(self, error: BaseException | None = None) -> None:
        """Read no more; the body that is being read does not come whole."""
        self._reader = None  # which refers to this connection
        self._repeated.stop()
        self._backlog = _NOTHING
        self._began_at = None
        self._in_head = self._past_reader = False
        self._body_left = 0
        body, self._body = self._body, None
        if body is not None:
            body.set_exception(error or ClientPayloadError("the connection was closed"))

    # Calls of the parser.

    def on_message_begin(self) -> None:
        self._in_head = self._in_request = True
        self._dry_bytes = 0
        self._lines = RequestLines()

    def on_url(self, part: bytes) -> None:
        self._lines.add_target(part)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else it is of a trailer
            self._lines.fields.append((name, value))

    def on_headers_complete(self) -> None:
        reader, lines, context = self._reader, self._lines, self._context
        if reader is None:  # it is the caller
            return
        method, version = reader.get_method().decode(), version_of(reader.get_http_version())
        headers = lines.headers(version)
        fresh, self._fresh = self._fresh, None
        if reader.should_upgrade():
            self._repeated.stop()
        self._in_head, self._began_at = False, None
        length = int(headers.get(hdrs.CONTENT_LENGTH, 0))
        has_body = length > 0 or hdrs.TRANSFER_ENCODING in headers
        if has_body and reader.should_upgrade():
            if method == hdrs.METH_CONNECT:
                raise InvalidRequest("a CONNECT has no body")
            if not length:  # and the parser does not read its chunks
                raise InvalidRequest("it has an Upgrade, and a body without Content-Length")
        known = context.known
        if known is not None:
            content = Body(context.read_bytes, self._hold) if has_body else NO_BODY
            request = PlainRequest(
                self,
                method,
                lines.target.decode("utf-8", "surrogateescape"),
                headers,
                version,
                keep_alive=reader.should_keep_alive(),
                content=content,
            )
            found = known(request)
            if found is not None and fresh is not None:
                self._repeated.add(
                    fresh, lines, request, None if isinstance(found, bytes) else found
                )
            if isinstance(found, bytes):
                self._add_bytes(found)
                return
            if found is not None:
                if has_body:
                    self._body, self._body_left = content, length
                self._add(partial(answer_plain, self, request, found))
                return
        message = message_of(
            method,
            lines,
            headers,
            version,
            keep_alive=reader.should_keep_alive(),
            upgrade=reader.should_upgrade(),
        )
        payload = EMPTY_PAYLOAD
        if has_body:
            payload = StreamReader(self, context.read_bytes, loop=self._loop)
            self._body, self._body_left = payload, length
        self._add(partial(answer_by_application, self, context, message, payload))

    def on_body(self, data: bytes) -> None:
        if self._body_left:
            self._body_left -= len(data)
        self._dry_bytes = 0
        if self._body is not None:
            if self._next:
                self._count_ahead(len(data))
            self._body.feed_data(data)

    def on_message_complete(self) -> None:
        if self._body_left:  # after an upgrade's head, the parser says so
            return
        self._in_request = False
        body, self._body = self._body, None
        if body is not None:
            body.feed_eof()
            self._hold(wait=False)

    # When to read.

    def pause_reading(self) -> None:
        """Wait until a handler has taken more of its body."""
        self._hold(wait=True)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - aiohttp's
        """Read on."""
        self._hold(wait=False)

    def _hold(self, *, wait: bool) -> None:
        if self._body_waits != wait:
            self._body_waits = wait
            self._update_reading()

    def _update_reading(self) -> None:
        waits = self._body_waits or self._many_wait
        if self._backlog and not waits and not self._slicing:
            self._slicing = True
            self._loop.call_soon(self._next_slice)
        stop, transport = waits or bool(self._backlog), self.transport
        if stop != self._stopped and transport is not None and not transport.is_closing():
            self._stopped = stop
            if stop:
                transport.pause_reading()
            else:
                transport.resume_reading()
