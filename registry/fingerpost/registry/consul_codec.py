"""How an instance is written into a Consul service entry, and read back. Pure: no I/O, no clock.

What goes where:

============================  ==================================================================
``ID``, ``Name``              the instance's id and service
``Address``, ``Port``         its host, and the port of transport ``http``
``Weights.Passing``           its weight
``Tags``                      ``fingerpost``, the transports, ``v`` + each version, each label; so
                              that ``v3.flowers.service.consul`` answers a DNS query
``Meta[fingerpost-models-N]`` piece N, from 0, of the models as JSON
``Meta[fingerpost-port-T]``   the port of each other transport T
``Meta[fingerpost-boot-id]``  the boot id, decimal
``Meta[fingerpost-zone]``     the zone, where there is one
other ``Meta``                ``Instance.meta`` as it is, for people and Consul's filters
============================  ==================================================================

Load reports are not in here: a change of them would be a write to Consul's Raft log.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from fingerpost.registry.errors import (
    ConfigurationError,
    InvalidInstance,
    InvalidName,
    RegistryError,
)
from fingerpost.registry.instance import Instance, ModelInfo
from fingerpost.registry.names import check_service

__all__ = [
    "TAG",
    "CheckConfig",
    "Entry",
    "decode_catalog",
    "decode_entries",
    "encode_instance",
    "format_duration",
]

TAG: Final = "fingerpost"

# Consul's limits on Meta (agent/structs, ValidateMetadata); lengths are in bytes.
MAX_PAIRS: Final = 64
MAX_KEY_BYTES: Final = 128
MAX_VALUE_BYTES: Final = 512

_OURS: Final = "fingerpost-"
_MODELS: Final = f"{_OURS}models-"
_PORT: Final = f"{_OURS}port-"
_BOOT_ID: Final = f"{_OURS}boot-id"
_ZONE: Final = f"{_OURS}zone"
_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,16}", re.ASCII)
_MAX_BOOT_ID: Final = 2**53


class CheckConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The HTTP check that Consul's agent runs against the worker.

    Attributes:
        path: asked on transport `http`. The default follows the engine, not just the process: a
            worker whose model hangs answers 503 there.
        interval_s: seconds between checks, at least 1. More costs fewer requests, and notices a
            dead worker later: with 1 s a killed one was off the list after 0.5 s (1.0 s at most).
        timeout_s: seconds until a check counts as failed. With 0.5 s a stopped process was off the
            list after 1.4 s at most; more spares a worker that has hiccups.
        deregister_after_s: seconds of failure after which the entry is removed, at least 60.
    """

    path: str = "/health/engine"
    interval_s: float = 1.0
    timeout_s: float = 0.5
    deregister_after_s: float = 60.0

    def __post_init__(self) -> None:
        if not self.path.startswith("/"):
            raise ConfigurationError(f"check path {self.path!r} does not start with '/'")
        if self.interval_s < 1 or self.timeout_s <= 0 or self.deregister_after_s < 60:
            raise ConfigurationError(
                f"{self}: Consul takes an interval of 1 s or more, a timeout above 0, and a "
                "deregistration after 60 s or more"
            )


def encode_instance(instance: Instance, check: CheckConfig) -> dict[str, Any]:
    """The arguments of py-consul's `agent.service.register` that record `instance`.

    Raises:
        InvalidInstance: it does not fit into Consul's metadata (64 pairs; keys of at most 128
            letters, digits, `_` and `-`; values of at most 512 bytes), or uses a reserved key.
    """
    meta = dict(_own_meta(instance))
    for key, value in instance.meta.items():
        if key.startswith((_OURS, "consul-")):
            raise InvalidInstance(
                f"instance {instance.id}: metadata key {key!r} has a reserved prefix; rename it"
            )
        meta[key] = value
    if len(meta) > MAX_PAIRS:
        raise InvalidInstance(
            f"instance {instance.id}: {len(meta)} metadata pairs, of which {len(instance.meta)} "
            f"are its own, exceed Consul's {MAX_PAIRS}; use fewer models, labels or pairs"
        )
    for key, value in meta.items():
        _check_pair(instance.id, key, value)
    return {
        "name": instance.service,
        "service_id": instance.id,
        "address": instance.host,
        "port": instance.ports["http"],
        "tags": _tags(instance),
        "meta": meta,
        "weights": {"Passing": instance.weight, "Warning": 1},
        "check": {
            # An explicit id, so that registering again replaces the check and adds none.
            "CheckID": f"service:{instance.id}",
            "Name": f"engine of {instance.id}",
            "HTTP": instance.url + check.path,
            "Interval": format_duration(check.interval_s),
            "Timeout": format_duration(check.timeout_s),
            "DeregisterCriticalServiceAfter": format_duration(check.deregister_after_s),
            # A worker registers after a successful warm-up; a check without a status starts
            # critical and would keep it off the list until its first run.
            "Status": "passing",
        },
    }


def format_duration(seconds: float) -> str:
    """A duration as Go reads it, in whole milliseconds."""
    return f"{round(seconds * 1000)}ms"


def _own_meta(instance: Instance) -> dict[str, str]:
    meta = {_BOOT_ID: str(instance.boot_id)}
    if instance.zone:
        meta[_ZONE] = instance.zone
    for transport, port in instance.ports.items():
        if transport != "http":
            meta[f"{_PORT}{transport}"] = str(port)
    models = msgspec.json.encode(instance.models).decode("ascii")
    for number, start in enumerate(range(0, len(models), MAX_VALUE_BYTES)):
        meta[f"{_MODELS}{number}"] = models[start : start + MAX_VALUE_BYTES]
    return meta


