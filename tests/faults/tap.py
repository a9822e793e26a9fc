"""A wire in front of a registry that shows what one process asks of it."""

from __future__ import annotations

import re
import time

from tests.support.forwarder import Forwarder

__all__ = ["Tap"]

_REQUEST = re.compile(rb"(?:GET|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n")


class Tap(Forwarder):
    """Passes TCP connections on to an agent.

    Attributes:
        requests: when each request began, and its path with the query.
    """

    def __init__(self, url: str) -> None:
        super().__init__(int(url.rpartition(":")[2]))
        self.requests: list[tuple[float, str]] = []
        self._unanswered: dict[object, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def held(self) -> list[str]:
        """The paths of the requests that are waiting for their answer now."""
        return sorted(self._unanswered.values())

    def count(self, prefix: str, since: float = 0.0) -> int:
        return sum(at >= since and path.startswith(prefix) for at, path in self.requests)

    def asked(self, connection: object, data: bytes) -> None:
        """See `Forwarder`."""
        for match in _REQUEST.finditer(data):
            path = match[1].decode("latin-1")
            self.requests.append((time.monotonic(), path))
            self._unanswered[connection] = path

    def answered(self, connection: object, data: bytes) -> None:
        """See `Forwarder`."""
        self._unanswered.pop(connection, None)

    def ended(self, connection: object) -> None:
        """See `Forwarder`."""
        self._unanswered.pop(connection, None)
