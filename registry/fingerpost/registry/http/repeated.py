"""Heads that a client sends again and again on its connection, which need not be parsed again.

The same bytes, from the first byte of a request on, are the same head. So are bytes that differ
only in the digits of a length or of a deadline. Everything else is parsed; `RepeatedHead.of` says
what is never kept.

Rejected: one memory for all connections, which would need a hash of each head, and where the
credentials of one client are next to what another one sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import HttpVersion11, hdrs
from multidict import CIMultiDict, CIMultiDictProxy

if TYPE_CHECKING:
    from collections.abc import Collection

    from aiohttp import HttpVersion

    from fingerpost.registry.http.context import PlainHandler
    from fingerpost.registry.http.head import RequestLines
    from fingerpost.registry.http.request import PlainRequest

__all__ = ["RepeatedHead", "RepeatedHeads"]

# A longer head is parsed each time. With a lease and the fields of a browser it has 1 KB.
_MAX_BYTES: Final = 2048
# Of one connection: a client sends images, and asks for the load.
_MAX_HEADS: Final = 2
# When so many in a row were not sent again, no more are kept: the client's heads differ.
_TRIES: Final = 4
# Of a number that may differ: 10**12 bytes or milliseconds.
_MAX_DIGITS: Final = 12
_END: Final = b"\r\n\r\n"
_SPACE: Final = b" \t"
# A request with one of them is more than a head and a body of the length that it says.
_SPECIAL: Final = (hdrs.TRANSFER_ENCODING, hdrs.UPGRADE, hdrs.EXPECT)


class RepeatedHead:
    """A head that was parsed, and what was found for it.

    Attributes:
        method, path, version: as a `PlainRequest` has them.
        memo: see `PlainRequest`.
        handler: of its path; None where the whole answer was found, which is made anew.
    """

    __slots__ = (
        "_fields",
        "_headers",
        "_parts",
        "_places",
        "_whole",
        "handler",
        "memo",
        "method",
        "path",
        "version",
    )

    def __init__(
        self, request: PlainRequest, handler: PlainHandler | None, parts: list[bytes | int]
    ) -> None:
        self.method = request.method
        self.path = request.raw_path
        self.version: HttpVersion = request.version
        self.memo = request.memo
        self.handler = handler
        self._headers = request.headers
        self._fields = list(request.headers.items())
        self._parts = [each for each in parts if isinstance(each, bytes)]  # between the numbers
        self._places = [each for each in parts if isinstance(each, int)]  # the numbers' fields
        self._whole = b"".join(
            each if isinstance(each, bytes) else self._fields[each][1].encode() for each in parts
        )

    @classmethod
    def of(
        cls,
        data: bytes,
        lines: RequestLines,
        request: PlainRequest,
        handler: PlainHandler | None,
        numbers: Collection[str],
    ) -> RepeatedHead | None:
        """The head that bytes begin with; None where it is not kept.

        It is taken apart once more, and must be what the parser found, byte for byte: the request
        line, then a line for each field, and nothing before or between them. It is HTTP/1.1, keeps
        the connection, and has no `Transfer-Encoding`, `Upgrade` or `Expect`.

        Args:
            data: what was received.
            lines: what the parser found there.
            request, handler: what was made of it.
            numbers: the fields whose digits may differ another time, in small letters.
        """
        end, headers = data.find(_END, 0, _MAX_BYTES), request.headers
        if end < 0 or request.version != HttpVersion11 or not request.keep_alive:
            return None
        if headers.get(hdrs.CONNECTION, "keep-alive").lower() != "keep-alive":
            return None
        first, *rest = data[:end].split(b"\r\n")
        if (
            any(name in headers for name in _SPECIAL)
            or first != b"%b %b HTTP/1.1" % (request.method.encode(), lines.target)
            or len(rest) != len(lines.fields)
        ):
            return None
        parts: list[bytes | int] = []
        part = first
        for place, (line, (name, value)) in enumerate(zip(rest, lines.fields, strict=True)):
            before, _, after = line.partition(b":")
            after = after.lstrip(_SPACE)
            if before != name or after.rstrip(_SPACE) != value.rstrip(_SPACE) or b"\n" in line:
                return None
            part += b"\r\n" + line
            number = after.isdigit() and len(after) <= _MAX_DIGITS
            if number and name.lower().decode("latin-1") in numbers:
                parts += [part[: len(part) - len(after)], place]
                part = b""
        return cls(request, handler, [*parts, part + _END])

    def read(self, data: bytes) -> tuple[int, CIMultiDictProxy[str]] | None:
        """How many of the bytes are this head, and its fields; None where they are another one."""
        whole = self._whole
        if data.startswith(whole):
            return len(whole), self._headers
        at, texts = 0, []
        *parts, last = self._parts
        for part in parts:
            if not data.startswith(part, at):
                return None
            at += len(part)
            end = data.find(b"\r", at, at + _MAX_DIGITS + 1)
            text = data[at:end]
            if end < 0 or not text.isdigit():
                return None
            texts.append(text)
            at = end
        if not texts or not data.startswith(last, at):
            return None
        fields = self._fields.copy()
        for place, text in zip(self._places, texts, strict=True):
            fields[place] = (fields[place][0], text.decode())
        return at + len(last), CIMultiDictProxy(CIMultiDict(fields))


class RepeatedHeads:
    """The last heads of one connection.

    Args:
        numbers: see `RepeatedHead.of`.
    """

    __slots__ = ("_heads", "_numbers", "_tries")

    def __init__(self, numbers: Collection[str]) -> None:
        self._numbers = numbers
        self._heads: list[RepeatedHead] = []
        self._tries = _TRIES

    def find(self, data: bytes) -> tuple[RepeatedHead, int, CIMultiDictProxy[str]] | None:
        """The head that bytes begin with, how many they are, and the fields; None if it is new."""
        for head in self._heads:
            found = head.read(data)
            if found is not None:
                self._tries = _TRIES
                return head, *found
        return None

    def add(
        self,
        data: bytes,
        lines: RequestLines,
        request: PlainRequest,
        handler: PlainHandler | None,
    ) -> None:
        """Keep the head that was parsed from bytes, if it may be kept: see `RepeatedHead.of`."""
        if self._tries:
            self._tries -= 1
            head = RepeatedHead.of(data, lines, request, handler, self._numbers)
            if head is not None:
                self._heads = [head, *self._heads[: _MAX_HEADS - 1]]

    def stop(self) -> None:
        """Forget all, and keep no more."""
        self._heads, self._tries = [], 0
