"""The answers to the requests of one connection; each says whether the connection stays open."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from aiohttp import ClientPayloadError, HttpVersion11, StreamReader, web
from aiohttp.http_writer import StreamWriter

from fingerpost.errors import InvalidRequest
from fingerpost.registry.http.app import error_response, internal_error
from fingerpost.registry.http.response import response_bytes

if TYPE_CHECKING:
    from aiohttp.http_parser import RawRequestMessage

    from fingerpost.registry.http.body import Body
    from fingerpost.registry.http.context import PlainHandler, ServerContext
    from fingerpost.registry.http.line import ClientLine
    from fingerpost.registry.http.request import PlainRequest

__all__ = [
    "answer_by_application",
    "answer_bytes",
    "answer_failed",
    "answer_invalid",
    "answer_plain",
]

logger = logging.getLogger(__name__)

# How long the rest of a body is read that nobody wants: who still sends does not read the answer.
_LINGER_S: Final = 10.0


async def answer_plain(
    connection: ClientLine, request: PlainRequest, handler: PlainHandler
) -> bool:
    """Answer a request on a known path by its handler."""
    try:
        found = await handler(request)
    except ClientPayloadError as error:
        return await answer_invalid(connection, str(error))
    keep = request.keep_alive
    if not isinstance(found, bytes):
        keep = keep and found.keep_alive is not False
        found = response_bytes(found, request.version, keep=keep)
    connection.write(found)
    if connection.writing_paused:
        await connection.drained()
    content = request.content
    return keep if content.is_eof() else await _rest(content) and keep


async def answer_bytes(connection: ClientLine, answer: bytes) -> bool:
    """Send an answer that is there already."""
    connection.write(answer)
    await connection.drained()
    return True


async def answer_by_application(
    connection: ClientLine,
    context: ServerContext,
    message: RawRequestMessage,
    payload: StreamReader,
) -> bool:
    """Answer a request by an aiohttp application."""
    writer = StreamWriter(connection, asyncio.get_running_loop())
    task: Any = asyncio.current_task()
    request = context.make_request(message, payload, connection, writer, task)
    response: web.StreamResponse
    try:
        response = await context.handler(request)
    except web.HTTPException as error:
        response = error
    except ClientPayloadError as error:
        return not writer.output_size and await answer_invalid(connection, str(error))
    except Exception:  # of the application itself: its middleware answers those of its handlers
        logger.exception("%s %s failed", message.method, request.path)
        if writer.output_size:
            return False
        response = error_response(internal_error())
        response.force_close()
    await response.prepare(request)
    await response.write_eof()
    keep = bool(response.keep_alive)
    return keep if payload.is_eof() else await _rest(payload) and keep


async def answer_failed(connection: ClientLine) -> bool:
    """Answer that this server has a fault, which is in its log; nothing can follow."""
    response = error_response(internal_error())
    connection.write(response_bytes(response, HttpVersion11, keep=False))
    return False


async def answer_invalid(connection: ClientLine, why: str) -> bool:
    """Answer what is not HTTP, in the form of all errors; nothing can follow it."""
    response = error_response(InvalidRequest(f"this is not a valid HTTP request: {why}"))
    connection.write(response_bytes(response, HttpVersion11, keep=False))
    return False


async def _rest(content: Body | StreamReader) -> bool:
    """Read the rest of a body that was answered; False if that takes too long."""
    try:
        async with asyncio.timeout(_LINGER_S):
            while not content.is_eof():
                await content.readany()
    except (TimeoutError, ClientPayloadError):
        return False
    return True
