"""Which model the path of a request means."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from fingerpost.client.wire import MODEL_HEADER
from fingerpost.errors import InvalidRequest
from fingerpost.registry import ModelReference

if TYPE_CHECKING:
    from aiohttp import web

    from fingerpost.worker.repository.manager import ModelManager

__all__ = ["model_reference"]

_parse: Final = lru_cache(maxsize=256)(ModelReference.parse)


def model_reference(request: web.Request, manager: ModelManager) -> ModelReference:
    """The model that a request's path names by `model`, `version` and `alias` of its route.

    Where the path names none it is that of the header `Fingerpost-Model`, or the manager's default.

    Raises:
        InvalidName: a name that is not valid.
        InvalidRequest: a version that is not a number, or an alias that is one.
    """
    info = request.match_info
    model = info.get("model") or request.headers.get(MODEL_HEADER) or manager.default
    wanted = info.get("version") or info.get("alias")
    found = _parse(f"{model}@{wanted}" if wanted else model)
    if ("version" in info and not found.version) or ("alias" in info and not found.alias):
        raise InvalidRequest(
            f"{request.path}: after /versions/ goes a number, after /labels/ an alias"
        )
    return found
