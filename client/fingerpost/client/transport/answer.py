"""What a worker says on one connection, as HTTP/1.1 answers: bytes in, answers out."""

from __future__ import annotations

from typing import Final, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from fingerpost.errors import BadAnswer
from fingerpost.registry.load import MAX_LOAD_BYTES

__all__ = ["Answer", "AnswerReader"]

# Of one answer, framing included, so that a hostile worker cannot fill the client's memory. Real
# answers have some hundred bytes of each.
_MOST_HEAD_BYTES: Final = 1 << 16
_MOST_BYTES: Final = 1 << 24
# Of an answer to a request without an image, which is a load report.
_MOST_PROBE_BYTES: Final = _MOST_HEAD_BYTES + MAX_LOAD_BYTES


class Answer(NamedTuple):
    """One answer: its status, its header fields by lower-case name (the last of several), its body.

    Fields after a chunked body are passed over.
    """

    status: int
    fields: dict[bytes, bytes]
    body: bytes


class AnswerReader:
    """Reads the answers of one connection, one at a time, cut anywhere.

    Informational answers (1xx, `100 Continue` say) are passed over. What parses is llhttp, the
    parser of Node.js, through httptools; after a `BadAnswer` nothing more can be read.

    Args:
        peer: names the worker in errors.

    Attributes:
        begun: whether any byte of the next answer has come.
        keep: whether the connection can be used again after the last answer.
        probing: whether the next answer is a load report, which has a lower limit.
    """

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._parser = HttpResponseParser(self)
        self._bytes = 0
        self._in_body = False
        self._fields: dict[bytes, bytes] = {}
        self._body = bytearray()
        self._answer: Answer | None = None
        self.keep = True
        self.probing = False

    @property
    def begun(self) -> bool:
        """See the class."""
        return self._bytes > 0

    def feed(self, data: bytes) -> Answer | None:
        """Take what came; the answer, once it is whole.

        Raises:
            BadAnswer: it is no HTTP/1.1, or too large.
        """
        self._bytes += len(data)
        problem: BaseException | None = None
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self.keep = False
            problem = error if error.__context__ is None else error.__context__  # our own
        answer = self._answer
        if answer is not None:  # what is wrong after it is not its fault
            self._answer = None
            self._bytes = 0
            return answer
        if problem is not None:
            raise BadAnswer(f"{self._peer}: {data[:200]!r} is no HTTP/1.1: {problem}") from problem
        most = _MOST_HEAD_BYTES
        if self._in_body:
            most = _MOST_PROBE_BYTES if self.probing else _MOST_BYTES
        if self._bytes > most:
            what = "an answer" if self._in_body else "the head of an answer"
            raise BadAnswer(f"{self._peer}: {what} of more than {most} bytes")
        return None

    def end(self) -> Answer:
        """The answer that the end of the connection completes.

        Raises:
            BadAnswer: it ends in the middle of one, or before.
        """
        self.keep = False
        framed = b"content-length" in self._fields or b"transfer-encoding" in self._fields
        if framed or not self._in_body:
            raise BadAnswer(f"{self._peer}: cut off after {self._bytes} bytes of an answer")
        return Answer(self._parser.get_status_code(), self._fields, bytes(self._body))

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._answer is not None:
            raise ValueError("more than was asked for")
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
            raise ValueError("another protocol, which nobody asked for")
        else:
            self._in_body = False
