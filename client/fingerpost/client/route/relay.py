"""The route through proxies that relay images, for clients that cannot reach the workers."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET

from fingerpost.client.route.route import DIRECT, Origin
from fingerpost.client.routing import Outcome
from fingerpost.client.wire import FOREIGN_RELAY_PATH, INFER_RELAY_PATH, RELAY_PATH
from fingerpost.errors import (
    ConfigurationError,
    Draining,
    FingerpostError,
    Forbidden,
    LeaseError,
    Misdirected,
    NoWorker,
    Overloaded,
    RegistryError,
    Unauthenticated,
    Unauthorized,
    UnknownModel,
    UnknownService,
)
from fingerpost.registry import Instance, ModelInfo
from fingerpost.registry.instance import SCHEME_KEY, is_host, split_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from ssl import SSLContext

    from yarl import URL

    from fingerpost.client.credential import Credential
    from fingerpost.client.result import Stats
    from fingerpost.registry import Snapshot
    from fingerpost.security.tls import ClientTls

__all__ = ["RelayRoute"]

# With these statuses answers what does not relay: a proxy without `--relay`, or another server.
_NO_RELAY: Final = frozenset({401, 403, 404, 405})
_SCHEMES: Final = frozenset({"http", "https"})
_OURS: Final = "fingerpost"
# The key of `Instance.meta` with the foreign worker behind a peer: its id and address.
_BEHIND_KEY: Final = "behind-relay"
_MAX_WEIGHT: Final = 65535
_MAX_ID_LETTERS: Final = 128


class RelayRoute:
    """Images go to the proxies, as if each proxy were a worker that serves all models.

    So images are spread over the proxies by the load and latency that the client sees, and a proxy
    that refuses is ejected. A proxy sends each image to the next worker in turn: an error or a load
    report of one worker says nothing about the proxy.

    A foreign worker is chosen by the client, because a request is in that worker's protocol: each
    of them is one peer for each proxy that leads to it, with its own load, latency and ejection.

    Args:
        proxies: their URLs.
        credential: sent to them with each image.

    Raises:
        ConfigurationError: a proxy's URL is neither HTTP nor HTTPS, or contains a user name.
    """

    path = RELAY_PATH
    infer_path = INFER_RELAY_PATH
    own_load = False

    def __init__(self, proxies: Sequence[URL], credential: Credential | None = None) -> None:
        self.credential = credential
        self._places: list[tuple[str, str, int]] = []
        for url in proxies:
            host, port = url.host or "", url.port or 0
            if url.scheme not in _SCHEMES or url.user is not None or not is_host(host):
                raise ConfigurationError(
                    f"{str(url)!r} cannot relay images: use http://HOST:PORT or https://HOST:PORT, "
                    "with an IP address or a host name, and without a user name"
                )
            if (url.scheme, host, port) not in self._places:
                self._places.append((url.scheme, host, port))

    def peers(self, view: Snapshot) -> Snapshot:
        """The proxies, each with all models of the workers, and for each foreign worker as well."""
        ours = [each for each in view.instances if each.protocol == _OURS]
        foreign = [each for each in view.instances if each.protocol != _OURS]
        peers: list[Instance] = []
        for number, (scheme, host, port) in enumerate(self._places):
            by = {} if scheme == "http" else {SCHEME_KEY: scheme}
            name = f"proxy-{number:06}"
            if ours:
                proxy = Instance(
                    id=name,
                    service=view.service,
                    host=host,
                    ports={"http": port},
                    models=_union(model for each in ours for model in each.models),
                    weight=_total_weight(ours) if foreign else 1,
                    meta=by,
                )
                peers.append(proxy)
            for each in foreign:
                meta = {key: value for key, value in each.meta.items() if key != SCHEME_KEY}
                peer = msgspec.structs.replace(
                    each,
                    id=_peer_id(name, each.id),
                    host=host,
                    ports={"http": port},
                    meta={**meta, **by, _BEHIND_KEY: f"{each.id} {each.address}"},
                    signature=UNSET,
                )
                peers.append(peer)
        peers.sort(key=lambda each: each.id)  # as snapshots are
        return msgspec.structs.replace(view, instances=tuple(peers), retained=(), withdrawn=())

    def missing(self, view: Snapshot) -> NoWorker | None:
        """See `Route.missing`."""
        return None

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
        if isinstance(error, Unauthenticated | Forbidden):
            return Outcome.REFUSED, error  # another proxy may have read its policy sooner
        if status in _NO_RELAY:
            why = error.message
            if not isinstance(error, Unauthorized):
                why = f"{why}; start the proxy with --relay, or use one that has it"
            return Outcome.REFUSED, Unauthorized(f"{address} does not relay images: {why}")
        return DIRECT.classify_error(address, status, error)

    def context(self, tls: ClientTls, target: str) -> SSLContext | None:
        """See `Route.context`: a proxy was named by its URL, which also says whether by TLS."""
        return None if split_target(target)[1] is None else tls.for_host()

    def origin(self, peer: Instance, worker: str) -> Origin:
        """The proxy, and the worker that it named."""
        name, _, address = worker.partition(" ")
        return Origin(name, address, peer.address)

    def foreign_head(self, peer: Instance, path: str) -> str:
        """See `Route.foreign_head`: the proxy knows the path at the worker, which is named here."""
        worker = peer.meta[_BEHIND_KEY].partition(" ")[0]
        head = (
            f"POST {FOREIGN_RELAY_PATH}{peer.service}?worker={worker} HTTP/1.1\r\n"
            f"Host: {peer.address}\r\n"
        )
        if self.credential is None:
            return head
        return f"{head}Authorization: {self.credential.header()}\r\n"

    def foreign_address(self, peer: Instance) -> str:
        """See `Route.foreign_address`: that of the worker behind the proxy."""
        return peer.meta[_BEHIND_KEY].partition(" ")[2]

    def count(self, stats: Stats, sent_bytes: int) -> None:
        """Count image bytes that went through a proxy."""
        stats.bytes_relayed += sent_bytes


def _total_weight(workers: Iterable[Instance]) -> int:
    """Of a proxy, so that its workers and foreign ones get what their weights say."""
    return min(_MAX_WEIGHT, sum(each.weight for each in workers))


def _peer_id(proxy: str, worker: str) -> str:
    name = f"{proxy}-{worker}"
    if len(name) <= _MAX_ID_LETTERS:
        return name
    return f"{proxy}-{sha256(worker.encode()).hexdigest()}"


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
