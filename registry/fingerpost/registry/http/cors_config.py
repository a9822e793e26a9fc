"""Which web pages may use a server from their scripts, by the rules of CORS; see `cors`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ANY", "CorsConfig"]

ANY: Final = "*"
_ORIGIN: Final = re.compile(
    r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?", re.ASCII
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsConfig:
    """Which web pages may use a server from their scripts.

    Attributes:
        allow_origins: origins of pages, as browsers write them: `https://app.example` or
            `http://localhost:3000`, without a path. `*` allows every page. More lets more pages
            send images from their readers' browsers, in which they reach what the reader reaches.
            None by default. The admin API never takes requests of web pages of another origin.

    Raises:
        ConfigurationError: a value is not an origin.
    """

    allow_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for origin in self.allow_origins:
            if origin != ANY and not _ORIGIN.fullmatch(origin):
                raise ConfigurationError(
                    f"cors.allow_origins: {origin!r} is not an origin: give scheme and host in "
                    "lower case without a path or a slash at the end, such as "
                    "'https://app.example' or 'http://localhost:3000', or '*' for all pages"
                )

    def allows(self, headers: Mapping[str, str]) -> bool:
        """Whether a request with these headers comes from a page that may use the server."""
        origin = headers.get("Origin")
        return origin is not None and (origin in self.allow_origins or ANY in self.allow_origins)
