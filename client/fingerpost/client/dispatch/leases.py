"""The leases that a client carries: those of the proxies' answers, or one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fingerpost.basics.config_file import read_text
from fingerpost.client.config import check_lease
from fingerpost.errors import (
    ConfigurationError,
    FingerpostError,
    LeaseError,
    LeaseExpired,
    LeaseInvalid,
    LeaseRequired,
)

if TYPE_CHECKING:
    from fingerpost.client.config import ClientConfig
    from fingerpost.client.dispatch.call import Call
    from fingerpost.client.resolver import Resolver

__all__ = ["LeaseFile", "Leases", "own_lease"]

# Seconds between two looks at a file, and between two lookups because of a refused lease.
_FILE_S: Final = 1.0
_RENEWAL_S: Final = 1.0
# One image asks for other leases at most so often.
_MOST_RENEWALS: Final = 3


def own_lease(config: ClientConfig) -> str | LeaseFile | None:
    """The lease that the settings name; None uses those of the proxies.

    Raises:
        ConfigurationError: its file cannot be read, or does not hold a lease.
    """
    if config.lease_file is not None:
        return LeaseFile(Path(config.lease_file))
    return config.lease


class LeaseFile:
    """A lease in a file, which is read again when it changes, once a second at most.

    While it is missing or not valid, the last good lease stays in use.

    Raises:
        ConfigurationError: it cannot be read to begin with.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next_at = 0.0
        try:
            self._token = self._read()
        except OSError as error:
            raise ConfigurationError(
                f"lease_file {str(path)!r} cannot be read: {error.strerror}; "
                "`fingerpost lease MODEL --watch FILE` writes it"
            ) from error

    def current(self) -> str:
        """The lease to send now."""
        now = time.monotonic()
        if now >= self._next_at:
            self._next_at = now + _FILE_S
            with contextlib.suppress(OSError, ConfigurationError):  # it is being written
                self._token = self._read()
        return self._token

    def _read(self) -> str:
        return check_lease(read_text(self._path, most=8192), f"lease_file {str(self._path)!r}")


class Leases:
    """Which lease goes with an image.

    The watch of a service brings its next lease long before the last one ends. So a refused lease
    means that the proxies were away for a whole life of it, or that this machine slept: they are
    asked once more, and the image is sent again if they give another one.

    Args:
        resolver: brings the leases of proxies.
        own: a lease of the caller's, instead of those of the proxies.
    """

    def __init__(self, resolver: Resolver, own: str | LeaseFile | None) -> None:
        self._resolver = resolver
        self._own = own
        self._renewal: asyncio.Task[None] | None = None
        self._renew_at = 0.0

    def of(self, service: str) -> str:
        """The lease for a service; empty where there is none."""
        if self._own is None:
            return self._resolver.lease(service)
        return self._own if isinstance(self._own, str) else self._own.current()

    async def renew(self, call: Call, error: LeaseError, *, begun: bool) -> None:
        """Return where there is another lease than the refused one, so that the call goes on.

        Args:
            call: its `lease` was refused.
            error: why.
            begun: its image is sent while it is read, and cannot be sent again.

        Raises:
            LeaseError: there is none.
        """
        service = call.reference.model
        refused = sum(1 for each in call.retried if each.startswith(LeaseError.code))
        other = isinstance(error, LeaseExpired | LeaseInvalid | LeaseRequired)
        if other and self.of(service) == call.lease and self._own is None:
            await self._renew(service)
        if not other or refused >= _MOST_RENEWALS or self.of(service) == call.lease:
            raise self._explained(error)
        if begun:
            error.add_note("No retry: the image comes from a source that can be read only once.")
            raise error
        call.last_error, call.retried = error, (*call.retried, error.code)

    def _explained(self, error: LeaseError) -> LeaseError:
        """The error of a refused image, with what this client can do about it."""
        if not isinstance(error, LeaseRequired):
            return error
        if self._own is None and not self._resolver.gives_leases:
            remedy = (
                "this client asks a registry, which gives no leases: use a proxy's URL, or give a "
                "lease (ClientConfig: lease, lease_file; --lease-file)"
            )
        else:
            remedy = "the proxy gives none: start it with --lease-key"
        return LeaseRequired(f"{error.message}; {remedy}")

    async def _renew(self, service: str) -> None:
        """Ask a proxy; all who wait for it share one lookup, and it is not repeated at once."""
        if self._renewal is None or self._renewal.done():
            now = time.monotonic()
            if now < self._renew_at:
                return
            self._renew_at = now + _RENEWAL_S
            self._renewal = asyncio.create_task(self._ask(service), name=f"lease of {service}")
        await asyncio.shield(self._renewal)

    async def _ask(self, service: str) -> None:
        try:
            await self._resolver.renew_lease(service)
        except FingerpostError:
            return  # in an outage; the watch goes on trying

    async def aclose(self) -> None:
        """End the lookup that is under way."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
