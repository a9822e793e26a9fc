"""The deadline of one call to a registry."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fingerpost.errors import RegistryUnreachable

__all__ = ["deadline"]


@contextlib.asynccontextmanager
async def deadline(seconds: float, what: str) -> AsyncIterator[None]:
    """Limit the time of a call to a registry.

    Args:
        seconds: the limit.
        what: names the call in the error.

    Raises:
        RegistryUnreachable: the time is over.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise RegistryUnreachable(f"{what}: no answer within {seconds:g} s") from error
