"""An instance as a Lease, and endpoints out of EndpointSlices. Pure: no I/O, no clock.

What a Lease (`coordination.k8s.io/v1`) of an instance has:

=================================  =============================================================
``metadata.name``                  ``fingerpost-ID``; a hash where the id is not a DNS name
label ``fingerpost/service``       the instance's service
label ``fingerpost/address``       host and port of its transport ``http``, to find what is left
                                   of processes that had this address before
annotation ``fingerpost/instance`` the instance as JSON
annotation ``fingerpost/drain``    this instance is drained; the reason
annotation ``fingerpost/sick``     the instance's own check found that its engine does not answer
``metadata.ownerReferences``       the worker's pod, so that Kubernetes removes it with the pod
``spec.holderIdentity``            the instance's id
=================================  =============================================================

The marks are annotations of their own, because a merge patch of one leaves the others as they are:
the worker and an operator never overwrite each other. It is written when something changes, and
never just to renew it; docs/decisions/0025-kubernetes.md says why.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

import msgspec

from fingerpost.errors import InvalidInstance, RegistryError
from fingerpost.registry.instance import Instance, address_in_id
from fingerpost.registry.peers.answer import DECODE_ERRORS

__all__ = [
    "ADDRESS",
    "LABEL",
    "SERVICE",
    "Condition",
    "Endpoint",
    "LeaseEntry",
    "ObjectList",
    "PodReference",
    "Slice",
    "WatchEvent",
    "address_label",
    "decode_lease",
    "decode_list",
    "decode_slice",
    "drain_patch",
    "encode_lease",
    "encode_update",
    "lease_name",
    "sick_patch",
]

# The label of everything that is written here, as a selector.
LABEL: Final = ("app.kubernetes.io/managed-by", "fingerpost")
SERVICE: Final = "fingerpost/service"
ADDRESS: Final = "fingerpost/address"
_INSTANCE: Final = "fingerpost/instance"
_DRAIN: Final = "fingerpost/drain"
_SICK: Final = "fingerpost/sick"
_ZONE: Final = "topology.kubernetes.io/zone"

# All annotations of an object may have 256 KiB; 25 models of 40 versions each take 15 KB.
MAX_BYTES: Final = 240 * 1024
_MAX_BOOT_ID: Final = 2**53
_MAX_REASON: Final = 1024
# A DNS subdomain (RFC 1123), as the name of an object is.
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_LABEL_LETTERS: Final = 63


class PodReference(msgspec.Struct, frozen=True, kw_only=True):
    """A pod: its name, and the uid that no other pod ever has."""

    name: str
    uid: str


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One pod in an EndpointSlice.

    Attributes:
        pod: the pod.
        addresses: its IP addresses in this slice.
        ready: whether it can take requests; Kubernetes says that a missing value means yes.
        terminating: whether it is being deleted.
        zone: its availability zone; empty when unknown.
    """

    pod: PodReference
    addresses: tuple[str, ...]
    ready: bool = True
    terminating: bool = False
    zone: str = ""


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """An EndpointSlice: its pods. Endpoints that are not pods are left out."""

    name: str
    version: str
    endpoints: tuple[Endpoint, ...] = ()


class LeaseEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A Lease as read.

    Attributes:
        name: the Lease's name.
        version: its resource version.
        service: the service of its label; not checked.
        id: the instance's id, or what stands there in a malformed one.
        instance: the instance; None where it is malformed.
        pod: the pod that owns it; None where there is none.
        rejection: what is wrong with it; empty if nothing is.
        drained: why it is drained; None where it is not.
        sick: whether its own check failed.
        content: the instance as written.
    """

    name: str
    version: str
    service: str
    id: str
    instance: Instance | None = None
    pod: PodReference | None = None
    rejection: str = ""
    drained: str | None = None
    sick: bool = False
    content: str = ""


def lease_name(instance_id: str) -> str:
    """The name of an instance's Lease."""
    if _NAME.fullmatch(instance_id):
        return f"fingerpost-{instance_id}"
    return f"fingerpost--{hashlib.sha256(instance_id.encode()).hexdigest()[:40]}"


def address_label(host: str, port: int) -> str:
    """The value of the label for an address: readable, or a hash where it is too long."""
    text = address_in_id(host, port)
    if len(text) <= _LABEL_LETTERS:
        return text
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def encode_lease(instance: Instance, pod: PodReference, *, sick: bool = False) -> dict[str, Any]:
    """The Lease that records an instance.

    Raises:
        InvalidInstance: over 240 KiB.
    """
    patch = encode_update(instance, pod)
    marks = {_SICK: "true"} if sick else {}
    metadata = patch["metadata"]
    metadata["annotations"] |= marks
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        **patch,
        "metadata": {"name": lease_name(instance.id), **metadata},
    }


def encode_update(instance: Instance, pod: PodReference) -> dict[str, Any]:
    """A merge patch that replaces the instance in its Lease; its marks stay.

    Raises:
        InvalidInstance: over 240 KiB.
    """
    data = msgspec.json.encode(instance, order="sorted")
    if len(data) > MAX_BYTES:
        raise InvalidInstance(
            f"instance {instance.id}: {len(data)} bytes exceed {MAX_BYTES}; use fewer models, "
            "versions or metadata"
        )
    key, value = LABEL
    return {
        "metadata": {
            "labels": {
                key: value,
                SERVICE: instance.service,
                ADDRESS: address_label(instance.host, instance.ports["http"]),
            },
            "annotations": {_INSTANCE: data.decode()},
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}
            ],
        },
        "spec": {"holderIdentity": instance.id},
    }


