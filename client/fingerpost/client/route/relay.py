"""The route through proxies that relay images, for clients that cannot reach the workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.client.route.route import DIRECT, Origin
from fingerpost.client.routing import Outcome
from fingerpost.errors import (
    ConfigurationError,
    Draining,
    FingerpostError,
    LeaseError,
    Misdirected,
    NoWorker,
    Overloaded,
    RegistryError,
    Unauthorized,
    UnknownModel,
    UnknownService,
)
from fingerpost.registry import Instance, ModelInfo
from fingerpost.registry.instance import is_host

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from yarl import URL

    from fingerpost.client.result import Stats
    from fingerpost.registry import Snapshot

__all__ = ["RelayRoute"]

# With these statuses answers what does not relay: a proxy without `--relay`, or another server.
_NO_RELAY: Final = frozenset({401, 403, 404, 405})


class RelayRoute:
    """Images go to the proxies, as if each proxy were a worker that serves all models.

    So images are spread over the proxies by the load and latency that the client sees, and a proxy
    that refuses is ejected. A proxy sends each image to the next worker in turn: an error or a load
    report of one worker says nothing about the proxy.

    Raises:
        ConfigurationError: a proxy's URL is not plain HTTP, or contains a user name.
    """

    path = "/v1/relay/"
    own_load = False

    def __init__(self, proxies: Sequence[URL]) -> None:
        self._places: list[tuple[str, int]] = []
        for url in proxies:
            host, port = url.host or "", url.port or 0
            if url.scheme != "http" or url.user is not None or not is_host(host):
                raise ConfigurationError(
                    f"{str(url)!r} cannot relay images: use plain http://HOST:PORT, with an IP "
                    "address or a host name, and without a user name"
                )
            if (host, port) not in self._places:
                self._places.append((host, port))

    def peers(self, view: Snapshot) -> Snapshot:
        """The proxies, each with all models of the workers; none if there is no worker."""
        if not view.instances:
            return view
        models = _union(model for each in view.instances for model in each.models)
        proxies = tuple(
            Instance(
                id=f"proxy-{number:06}",  # snapshots are sorted by id
                service=view.service,
                host=host,
                ports={"http": port},
                models=models,
            )
            for number, (host, port) in enumerate(self._places)
        )
        return msgspec.structs.replace(view, instances=proxies, retained=(), withdrawn=())

    def classify_error(
        self, address: str, status: int, error: FingerpostError
    ) -> tuple[Outcome, FingerpostError]:
        """See `Route.classify_error`."""
        match error:
            case UnknownService() | UnknownModel():
                return Outcome.ABANDONED, error  # its snapshot may be older than another proxy's
            case Overloaded() | Draining() | Misdirected():
                return Outcome.ABANDONED, error  # this is about one worker, not about the proxy
            case LeaseError():
                return Outcome.ANSWERED, error  # of a worker; the proxy attaches the lease itself
            case NoWorker() | RegistryError():
                return Outcome.REFUSED, error
        if status in _NO_RELAY:
            why = error.message
            if not isinstance(error, Unauthorized):
                why = f"{why}; start the proxy with --relay, or use one that has it"
            return Outcome.REFUSED, Unauthorized(f"{address} does not relay images: {why}")
        return DIRECT.classify_error(address, status, error)

    def origin(self, peer: Instance, worker: str) -> Origin:
        """The proxy, and the worker that it named."""
        name, _, address = worker.partition(" ")
        return Origin(name, address, peer.address)

    def count(self, stats: Stats, sent_bytes: int) -> None:
        """Count image bytes that went through a proxy."""
        stats.bytes_relayed += sent_bytes


def _union(models: Iterable[ModelInfo]) -> tuple[ModelInfo, ...]:
    """All models, each with all versions and aliases that the workers have of it."""
    versions: dict[str, set[str]] = {}
    aliases: dict[str, Mapping[str, str]] = {}
    for each in models:
        versions.setdefault(each.name, set()).update(each.versions)
        aliases[each.name] = {**aliases.get(each.name, {}), **each.aliases}
    return tuple(
        ModelInfo(
            name=name,
            versions=tuple(sorted(versions[name], key=int, reverse=True)),
            aliases=aliases[name],
        )
        for name in sorted(versions)
    )
