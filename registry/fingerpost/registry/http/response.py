"""A response of a known path as bytes, which aiohttp would write in several steps."""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache

from aiohttp import HttpVersion, HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.http import SERVER_SOFTWARE

__all__ = ["date_and_server", "response_bytes"]


def response_bytes(response: web.Response, version: HttpVersion, *, keep: bool) -> bytes:
    """The whole response.

    Args:
        response: one whose body is bytes, or which has none.
        version: of the request.
        keep: whether the connection stays open.

    Raises:
        ValueError: a header with a line break.
    """
    body = response.body or b""
    if not isinstance(body, bytes | bytearray):
        raise TypeError(f"the body of a response is {type(body).__name__}, not bytes")
    minor = 0 if version == HttpVersion10 else 1
    lines = [f"HTTP/1.{minor} {response.status} {response.reason}"]
    for name, value in response.headers.items():
        if "\r" in value or "\n" in value:
            raise ValueError(f"the header {name} of a response has a line break")
        lines.append(f"{name}: {value}")
    lines.append(f"Content-Length: {len(body)}")
    if keep != (version >= HttpVersion11):
        lines.append(f"Connection: {'keep-alive' if keep else 'close'}")
    lines.append(date_and_server(int(time.time())))
    return "\r\n".join((*lines, "", "")).encode() + body


@lru_cache(maxsize=1)
def date_and_server(second: int) -> str:
    """The header fields of every response, without the last line break."""
    return f"{hdrs.DATE}: {formatdate(second, usegmt=True)}\r\n{hdrs.SERVER}: {SERVER_SOFTWARE}"
