"""The HTTP/1.1 answers of one connection: bytes in, answers out. Does no I/O."""

from __future__ import annotations

from typing import Final, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from fingerpost.errors import BadAnswer
from fingerpost.registry.load import MAX_LOAD_BYTES

__all__ = ["Answer", "AnswerReader"]

# Limits on the head of one answer, and all informational answers before it, so that a hostile
# worker cannot fill the client's memory. Real answers have a few hundred bytes of head.
_MAX_HEAD_BYTES: Final = 1 << 16
# While an answer comes in, each further piece of so many bytes counts as progress. So a worker that
# sends a byte now and then is given up like one that sends nothing.
_PROGRESS_BYTES: Final = 1 << 16


class Answer(NamedTuple):
    """One answer: its status, its header fields by lower-case name, and its body.

    Of repeated fields the last one counts; trailer fields are ignored.
    """

    status: int
    fields: dict[bytes, bytes]
    body: bytes


class AnswerReader:
    """Reads the answers of one connection, one at a time, from chunks of any size.

    Informational answers (1xx, such as `100 Continue`) are skipped. The parser is llhttp, that of
    Node.js, through httptools. After a `BadAnswer` nothing more can be read.

    Args:
        peer: the worker's name in errors.

    Attributes:
        begun: whether any byte of the next answer was received; informational ones do not count.
        informed: whether an informational answer came before the next answer.
        keep: whether the connection can be used again after the last answer.
        max_body_bytes: the largest body that the next answer may have, framing included.
    """

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._parser = HttpResponseParser(self)
        self._bytes = 0
        self._in_body = False
        self._fields: dict[bytes, bytes] = {}
        self._body = bytearray()
        self._answer: Answer | None = None
        self._progress_at = 1
        self._skipped = 0  # bytes that were informational answers
        self.informed = False
        self.keep = True
        self.max_body_bytes = MAX_LOAD_BYTES

    @property
    def begun(self) -> bool:
        """Whether any byte of the next answer was received; informational ones do not count."""
        return self._bytes > self._skipped

    def feed(self, data: bytes) -> Answer | None:
        """Add received bytes; return the answer once it is complete, and None until then.

        Raises:
            BadAnswer: the bytes are not valid HTTP/1.1, or the answer is too large.
        """
        self._bytes += len(data)
        problem: BaseException | None = None
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self.keep = False
            problem = error if error.__context__ is None else error.__context__  # our own
        answer = self._answer
        if answer is not None:  # an error in the bytes after it does not concern it
            self._answer = None
            self._bytes = 0
            self._progress_at = 1
            self._skipped = 0
            self.informed = False
            return answer
        if problem is not None:
            raise BadAnswer(
                f"{self._peer}: {data[:200]!r} is not valid HTTP/1.1: {problem}"
            ) from problem
        limit = _MAX_HEAD_BYTES
        if self._in_body:
            limit += self.max_body_bytes
        if self._bytes > limit:
            what = "an answer" if self._in_body else "the head of an answer"
            raise BadAnswer(f"{self._peer}: {what} of more than {limit} bytes")
        return None

    def progressed(self) -> bool:
        """Whether the answer came on since the last call: it began, or much more of it came.

        An informational answer counts as well: its worker is not silent.
        """
        if self._bytes < self._progress_at:
            return False
        self._progress_at = self._bytes + _PROGRESS_BYTES
        return True

    def end(self) -> Answer:
        """The answer whose body ends with the connection.

        Raises:
            BadAnswer: the connection ended before or in the middle of an answer.
        """
        self.keep = False
        framed = b"content-length" in self._fields or b"transfer-encoding" in self._fields
        if framed or not self._in_body:
            raise BadAnswer(f"{self._peer}: closed after {self._bytes} bytes of an answer")
        return Answer(self._parser.get_status_code(), self._fields, bytes(self._body))

    # Callbacks of the parser.

    def on_message_begin(self) -> None:
        if self._answer is not None:
            raise ValueError("an answer without a request")
        self._skipped = 0
        self._in_body = False
        self._fields = {}
        self._body = bytearray()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:
            self._fields[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._in_body = True

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self.keep = self._parser.should_keep_alive()
            self._answer = Answer(status, self._fields, bytes(self._body))
        elif status == 101:
            raise ValueError("a switch to another protocol, which was not requested")
        else:
            self._in_body = False
            self.informed = True
            self._progress_at = self._skipped = self._bytes
