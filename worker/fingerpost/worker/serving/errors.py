"""Errors as each protocol writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from fingerpost.errors import error_from_json
from fingerpost.registry.http_server import Handler, error_response

if TYPE_CHECKING:
    from fingerpost.errors import FingerpostError

__all__ = ["plain_errors", "printable", "response_for"]


def printable(text: str) -> str:
    """Text that JSON can carry: headers that are no UTF-8 arrive as lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


def response_for(request: web.Request, error: FingerpostError) -> web.Response:
    """The error in the form of the protocol that the path belongs to, with its own status.

    TensorFlow Serving and the Open Inference Protocol both have `{"error": "message"}`.
    """
    response = error_response(error)
    if _is_plain(request):
        response.body = msgspec.json.encode({"error": error.message})
    return response


@web.middleware
async def plain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Put what `typed_errors`, within it, says (404, 405, a fault) into that form too."""
    response = await handler(request)
    if response.status >= 400 and _is_plain(request) and isinstance(response, web.Response):
        body = response.body
        if isinstance(body, bytes) and body.startswith(b'{"error":{'):
            error = error_from_json(body, status=response.status)
            response.body = msgspec.json.encode({"error": error.message})
    return response


def _is_plain(request: web.Request) -> bool:
    path = request.path
    return path.startswith(("/v1/models/", "/v2/")) or path in {"/v1/models", "/v2"}
