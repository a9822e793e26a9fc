"""How a client behaves."""

from __future__ import annotations

import msgspec

from fingerpost.client.routing import RoutingConfig
from fingerpost.errors import ConfigurationError

__all__ = ["ClientConfig"]


class ClientConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a client behaves; every field can stay as it is.

    Attributes:
        timeout_s: the deadline of one image where the call names none, from the call to the
            result: reading, waiting, uploading, all attempts. More rides out longer outages.
        no_worker_s: how long to wait for the first answer from a proxy or registry, and for a
            worker where a known service has none. More rides out a restart; less says sooner
            that something is wrong.
        connect_s: how long a connection may take before another worker is asked.
        progress_s: how long an upload may stand still before another worker is asked. It is no
            limit on an upload that moves, however slowly.
        silence_s: how long a worker may send no byte, once it has the image, before another is
            asked. Less finds hung workers sooner; below the slowest inference it does every slow
            image twice.
        unanswered_s: how long a worker may leave the question for its load unanswered before the
            images that wait there are sent to another one. It answers in milliseconds whatever
            its model does, so that this finds stopped machines long before `silence_s` is over.
        connections_per_worker: connections kept to one worker; further requests to it wait for
            one. More than two full batches only move the queue from here to the worker. A question
            for the load may open one more.
        stream_mb: megabytes of images that one stream may have in flight. More fills longer
            links; less spares memory.
        hedge: ask a second worker where an answer is later than 95 % of the others, and take
            the first answer. It cuts the tail of latency for a little more work, within the
            budget of retries.
        relay: send images through the proxies that the client was given, for clients that cannot
            reach the workers. Each proxy must have been started with `--relay`; its network link
            then bounds what a client gets, which is why this is off. Workers' figures above are
            the proxies' then, and `sticky` keeps to a proxy, not to a worker.
        client_id: names this client where many ask more than `routing.subset_size` workers, so
            that each uses some of them; None uses all, as a lone client must.
        routing: see `RoutingConfig`.
    """

    timeout_s: float = 30.0
    no_worker_s: float = 5.0
    connect_s: float = 2.0
    progress_s: float = 10.0
    silence_s: float = 10.0
    unanswered_s: float = 3.0
    connections_per_worker: int = 128
    stream_mb: float = 256.0
    hedge: bool = False
    relay: bool = False
    client_id: str | None = None
    routing: RoutingConfig = RoutingConfig()

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name in {"routing", "hedge", "relay", "client_id"}:
                continue
            if not 0 < value < float("inf"):
                raise ConfigurationError(f"{name}={value}: use a number above 0")
