"""The head of a request as it came, its limits, and what makes it ambiguous. Does no I/O.

llhttp, which reads the bytes, refuses what could be read in two ways: two lengths, a length beside
chunks, a line that is folded or ends in other than CRLF. What is refused here beside that is what
aiohttp refuses.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from aiohttp import HttpVersion, HttpVersion10, HttpVersion11, hdrs
from aiohttp.http_parser import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy, istr
from yarl import URL

from fingerpost.errors import InvalidRequest

__all__ = ["MAX_HEAD_BYTES", "RequestLines", "message_of", "version_of"]

# Of the request line, of a header field, and of all; and how many fields: as aiohttp's.
_MAX_LINE_BYTES: Final = 8190
_MAX_FIELDS: Final = 128
MAX_HEAD_BYTES: Final = 1 << 16
# Of the names of fields only so much is shown.
_SHOWN: Final = 40

# Fields of which a second one could mean something else to another program on the way.
_ONCE: Final = frozenset(
    name.lower()
    for name in (
        hdrs.CONTENT_LENGTH,
        hdrs.CONTENT_LOCATION,
        hdrs.CONTENT_RANGE,
        hdrs.CONTENT_TYPE,
        hdrs.ETAG,
        hdrs.HOST,
        hdrs.MAX_FORWARDS,
        hdrs.SERVER,
        hdrs.TRANSFER_ENCODING,
        hdrs.USER_AGENT,
    )
)
_FIELD: Final = re.compile(rb"([A-Za-z0-9-]{1,40})\s*:")
_VERSIONS: Final = {"1.0": HttpVersion10, "1.1": HttpVersion11}
_CHUNKED: Final = "chunked"


class RequestLines:
    """The request line and the fields of one request, which the parser adds one by one.

    Attributes:
        target: of the request line, as it came.
        fields: name and value of each field, as they came, in order.
    """

    __slots__ = ("fields", "target")

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []

    def add_target(self, part: bytes) -> None:
        """Add a part of the target.

        Raises:
            InvalidRequest: it is too long.
        """
        self.target += part
        if len(self.target) > _MAX_LINE_BYTES:
            raise InvalidRequest(f"its target has more than {_MAX_LINE_BYTES} bytes")

    def where(self, data: bytes | memoryview) -> str:
        """Where the parser stopped in bytes that have the whole head, in words; or empty.

        Only the name of the field: its value may be a key, a lease or a URL with one.
        """
        _, _, lines = bytes(data).partition(b" " + self.target + b" ")
        fields = lines.split(b"\r\n", _MAX_FIELDS)[1:]
        index = len(self.fields)  # the parser tells of a field when the next one begins
        match = _FIELD.match(fields[index]) if self.target and index < len(fields) else None
        return "" if match is None else f" in the header {match[1].decode()}"

    def headers(self, version: HttpVersion) -> CIMultiDictProxy[str]:
        """The fields as text; bytes that are not UTF-8 become lone surrogates.

        Raises:
            InvalidRequest: a line that is too long, or too many of them, no Host, a field twice
                that may be there once, or another Transfer-Encoding than chunked.
        """
        if len(self.fields) > _MAX_FIELDS:
            raise InvalidRequest(f"it has more than {_MAX_FIELDS} fields")
        found: list[tuple[str, str]] = []
        names: set[str] = set()
        size = 0
        for raw, value in self.fields:
            name, lower = _name(raw)
            size += len(raw) + len(value)
            if len(raw) + len(value) > _MAX_LINE_BYTES or size > MAX_HEAD_BYTES:
                raise InvalidRequest(
                    f"its field {name[:_SHOWN]} makes it too long: a field may have "
                    f"{_MAX_LINE_BYTES} bytes, and all {MAX_HEAD_BYTES}"
                )
            found.append((name, value.rstrip(b" \t").decode("utf-8", "surrogateescape")))
            if lower in names and lower in _ONCE:
                raise InvalidRequest(f"it has the field {name} twice")
            names.add(lower)
        if "host" not in names and version >= HttpVersion11:
            raise InvalidRequest("it has no Host")
        headers = CIMultiDictProxy(CIMultiDict(found))
        if "transfer-encoding" in names:
            coding = headers[hdrs.TRANSFER_ENCODING]
            if coding.lower() != _CHUNKED:
                raise InvalidRequest("its Transfer-Encoding is not chunked")
        return headers


@lru_cache(maxsize=512)  # each of at most 8 KB, and mostly the same dozen
def _name(raw: bytes) -> tuple[str, str]:
    name = istr(raw.decode("latin-1"))
    return name, str(name).lower()


def version_of(text: str) -> HttpVersion:
    """The version of HTTP of its name, such as `1.1`.

    Raises:
        InvalidRequest: it is neither 1.0 nor 1.1.
    """
    found = _VERSIONS.get(text)
    if found is None:
        raise InvalidRequest(f"its version is {text}: send 1.1")
    return found


def message_of(
    method: str,
    lines: RequestLines,
    headers: CIMultiDictProxy[str],
    version: HttpVersion,
    *,
    keep_alive: bool,
    upgrade: bool,
) -> RawRequestMessage:
    """The head of a request for an aiohttp application.

    Raises:
        InvalidRequest: its target has none of the forms of RFC 9112.
    """
    target = lines.target.decode("utf-8", "surrogateescape")
    return RawRequestMessage(
        method=method,
        path=target,
        version=version,
        headers=headers,
        raw_headers=tuple(lines.fields),
        should_close=not keep_alive,
        compression=None,
        upgrade=upgrade,
        chunked=hdrs.TRANSFER_ENCODING in headers,
        url=_url(method, target),
    )


def _url(method: str, target: str) -> URL:
    if target.startswith("/") and method != hdrs.METH_CONNECT:
        rest, _, fragment = target.partition("#")
        path, _, query = rest.partition("?")
        return URL.build(path=path, query_string=query, fragment=fragment, encoded=True)
    url: URL | None = None
    try:
        if method == hdrs.METH_CONNECT:
            url = URL.build(authority=target, encoded=True)
        elif target == "*" and method == hdrs.METH_OPTIONS:
            return URL(target, encoded=True)
        elif "://" in target:
            url = URL(target, encoded=True)
        if url is not None and url.raw_host is not None:
            return url
    except ValueError:  # a port that is none, and the like
        pass
    raise InvalidRequest("its target is neither a path nor a URL")
