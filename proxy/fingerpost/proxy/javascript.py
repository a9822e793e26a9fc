"""The client for browsers and Node, as a proxy serves it: `GET /fingerpost.js`."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web

if TYPE_CHECKING:
    from fingerpost.registry.http.app import Handler

__all__ = ["add_client"]

_FILES: Final = {"fingerpost.js": "text/javascript", "fingerpost.d.ts": "text/plain"}


def add_client(app: web.Application) -> None:
    """Serve the client's module and its types to everybody; nothing in them is secret."""
    for name, content_type in _FILES.items():
        app.router.add_get(f"/{name}", _file(name, content_type))


def _file(name: str, content_type: str) -> Handler:
    body = (files("fingerpost.client") / "javascript" / name).read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    # Asked for again each time, as proxies of two releases run side by side during an upgrade.
    headers = {hdrs.ETAG: tag, hdrs.CACHE_CONTROL: "no-cache", "X-Content-Type-Options": "nosniff"}

    async def get(request: web.Request) -> web.Response:
        if request.headers.get(hdrs.IF_NONE_MATCH) == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)

    return get
