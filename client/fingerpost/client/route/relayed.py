"""The way through proxies that relay, for clients that cannot reach the workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.client.route.route import DIRECT, Origin
from fingerpost.client.routing import Outcome
from fingerpost.errors import (
    ConfigurationError,
    Draining,
    FingerpostError,
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

__all__ = ["Relayed"]

# Whoever refuses so is no proxy that relays: ours with the relay off, or a stranger.
_NO_RELAY: Final = frozenset({401, 403, 404, 405})


class Relayed:
    """Images go to the proxies, as if each were a worker with all that the workers serve.

    So they are spread over the proxies by load and latency as seen from here, and one that refuses
    is left out. What lies behind a proxy is its own matter: it sends each image to the next worker
    in turn, so that what one worker says of itself is no reason to leave the proxy out, and its
    load report none to prefer it.

    Raises:
        ConfigurationError: a proxy's address that takes no images: not plain HTTP, or with a user.
    """

    path: Final = "/v1/relay/"
    own_load: Final = False

    def __init__(self, proxies: Sequence[URL]) -> None:
        self._places: list[tuple[str, int]] = []
        for url in proxies:
            host, port = url.host or "", url.port or 0
            if url.scheme != "http" or url.user is not None or not is_host(host):
                raise ConfigurationError(
                    f"{str(url)!r} cannot relay images: use plain http://HOST:PORT, with an IP "
                    "address or a host name, and without a user"
                )
            if (host, port) not in self._places:
                self._places.append((host, port))

    def peers(self, view: Snapshot) -> Snapshot:
        """See `Way`; no worker at all is no proxy either."""
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

    def judge(
        self, address: str, status: int, error: FingerpostError
    ) -> tuple[Outcome, FingerpostError]:
        """See `Way`."""
        match error:
            case UnknownService() | UnknownModel():
                return Outcome.ABANDONED, error  # its list may be behind another's
            case Overloaded() | Draining():
                return Outcome.ABANDONED, error  # one worker's, not the proxy's
            case NoWorker() | RegistryError():
                return Outcome.REFUSED, error
        if status in _NO_RELAY:
            told = error.message
            if not isinstance(error, Unauthorized):
                told = f"{told}; start the proxy with --relay, or name one that has it"
            return Outcome.REFUSED, Unauthorized(f"{address} relays no images: {told}")
        return DIRECT.judge(address, status, error)

    def origin(self, peer: Instance, worker: str) -> Origin:
        """See `Way`."""
        name, _, address = worker.partition(" ")
        return Origin(name, address, peer.address)

    def count(self, stats: Stats, sent_bytes: int) -> None:
        """See `Way`."""
        stats.bytes_relayed += sent_bytes


def _union(models: Iterable[ModelInfo]) -> tuple[ModelInfo, ...]:
    """All models, each with the versions and aliases that any worker has of it."""
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