def _tags(instance: Instance) -> list[str]:
    tags = [TAG, *sorted(instance.ports)]
    for model in instance.models:
        tags += [f"v{version}" for version in model.versions]
        tags += sorted(model.labels)
    return list(dict.fromkeys(tags))


def _check_pair(instance_id: str, key: str, value: str) -> None:
    if not _KEY.fullmatch(key):
        raise InvalidInstance(
            f"instance {instance_id}: metadata key {key!r} is not 1 to {MAX_KEY_BYTES} letters, "
            "digits, hyphens and underscores"
        )
    if len(value.encode("utf-8", "surrogatepass")) > MAX_VALUE_BYTES:
        raise InvalidInstance(
            f"instance {instance_id}: the value of metadata {key!r} is longer than "
            f"{MAX_VALUE_BYTES} bytes; shorten it"
        )


class _Weights(msgspec.Struct, rename="pascal"):
    passing: int


class _Service(msgspec.Struct, rename="pascal"):
    id: str = msgspec.field(name="ID")
    service: str
    port: int
    weights: _Weights
    address: str = ""
    meta: dict[str, str] | None = None


class _Node(msgspec.Struct, rename="pascal"):
    address: str = ""


class _Check(msgspec.Struct, rename="pascal"):
    status: str


class _Entry(msgspec.Struct, rename="pascal"):
    node: _Node
    service: _Service
    checks: list[_Check]


class _Id(msgspec.Struct):
    id: str = msgspec.field(name="ID")


class _OnlyId(msgspec.Struct):
    service: _Id = msgspec.field(name="Service")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One service entry as read: an instance, or why it was refused.

    Attributes:
        id: the entry's id as registered, at most 128 characters of it; not checked.
        instance: what it says, or None where it makes no sense.
        healthy: every check of it and of its node passes; maintenance counts as a failed check.
        refusal: what is wrong with it; empty if nothing is.
    """

    id: str
    instance: Instance | None
    healthy: bool
    refusal: str = ""


def decode_entries(body: bytes, service: str) -> list[Entry]:
    """Read the answer of `/v1/health/service/NAME`, each entry by itself.

    An entry that makes no sense becomes a refusal, and leaves the others undisturbed.

    Raises:
        RegistryError: the answer as a whole is no JSON list.
    """
    try:
        raw_entries = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RegistryError(
            f"the registry's answer about {service!r} is no JSON list: {body[:100]!r}"
        ) from error
    return [_decode_entry(raw, service) for raw in raw_entries]


def _decode_entry(raw: msgspec.Raw, service: str) -> Entry:
    entry_id = "?"
    try:
        entry_id = msgspec.json.decode(raw, type=_OnlyId).service.id[:MAX_KEY_BYTES]
        entry = msgspec.json.decode(raw, type=_Entry)
        if entry.service.service != service:
            raise InvalidInstance(f"it belongs to service {entry.service.service!r}")
        instance = _decode_instance(entry)
    except (msgspec.MsgspecError, InvalidInstance, InvalidName, ValueError, RecursionError) as bad:
        return Entry(id=entry_id, instance=None, healthy=False, refusal=str(bad)[:500])
    healthy = all(check.status == "passing" for check in entry.checks)
    return Entry(id=entry_id, instance=instance, healthy=healthy)


def _decode_instance(entry: _Entry) -> Instance:
    meta = entry.service.meta or {}
    ports: dict[str, int] = {}
    own: dict[str, str] = {}
    for key, value in meta.items():
        if key.startswith(_PORT):
            ports[key.removeprefix(_PORT)] = _number(key, value)
        elif not key.startswith(_OURS):
            own[key] = value
    ports["http"] = entry.service.port
    boot_id = _number(_BOOT_ID, meta.get(_BOOT_ID, "0"))
    if boot_id >= _MAX_BOOT_ID:
        raise InvalidInstance(f"boot id {boot_id} is not below 2**53")
    return Instance(
        id=entry.service.id,
        service=entry.service.service,
        # Consul's own rule: a service without an address is at its node's.
        host=entry.service.address or entry.node.address,
        ports=ports,
        models=_decode_models(meta),
        weight=entry.service.weights.passing,
        zone=meta.get(_ZONE, ""),
        boot_id=boot_id,
        meta=own,
    )


def _decode_models(meta: dict[str, str]) -> tuple[ModelInfo, ...]:
    pieces: list[str] = []
    while (key := f"{_MODELS}{len(pieces)}") in meta:
        pieces.append(meta[key])
    if not pieces:
        raise InvalidInstance(f"no metadata {_MODELS}0: it was not registered by Fingerpost")
    return msgspec.json.decode("".join(pieces), type=tuple[ModelInfo, ...])


def _number(key: str, value: str) -> int:
    if not _NUMBER.fullmatch(value):
        raise InvalidInstance(f"metadata {key!r} is {value[:40]!r}, not a number")
    return int(value)


def decode_catalog(body: bytes) -> tuple[str, ...]:
    """The names of Fingerpost's services in the answer of `/v1/catalog/services`, sorted.

    A service counts by its tag; one whose name is outside the allow-list can be none of ours.

    Raises:
        RegistryError: the answer is no JSON object of tag lists.
    """
    try:
        tags_by_name = msgspec.json.decode(body, type=dict[str, list[str] | None])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RegistryError(
            f"the registry's list of services cannot be read: {body[:100]!r}"
        ) from error
    return tuple(sorted(name for name, tags in tags_by_name.items() if _is_ours(name, tags)))


def _is_ours(name: str, tags: list[str] | None) -> bool:
    try:
        check_service(name)
    except InvalidName:
        return False
    return TAG in (tags or ())
