"""The paths `/lease/TOKEN` and `/instance/BOOT_ID/MODEL`: what other requests have in headers.

A proxy answers `GET /` with it, because it is all that a client without a library keeps: what
`curl -F data=@cat.jpg "$(curl -s proxy:12480)"` sends to the address of a worker that is gone is
then refused by its successor, and does not get the labels of another model. Where leases are
signed, the URL carries one; it is taken out here, so that no log, trace or message shows it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs
from yarl import URL

from fingerpost.client.wire import BOOT_ID_HEADER, INSTANCE_PATH, LEASE_PATH, MODEL_HEADER

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["addressed"]

_PATH: Final = re.compile(
    re.escape(INSTANCE_PATH) + r"([0-9]{1,16})/([a-z0-9-]{1,63})(?:(/[^?]*))?(\?.*)?", re.ASCII
)

# Whatever stands there is taken out, also what is not a lease.
_LEASE: Final = re.compile(re.escape(LEASE_PATH) + r"([^/?]*)([/?].*)?")


def addressed(request: web.Request) -> web.Request:
    """The request without these prefixes of its path, and with the headers that mean the same.

    `/instance/7/flowers/v1/models/flowers` is `/v1/models/flowers`; without a rest it is `/`, which
    takes an image for the model of the header. Every other request is returned as it is.
    """
    path = request.raw_path
    if path.startswith(LEASE_PATH) and (match := _LEASE.fullmatch(path)) is not None:
        token, rest = match[1], match[2] or "/"
        headers = request.headers.copy()
        headers[hdrs.AUTHORIZATION] = f"Bearer {token}"
        path = rest if rest.startswith("/") else f"/{rest}"
        request = request.clone(rel_url=URL(path, encoded=True), headers=headers)
    if not path.startswith(INSTANCE_PATH) or (match := _PATH.fullmatch(path)) is None:
        return request
    boot_id, model, rest, query = match.groups()
    headers = request.headers.copy()
    headers[BOOT_ID_HEADER] = boot_id
    headers[MODEL_HEADER] = model
    url = URL(f"{rest or '/'}{query or ''}", encoded=True)
    return request.clone(rel_url=url, headers=headers)
