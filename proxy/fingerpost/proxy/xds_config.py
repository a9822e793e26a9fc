"""The settings of a proxy's xDS server."""

from __future__ import annotations

from dataclasses import dataclass

from fingerpost.errors import ConfigurationError

__all__ = ["XdsConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class XdsConfig:
    """Whether and how a proxy serves xDS.

    Attributes:
        port: the port of the gRPC server; 0 picks a free one. None, the default, serves none.
        max_streams: most clients at once; a further one is refused with RESOURCE_EXHAUSTED, and
            tries again by itself. Each costs some 60 KB.
        max_names: most models that one client may follow. A program uses a few; an Envoy follows
            all by one name. More lets one client cost more for each change.
        look_every_s: how often what the probes say is looked at, in seconds. Less tells clients
            sooner of a worker that drains or has gone, for more processor time of this proxy; with
            0.2 s a client knows of a change of the registry within half a second.

    Raises:
        ConfigurationError: a value out of its range.
    """

    port: int | None = None
    max_streams: int = 10_000
    max_names: int = 1000
    look_every_s: float = 0.2

    def __post_init__(self) -> None:
        if self.port is not None and not 0 <= self.port <= 65535:
            raise ConfigurationError(
                f"xds.port is {self.port}: give 0 to 65535 (0 picks a free one)"
            )
        for name in ("max_streams", "max_names"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"xds.{name} is {getattr(self, name)}: give 1 or more")
        if not self.look_every_s > 0:
            raise ConfigurationError(f"xds.look_every_s is {self.look_every_s}: give more than 0")
