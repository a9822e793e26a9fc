"""Which workers a client of ZeroMQ uses, and where they listen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fingerpost.client.route.route import DirectRoute
from fingerpost.client.zmq.messages import KEY_META
from fingerpost.errors import NoWorker
from fingerpost.registry.instance import format_address
from fingerpost.security.curve_keys import CurveKeys, read_public_keys

if TYPE_CHECKING:
    from collections.abc import Collection

    from fingerpost.client.config import ClientConfig
    from fingerpost.registry import Instance, Snapshot

__all__ = ["Place", "ZmqRoute"]

# How many workers an error names.
_NAMED: Final = 3


class Place(NamedTuple):
    """Where a worker listens: the endpoint for ZeroMQ, and its public key or nothing."""

    endpoint: str
    key: bytes


class ZmqRoute(DirectRoute):
    """The client connects to the workers that have a port for ZeroMQ.

    Rejected: HTTP for workers without. It would hide that an operator has forgotten the option, and
    send in clear what is meant to be encrypted.

    Args:
        config: names the files of keys.

    Attributes:
        keys: the client's own key pair; None to make one up.

    Raises:
        ConfigurationError: a file of keys is not valid.
    """

    def __init__(self, config: ClientConfig) -> None:
        self.keys = None if config.zmq_key is None else CurveKeys.read(Path(config.zmq_key))
        self._trusted: frozenset[bytes] | None = None
        if config.zmq_workers is not None:
            self._trusted = read_public_keys(Path(config.zmq_workers))
        self._places: dict[str, Place] = {}

    def place(self, target: str) -> Place | None:
        """Where the worker with this `Instance.target` listens."""
        return self._places.get(target)

    def retain(self, targets: Collection[str]) -> None:
        """Forget all others."""
        self._places = {each: self._places[each] for each in targets if each in self._places}

    def peers(self, view: Snapshot) -> Snapshot:
        """See `Route.peers`."""
        found = tuple(each for each in view.instances if not self._problem(each))
        for each in found:
            endpoint = f"tcp://{format_address(each.host, each.ports['zmq'])}"
            key = each.meta.get(KEY_META, "").encode()
            self._places[each.target] = Place(endpoint, key)
        return msgspec.structs.replace(view, instances=found)

    def missing(self, view: Snapshot) -> NoWorker | None:
        """See `Route.missing`."""
        if not view.instances or any(not self._problem(each) for each in view.instances):
            return None
        first = view.instances[:_NAMED]
        why = "; ".join(f"{each.address}: {self._problem(each)}" for each in first)
        return NoWorker(
            f"none of the {len(view.instances)} workers of {view.service!r} can be used over "
            f"ZeroMQ ({why}); or use ClientConfig(transport='http')"
        )

    def _problem(self, instance: Instance) -> str:
        """Why a worker cannot be used; empty where it can."""
        if "zmq" not in instance.ports or instance.foreign:
            return "it has no ZeroMQ port: start it with --zmq-port"
        if (
            self._trusted is not None
            and instance.meta.get(KEY_META, "").encode() not in self._trusted
        ):
            return "its key is not among those of zmq_workers"
        return ""
