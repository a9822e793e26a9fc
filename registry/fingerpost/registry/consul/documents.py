"""Documents in Consul's key-value store, below `fingerpost/`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fingerpost.basics.deadline import deadline
from fingerpost.errors import RegistryError
from fingerpost.registry.documents import check_document

if TYPE_CHECKING:
    from fingerpost.registry.consul.http import ConsulHttp

__all__ = ["read_document", "write_document"]


async def read_document(http: ConsulHttp, name: str, *, call_timeout_s: float) -> bytes | None:
    """The document of that name; None if there is none. Raises `RegistryError`."""
    path = _path(check_document(name))
    async with deadline(call_timeout_s, f"reading {path} at {http.base_url}"):
        try:
            async with asyncio.timeout(call_timeout_s / 3):
                answer = await http.call("GET", path, params={"raw": ""}, not_found_ok=True)
        except (TimeoutError, RegistryError):  # any server, without a leader
            stale = {"raw": "", "stale": ""}
            answer = await http.call("GET", path, params=stale, not_found_ok=True)
    return None if answer.status == 404 else answer.body


async def write_document(
    http: ConsulHttp, name: str, content: bytes, *, call_timeout_s: float
) -> None:
    """Write the document of that name. Raises `RegistryError`."""
    path = _path(check_document(name, content))
    async with deadline(call_timeout_s, f"writing {path} at {http.base_url}"):
        answer = await http.call("PUT", path, data=content)
    if answer.body.strip() != b"true":
        raise RegistryError(f"{path} at {http.base_url} was not written: {answer.body[:100]!r}")


def _path(name: str) -> str:
    return f"/v1/kv/fingerpost/{name}"
