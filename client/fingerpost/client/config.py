"""The settings of a client."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fingerpost.basics.renames import renamed_fields
from fingerpost.client.routing import RoutingConfig
from fingerpost.errors import ConfigurationError

__all__ = ["ClientConfig", "check_lease"]

_LEASE: Final = re.compile("[A-Za-z0-9_.-]{1,2048}", re.ASCII)


@renamed_fields(
    no_worker_s="wait_for_ready_s",
    connect_s="connect_timeout_s",
    progress_s="upload_stall_timeout_s",
    silence_s="response_timeout_s",
    unanswered_s="probe_timeout_s",
    stream_mb="stream_max_bytes (in bytes, not megabytes)",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """The settings of a client; the defaults suit most programs.

    Attributes:
        timeout_s: the deadline of one image, in seconds from the call to the result, where the call
            does not name one. It includes reading, waiting, uploading and all attempts. A higher
            value survives longer outages. 30 s is several attempts even over a slow link.
        wait_for_ready_s: how many seconds to wait for the first answer of a proxy or registry, and
            for a worker of a known service that has none. A higher value survives a restart of the
            last worker; a lower one reports sooner that something is wrong. A proxy that holds
            lookups for workers that start (`--hold-for-start`) is waited for as long as it holds
            them, if that is longer; `timeout_s` limits it.
        connect_timeout_s: how many seconds opening a connection may take before another worker is
            asked. Raise it above the slowest handshake of a link with much loss.
        upload_stall_timeout_s: how many seconds an upload may make no progress before another
            worker is asked. An upload that makes progress is limited by the deadline alone. A
            higher value tolerates longer pauses of the link, and finds dead links later.
        response_timeout_s: how many seconds a worker that has the whole image may say nothing
            before another one is asked. Some seconds before, the worker is asked for its load
            report. If that says that it is at work, the time begins again: a slow model and a long
            queue are limited by the deadline alone. A lower value finds workers that hang sooner,
            and asks busy ones more often.
        probe_timeout_s: how many seconds a worker may leave a request for its load report without
            an answer, before it counts as stopped and the images that wait there are sent to
            another worker. Workers answer that request in milliseconds whatever their model does,
            so this finds stopped workers long before `response_timeout_s` does.
        connections_per_worker: how many connections may be open to one worker; further images wait
            for one of them. More than two full batches only move the queue from the client to the
            worker. A probe may open one more.
        stream_max_bytes: how many image bytes one stream may have in flight while it chooses its
            concurrency itself. A higher value fills longer links; a lower one saves memory.
        hedge: ask a second worker when an answer is later than 95 % of the others were, and use
            the first answer. It makes the slowest images faster for a little more work, which the
            retry budget limits. Off, because it costs work that others may need.
        relay: send images through the proxies that the client was given, for clients that cannot
            reach the workers. Each proxy must have been started with `--relay`. The proxies'
            network links then limit the throughput, which is why it is off. The settings about
            workers then apply to the proxies, and `sticky` selects a proxy, not a worker.
        uds: connect to workers on this host by their Unix sockets (`fingerpost worker --uds`) where
            that is possible, and else by TCP. It costs less, and nothing where there is none;
            False uses TCP alone.
        client_id: identifies this client where there are many clients and more workers than
            `routing.subset_size`, so that each client uses only some of the workers. None: it uses
            all of them, as the only client of a cluster must.
        labels: the labels of foreign workers' models, by service: a list, or the path of a text
            file with one label a line, in the order of the scores. They outrank those of a worker's
            metadata. None for answers that have labels.
        lease: a signed lease (`fingerpost lease MODEL` prints one), for a client that asks a
            registry instead of a proxy while the workers require leases. None, the default, uses
            those that proxies give, which are renewed by themselves.
        lease_file: a file with such a lease, read again when it changes, see
            `fingerpost lease --watch`.
        transport: how images go to the workers: `http`, or `zmq` for ZeroMQ, which needs the extra
            `zmq` and workers with `--zmq-port`. Workers without are not used.
        zmq_key: with `zmq`, a file with the client's own key pair, see `fingerpost keys curve`.
            None, the default, makes one up, for workers that let in any.
        zmq_workers: with `zmq`, a file with the public keys of workers, one a line. Images go only
            to workers that have one of them, and always encrypted. None, the default, takes the
            word of the registry for a worker's key.
        routing: how workers are chosen; see `RoutingConfig`.

    Raises:
        ConfigurationError: a number that is not above 0, or infinite.
    """

    timeout_s: float = 30.0
    wait_for_ready_s: float = 5.0
    connect_timeout_s: float = 2.0
    upload_stall_timeout_s: float = 10.0
    response_timeout_s: float = 10.0
    probe_timeout_s: float = 3.0
    connections_per_worker: int = 128
    stream_max_bytes: int = 256_000_000
    hedge: bool = False
    relay: bool = False
    uds: bool = True
    client_id: str | None = None
    labels: Mapping[str, str | Sequence[str]] | None = None
    lease: str | None = field(default=None, repr=False)
    lease_file: str | None = None
    transport: str = "http"
    zmq_key: str | None = None
    zmq_workers: str | None = None
    routing: RoutingConfig = field(default_factory=RoutingConfig)

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ConfigurationError(f"ClientConfig: {name}={value!r}: use a number above 0")
        for name, kind in _KINDS.items():
            if not isinstance(value := getattr(self, name), kind):
                called = getattr(kind, "__name__", "str or None")
                raise ConfigurationError(f"ClientConfig: {name}={value!r}: use a {called}")
        if self.lease is not None:
            check_lease(self.lease, "ClientConfig: lease")
        if self.lease is not None and self.lease_file is not None:
            raise ConfigurationError("ClientConfig: lease and lease_file were given: use either")
        if self.transport not in _TRANSPORTS:
            raise ConfigurationError(
                f"ClientConfig: transport={self.transport!r}: use {' or '.join(_TRANSPORTS)}"
            )
        if self.transport == "zmq" and self.relay:
            raise ConfigurationError(
                "ClientConfig: proxies relay over HTTP alone: use relay or transport='zmq'"
            )
        if self.transport != "zmq" and (self.zmq_key or self.zmq_workers):
            raise ConfigurationError(
                "ClientConfig: zmq_key and zmq_workers are of use only with transport='zmq'"
            )


_KINDS = {
    "hedge": bool,
    "relay": bool,
    "uds": bool,
    "client_id": str | None,
    "labels": Mapping | None,
    "lease": str | None,
    "lease_file": str | None,
    "transport": str,
    "zmq_key": str | None,
    "zmq_workers": str | None,
    "routing": RoutingConfig,
}
_TRANSPORTS: Final = ("http", "zmq")
_NUMBERS = (
    "timeout_s",
    "wait_for_ready_s",
    "connect_timeout_s",
    "upload_stall_timeout_s",
    "response_timeout_s",
    "probe_timeout_s",
    "connections_per_worker",
    "stream_max_bytes",
)


def check_lease(text: str, source: str) -> str:
    """The token in a text; raises `ConfigurationError`, without the text."""
    token = text.strip()
    if _LEASE.fullmatch(token) is None:
        raise ConfigurationError(
            f"{source} is not a lease: `fingerpost lease MODEL` prints one, of letters, digits, "
            "'.', '-' and '_'"
        )
    return token
