"""The part of Consul's key-value API that Fingerpost uses: small documents, in memory."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from fingerpost.registry.embedded.requests import whole_body

__all__ = ["Documents"]

# Fingerpost has one or two.
_MAX_DOCUMENTS: Final = 64


class Documents:
    """Answers `GET /v1/kv/KEY?raw` and `PUT /v1/kv/KEY`; all is gone when the registry ends."""

    def __init__(self) -> None:
        self._documents: dict[str, bytes] = {}

    def routes(self) -> list[web.RouteDef]:
        """The routes of an application."""
        path = "/v1/kv/{key:.+}"
        return [web.get(path, self._get, allow_head=False), web.put(path, self._put)]

    async def _get(self, request: web.Request) -> web.Response:
        found = self._documents.get(request.match_info["key"])
        if found is None:
            return web.Response(status=404)
        return web.Response(body=found, content_type="application/octet-stream")

    async def _put(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        if key not in self._documents and len(self._documents) >= _MAX_DOCUMENTS:
            return web.Response(status=429, text=f"{_MAX_DOCUMENTS} keys are kept at most")
        self._documents[key] = await whole_body(request)
        return web.Response(text="true", content_type="application/json")
