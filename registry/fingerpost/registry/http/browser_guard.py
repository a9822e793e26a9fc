"""Keeps web pages from using this server through the browser of somebody who can reach it.

A page may send a request to any address, also to 127.0.0.1; it names itself in `Origin`. By *DNS
rebinding* a page even becomes one of this server's own origin: its name first points to the page's
server and then to 127.0.0.1, and the browser, which only compares names, lets it send and read all
(https://en.wikipedia.org/wiki/DNS_rebinding). The name stays in `Host`, so an allow-list of names
ends that. Addresses are always allowed: nobody can point an address elsewhere.

Clients that are not browsers send no `Origin`, and for them the rules of `check_origin` change
nothing. Rejected: a token for every request, which curl and the demo would need; checking `Host` at
workers and proxies for all requests, which have as many names as a cluster's DNS gives them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["BrowserGuard"]

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/@]+)(?::[0-9]{1,5})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class BrowserGuard:
    """Judges the headers of a request.

    Attributes:
        names: host names by which this server may be asked, in lower case; `localhost` and its
            subdomains and every address need not be among them.
    """

    names: frozenset[str]

    @classmethod
    def of(cls, names: Iterable[str]) -> BrowserGuard:
        """The guard of a server with these names."""
        return cls(frozenset(_plain(name) for name in names))

    def check_host(self, headers: Mapping[str, str]) -> str | None:
        """What is wrong with the name by which the server is asked, else None."""
        given = headers.get("Host")
        if given is None or self._allows(given):  # without: HTTP/1.0, not a browser
            return None
        return (
            f"Host {given[:100]!r} is not a name of this server: ask it by its address or as "
            "localhost, or allow the name with --allow-host"
        )

    def check_origin(self, headers: Mapping[str, str]) -> str | None:
        """What is wrong with the page that sends the request, else None; without one, nothing."""
        origin = headers.get("Origin")
        if origin is not None:
            host = headers.get("Host", "")
            own = origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
            if own and self._allows(host):
                return None
        elif headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin"):
            return None
        return f"requests of web pages of another origin ({str(origin)[:100]}) are refused"

    def _allows(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = _plain(match[1])
        if name == "localhost" or name.endswith(".localhost") or name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _plain(name: str) -> str:
    return name.lower().strip("[]").removesuffix(".")
