"""A registry of one service, for clients that ask no proxy."""

from __future__ import annotations

from fingerpost.registry import Catalog, Watch

__all__ = ["OneWatch"]


class OneWatch:
    """A registry that knows `digits`, and notes whether it was closed."""

    def __init__(self, poll):
        self._poll = poll
        self.closed = False
        self.watches = {}

    def watch(self, service):
        if service not in self.watches:
            self.watches[service] = Watch(self._poll, name=service).start()
        return self.watches[service]

    async def catalog(self):
        return Catalog(services=("digits",), index=1, taken_at=0.0)

    async def aclose(self):
        self.closed = True
        for each in self.watches.values():
            await each.aclose()
