"""An instance as a Consul service entry, and back. Pure: no I/O, no clock.

What goes where:

============================  ==================================================================
``ID``, ``Name``              the instance's id and service
``Address``, ``Port``         its host, and the port of transport ``http``
``Weights.Passing``           its weight
``TaggedAddresses``           ``lan`` and ``wan``, where a WAN address is advertised
``Tags``                      ``fingerpost``, the transports (and ``https`` of a worker that speaks
                              TLS), ``v`` + each version, each alias; so
                              that ``v3.flowers.service.consul`` answers a DNS query; at most
                              `MAX_TAGS`, the first models' before the last ones'
``Meta[fingerpost-models-N]`` piece N, from 0, of the models as JSON; see `models` for the form
                              where they are too many
``Meta[fingerpost-port-T]``   the port of each other transport T
``Meta[fingerpost-boot-id]``  the boot id, decimal
``Meta[fingerpost-zone]``     the zone, where there is one
``Meta[fingerpost-signature]`` the signature, where there is one; see `entry_signature`
other ``Meta``                ``Instance.meta`` as it is, for people and Consul's filters
============================  ==================================================================

An entry without any ``Meta[fingerpost-...]`` is a foreign worker's; see `foreign`.

Load reports are not part of it: each change would be a write to Consul's Raft log.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET

from fingerpost.errors import InvalidInstance, RegistryError
from fingerpost.registry.consul.schema.checks import encode_check
from fingerpost.registry.consul.schema.health import HealthCheck
from fingerpost.registry.consul.schema.models import (
    MAX_PAIRS,
    MAX_VALUE_BYTES,
    Budget,
    decode_models,
    encode_models,
)
from fingerpost.registry.foreign import foreign_instance
from fingerpost.registry.instance import Instance
from fingerpost.registry.names import check_id, check_service, is_service
from fingerpost.registry.peers.answer import DECODE_ERRORS

if TYPE_CHECKING:
    from fingerpost.registry.config import CheckConfig

__all__ = [
    "MAX_KEY_BYTES",
    "MAX_PAIRS",
    "MAX_TAGS",
    "MAX_VALUE_BYTES",
    "TAG",
    "Entry",
    "decode_catalog",
    "decode_entries",
    "decode_stale",
    "encode_instance",
]

TAG: Final = "fingerpost"
_CONSUL: Final = "consul"  # its servers, which it lists as a service

# Consul's limit on a key of Meta, in bytes; `models` has the others.
MAX_KEY_BYTES: Final = 128
# Consul has no limit itself, and repeats all tags of an instance in every answer about it.
MAX_TAGS: Final = 128

_OURS: Final = "fingerpost-"
_PORT: Final = f"{_OURS}port-"
_BOOT_ID: Final = f"{_OURS}boot-id"
_ZONE: Final = f"{_OURS}zone"
_SIGNATURE: Final = f"{_OURS}signature"
_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,16}", re.ASCII)
_MAX_BOOT_ID: Final = 2**53


def encode_instance(
    instance: Instance, check: CheckConfig, *, wan_address: str | None = None
) -> dict[str, Any]:
    """The arguments of py-consul's `agent.service.register` that record `instance`.

    Args:
        instance: what to record.
        check: how the agent checks it.
        wan_address: its address for readers in other datacenters, if not its own host.

    Raises:
        InvalidInstance: its own metadata does not fit into Consul's (64 pairs; keys of at most 128
            letters, digits, `_` and `-`; values of at most 512 bytes), or uses a reserved key.
            Many models do not cause it: see `models`.
    """
    meta = _own_meta(instance)
    for key, value in instance.meta.items():
        if key.startswith((_OURS, "consul-")):
            raise InvalidInstance(
                f"instance {instance.id}: metadata key {key!r} has a reserved prefix; rename it"
            )
        meta[key] = value
    if len(meta) >= MAX_PAIRS:
        raise InvalidInstance(
            f"instance {instance.id}: {len(meta)} metadata pairs, of which {len(instance.meta)} "
            f"are its own, leave no room for its models in Consul's {MAX_PAIRS}; use fewer pairs"
        )
    for key, value in meta.items():
        _check_pair(instance.id, key, value)
    try:
        models = encode_models(instance.service, instance.models, MAX_PAIRS - len(meta))
        if instance.signature and decode_models(models, Budget()) != instance.models:
            raise InvalidInstance(
                "Consul has no room for all of its models and versions, and a signature is of all: "
                "serve fewer by this worker"
            )
    except InvalidInstance as error:
        raise InvalidInstance(f"instance {instance.id}: {error}") from error
    meta |= models
    port = instance.ports["http"]
    arguments: dict[str, Any] = {
        "name": instance.service,
        "service_id": instance.id,
        "address": instance.host,
        "port": port,
        "tags": _tags(instance),
        "meta": meta,
        "weights": {"Passing": instance.weight, "Warning": 1},
        "check": encode_check(instance, check),
    }
    if wan_address is not None:
        arguments["tagged_addresses"] = {
            "lan": {"Address": instance.host, "Port": port},
            "wan": {"Address": wan_address, "Port": port},
        }
    return arguments


def _own_meta(instance: Instance) -> dict[str, str]:
    meta = {_BOOT_ID: str(instance.boot_id)}
    if instance.zone:
        meta[_ZONE] = instance.zone
    if instance.signature:
        meta[_SIGNATURE] = instance.signature
    for transport, port in instance.ports.items():
        if transport != "http":
            meta[f"{_PORT}{transport}"] = str(port)
    return meta


def _tags(instance: Instance) -> list[str]:
    tags = [TAG, *sorted(instance.ports)]
    if instance.speaks_tls:
        tags.append("https")
    for model in instance.models:
        tags += [f"v{version}" for version in model.versions]
        tags += sorted(model.aliases)
    return list(dict.fromkeys(tags))[:MAX_TAGS]


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


class _Address(msgspec.Struct, rename="pascal"):
    address: str
    port: int


class _Service(msgspec.Struct, rename="pascal"):
    id: str = msgspec.field(name="ID")
    service: str
    port: int
    weights: _Weights
    address: str = ""
    meta: dict[str, str] | None = None
    tagged_addresses: dict[str, _Address] | None = None


class _Node(msgspec.Struct, rename="pascal"):
    node: str = ""
    address: str = ""


class _Entry(msgspec.Struct, rename="pascal"):
    node: _Node
    service: _Service
    checks: list[HealthCheck]


class _Id(msgspec.Struct):
    id: str = msgspec.field(name="ID")


class _OnlyId(msgspec.Struct):
    service: _Id = msgspec.field(name="Service")


_entry_decoder: Final = msgspec.json.Decoder(_Entry)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One service entry as read: an instance, or why it was rejected.

    Attributes:
        id: the entry's id as registered, at most 128 characters of it; not checked.
        instance: the instance, or None where the entry is malformed.
        healthy: whether every check of it and of its node passes; maintenance counts as a failed
            check.
        rejection: what is wrong with the entry; empty if nothing is.
        withdrawn: whether it is in maintenance (its own or its node's), or its worker itself
            reported to a check that it is not well; see `HealthCheck.withdraws`.
        in_maintenance: whether it is in maintenance mode itself (not its whole node).
        problem: the output of a check that fails, other than maintenance; empty if none does.
        node: the name of the machine whose agent has it.
        own_id: its id at that agent; a foreign instance has another one.
        node_address: that machine's address as the registry has it; not checked.
    """

    id: str
    instance: Instance | None
    healthy: bool
    rejection: str = ""
    withdrawn: bool = False
    in_maintenance: bool = False
    problem: str = ""
    node: str = ""
    node_address: str = ""
    own_id: str = ""


