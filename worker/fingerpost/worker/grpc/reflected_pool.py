"""The pool of messages as gRPC's reflection service reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool

__all__ = ["ReflectedPool"]


class ReflectedPool:
    """A pool that finds methods by their name, too.

    protobuf's finds messages and services only, so that `grpcurl describe SERVICE.METHOD` would
    say that there is no such symbol.

    Args:
        pool: all else is asked of it.
    """

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802 - protobuf's name
        """The file with a message, service or method. Raises `KeyError` where there is none."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            found = self._pool.FindServiceByName(service)
            if method not in found.methods_by_name:
                raise
            return found.file
