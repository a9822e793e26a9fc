"""The path `/instance/BOOT_ID/MODEL`, which says for which process and model a request is meant.

A proxy answers `GET /` with it, because it is all that a client without a library keeps: what
`curl -F data=@cat.jpg "$(curl -s proxy:12480)"` sends to the address of a worker that is gone is
then refused by its successor, and does not get the labels of another model.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from yarl import URL

from fingerpost.client.wire import BOOT_ID_HEADER, INSTANCE_PATH, MODEL_HEADER

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["addressed"]

_PATH: Final = re.compile(
    re.escape(INSTANCE_PATH) + r"([0-9]{1,16})/([a-z0-9-]{1,63})(?:(/[^?]*))?(\?.*)?", re.ASCII
)


def addressed(request: web.Request) -> web.Request:
    """The request without that prefix of its path, and with the two headers that mean the same.

    `/instance/7/flowers/v1/models/flowers` is `/v1/models/flowers`; without a rest it is `/`, which
    takes an image for the model of the header. Every other request is returned as it is.
    """
    path = request.raw_path
    if not path.startswith(INSTANCE_PATH) or (match := _PATH.fullmatch(path)) is None:
        return request
    boot_id, model, rest, query = match.groups()
    headers = request.headers.copy()
    headers[BOOT_ID_HEADER] = boot_id
    headers[MODEL_HEADER] = model
    url = URL(f"{rest or '/'}{query or ''}", encoded=True)
    return request.clone(rel_url=url, headers=headers)