def decode_entries(body: bytes, service: str, *, remote: bool = False) -> list[Entry]:
    """Read the answer of `/v1/health/service/NAME`, each entry by itself.

    A malformed entry has a `rejection`, and does not affect the others. Where the answer is about
    another datacenter than the reader's own (`remote`), an instance's host is its WAN address, if
    it advertises one.

    Raises:
        RegistryError: the answer as a whole is not a JSON list.
    """
    try:
        raw_entries = msgspec.json.decode(body, type=list[msgspec.Raw])
    except DECODE_ERRORS as error:
        raise RegistryError(
            f"the registry's answer about {service!r} is not a JSON list: {body[:100]!r}"
        ) from error
    budget = Budget()
    return [_decode_entry(raw, service, budget, remote=remote) for raw in raw_entries]


def _decode_entry(raw: msgspec.Raw, service: str, budget: Budget, *, remote: bool) -> Entry:
    try:
        entry = _entry_decoder.decode(raw)
        if entry.service.service != service:
            raise InvalidInstance(f"it belongs to service {entry.service.service!r}")
        instance = _decode_instance(entry, budget, remote=remote)
    except DECODE_ERRORS as bad:
        return Entry(id=_id_of(raw), instance=None, healthy=False, rejection=str(bad)[:500])
    return Entry(
        id=instance.id,
        instance=instance,
        healthy=all(check.passing for check in entry.checks),
        withdrawn=any(check.withdraws for check in entry.checks),
        in_maintenance=any(check.is_service_maintenance for check in entry.checks),
        problem=_problem(entry.checks),
        node=entry.node.node,
        node_address=entry.node.address,
        own_id=entry.service.id,
    )