def drain_patch(reason: str | None) -> dict[str, Any]:
    """A merge patch that drains an instance, or puts it back (None)."""
    if reason is not None:
        reason = reason.encode("utf-8", "replace").decode()[:_MAX_REASON]
    return {"metadata": {"annotations": {_DRAIN: reason}}}


def sick_patch(*, sick: bool) -> dict[str, Any]:
    """A merge patch that says whether the instance's own check failed."""
    return {"metadata": {"annotations": {_SICK: "true" if sick else None}}}


class _Owner(msgspec.Struct):
    kind: str
    name: str
    uid: str


class _Metadata(msgspec.Struct, rename="camel"):
    name: str
    resource_version: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[_Owner] | None = None


class _Object(msgspec.Struct):
    metadata: _Metadata


class Condition(msgspec.Struct):
    """The conditions of an endpoint; None is `unknown`, which means ready and not terminating."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class _Target(msgspec.Struct):
    kind: str = ""
    name: str = ""
    uid: str = ""


class _Endpoint(msgspec.Struct, rename="camel"):
    addresses: list[str]
    conditions: Condition | None = None
    target_ref: _Target | None = None
    zone: str | None = None
    topology: dict[str, str] | None = None  # of v1beta1
    deprecated_topology: dict[str, str] | None = None


class _Slice(msgspec.Struct):
    metadata: _Metadata
    endpoints: list[_Endpoint] | None = None


class _ListMetadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class ObjectList(msgspec.Struct):
    """One page of a list; each item is decoded by itself."""

    metadata: _ListMetadata
    items: list[msgspec.Raw] | None = None


class WatchEvent(msgspec.Struct):
    """One line of a watch: `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`."""

    type: str
    object: msgspec.Raw


_decode_object: Final = msgspec.json.Decoder(_Object).decode
_decode_slice: Final = msgspec.json.Decoder(_Slice).decode
_decode_instance: Final = msgspec.json.Decoder(Instance).decode
_decode_list: Final = msgspec.json.Decoder(ObjectList).decode


def decode_list(body: bytes, what: str) -> ObjectList:
    """One page of a list. Raises `RegistryError` where it is not one."""
    try:
        return _decode_list(body)
    except DECODE_ERRORS as error:
        raise RegistryError(
            f"{what}: not a valid list: {error}; it begins {body[:100]!r}"
        ) from error


def decode_lease(raw: bytes | msgspec.Raw) -> LeaseEntry:
    """Read a Lease; a malformed one has a `rejection`.

    Raises:
        RegistryError: it is not an object of Kubernetes at all.
    """
    metadata = _metadata(raw)
    annotations, labels = metadata.annotations or {}, metadata.labels or {}
    service = labels.get(SERVICE, "")
    content = annotations.get(_INSTANCE, "")
    owner = next((each for each in metadata.owner_references or () if each.kind == "Pod"), None)
    entry_id = metadata.name
    instance, rejection = None, ""
    try:
        instance = _decode_instance(content)
        entry_id = instance.id
        if instance.service != service:
            raise InvalidInstance(f"its label names the service {service!r}")
        if lease_name(instance.id) != metadata.name:
            raise InvalidInstance(f"the Lease {metadata.name!r} is not that of {instance.id!r}")
        if not 0 <= instance.boot_id < _MAX_BOOT_ID:
            raise InvalidInstance(f"boot id {instance.boot_id} is not in 0..2**53-1")
        if owner is None:
            raise InvalidInstance("no pod owns its Lease, which would outlive its worker")
    except DECODE_ERRORS as bad:
        instance, rejection = None, str(bad)[:500]
    return LeaseEntry(
        name=metadata.name,
        version=metadata.resource_version,
        service=service,
        id=entry_id,
        instance=instance,
        pod=None if owner is None else PodReference(name=owner.name, uid=owner.uid),
        rejection=rejection,
        drained=annotations.get(_DRAIN),
        sick=_SICK in annotations,
        content=content,
    )


def decode_slice(raw: bytes | msgspec.Raw) -> Slice:
    """Read an EndpointSlice of `discovery.k8s.io/v1` or `v1beta1`.

    Raises:
        RegistryError: it is not a valid EndpointSlice.
    """
    try:
        read = _decode_slice(raw)
    except DECODE_ERRORS as error:
        raise RegistryError(f"not a valid EndpointSlice: {error}; {bytes(raw)[:100]!r}") from error
    endpoints = []
    for each in read.endpoints or ():
        target, state = each.target_ref, each.conditions or Condition()
        if target is None or target.kind != "Pod" or not target.uid:
            continue
        endpoints.append(
            Endpoint(
                pod=PodReference(name=target.name, uid=target.uid),
                addresses=tuple(each.addresses),
                # With `publishNotReadyAddresses`, `ready` is always true, and `serving` is not.
                ready=state.ready is not False and state.serving is not False,
                terminating=state.terminating is True,
                zone=each.zone
                or (each.topology or {}).get(_ZONE)
                or (each.deprecated_topology or {}).get(_ZONE)
                or "",
            )
        )
    return Slice(
        name=read.metadata.name,
        version=read.metadata.resource_version,
        endpoints=tuple(endpoints),
    )


def _metadata(raw: bytes | msgspec.Raw) -> _Metadata:
    try:
        return _decode_object(raw).metadata
    except DECODE_ERRORS as error:
        raise RegistryError(
            f"not a valid object of Kubernetes: {error}; it begins {bytes(raw)[:100]!r}"
        ) from error