def _problem(checks: list[HealthCheck]) -> str:
    failing = (each for each in checks if not (each.passing or each.is_service_maintenance))
    return next((each.output[:300] or "no output yet" for each in failing), "")


def _id_of(raw: msgspec.Raw) -> str:
    """The id of an entry that cannot be read otherwise, at most 128 characters of it."""
    with contextlib.suppress(*DECODE_ERRORS):
        return msgspec.json.decode(raw, type=_OnlyId).service.id[:MAX_KEY_BYTES]
    return "?"


def _decode_instance(entry: _Entry, budget: Budget, *, remote: bool) -> Instance:
    meta = entry.service.meta or {}
    ports: dict[str, int] = {}
    own: dict[str, str] = {}
    for key, value in meta.items():
        if key.startswith(_PORT):
            ports[key.removeprefix(_PORT)] = _number(key, value)
        elif not key.startswith(_OURS):
            own[key] = value
    # Consul's own rule: a service without an address is at its node's.
    host, ports["http"] = entry.service.address or entry.node.address, entry.service.port
    if remote and (wan := (entry.service.tagged_addresses or {}).get("wan")) is not None:
        host, ports["http"] = wan.address, wan.port
    if len(own) == len(meta):  # none of ours
        return foreign_instance(
            entry.service.service,
            host=host,
            port=ports["http"],
            entry_id=entry.service.id,
            meta=own,
            weight=max(1, entry.service.weights.passing),
        )
    boot_id = _number(_BOOT_ID, meta.get(_BOOT_ID, "0"))
    if boot_id >= _MAX_BOOT_ID:
        raise InvalidInstance(f"boot id {boot_id} is not below 2**53")
    return Instance(
        id=entry.service.id,
        service=entry.service.service,
        host=host,
        ports=ports,
        models=decode_models(meta, budget),
        weight=entry.service.weights.passing,
        zone=meta.get(_ZONE, ""),
        boot_id=boot_id,
        meta=own,
        signature=meta.get(_SIGNATURE, UNSET),
    )


def _number(key: str, value: str) -> int:
    if not _NUMBER.fullmatch(value):
        raise InvalidInstance(f"metadata {key!r} is {value[:40]!r}, not a number")
    return int(value)


class _AgentService(msgspec.Struct, rename="pascal"):
    id: str = msgspec.field(name="ID")
    service: str
    port: int = 0
    address: str = ""
    tags: list[str] | None = None
    meta: dict[str, str] | None = None


def decode_stale(body: bytes, instance: Instance) -> list[tuple[str, str]]:
    """Id and service of the entries of other processes at the instance's host and port.

    `body` is the answer of `/v1/agent/services`. Entries that are not Fingerpost's, have no boot
    id, or cannot be read are left alone.

    Raises:
        RegistryError: the answer as a whole is not a JSON object.
    """
    try:
        raw = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except DECODE_ERRORS as error:
        raise RegistryError(f"the agent's services cannot be read: {body[:100]!r}") from error
    stale = []
    for each in raw.values():
        try:
            entry = msgspec.json.decode(each, type=_AgentService)
            check_id(entry.id)
            check_service(entry.service)
        except DECODE_ERRORS:
            continue
        boot_id = (entry.meta or {}).get(_BOOT_ID, "0")
        same = (entry.address, entry.port) == (instance.host, instance.ports["http"])
        if same and TAG in (entry.tags or ()) and boot_id not in ("0", str(instance.boot_id)):
            stale.append((entry.id, entry.service))
    return stale


def decode_catalog(body: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Fingerpost's services in the answer of `/v1/catalog/services`, and the others, sorted.

    A service is Fingerpost's if it has the tag. Names that are not valid, and Consul's own service,
    are left out.

    Raises:
        RegistryError: the answer is not a JSON object of tag lists.
    """
    try:
        tags_by_name = msgspec.json.decode(body, type=dict[str, list[str] | None])
    except DECODE_ERRORS as error:
        raise RegistryError(f"the list of services cannot be read: {body[:100]!r}") from error
    valid = {name: tags or () for name, tags in tags_by_name.items() if is_service(name)}
    ours = {name for name, tags in valid.items() if TAG in tags}
    return tuple(sorted(ours)), tuple(sorted(valid.keys() - ours - {_CONSUL}))
