"""Which instances are healthy, from Leases and EndpointSlices. Pure: no I/O, no clock.

A Lease says what a worker serves. Whether it may get requests is what Kubernetes says of its pod:

1. An instance counts only while an EndpointSlice has its pod: the very pod, by uid, so that a new
   pod with the address of an old one never revives the old entry. Its address must be one of the
   pod's there: whoever may write Leases cannot send clients elsewhere.
2. A pod that is terminating is draining: off the list for a reason that concerns it (`withdrawn`).
   So is an instance with a mark, of an operator or of its own check.
3. A pod that is not ready, or in no slice, is off the list without such a reason: nodes that the
   control plane lost look the same, and self-preservation probes their workers.
4. A pod may be in several slices: of two address families, of several Services, and for a moment of
   two slices of one Service when it moves between them. It is terminating where one says so, and
   else ready where one says so.
5. The zone of a slice is that of an instance that names none itself, unless the entry is signed: a
   signature is of the zone too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from fingerpost.registry.instance import Instance

if TYPE_CHECKING:
    from fingerpost.registry.kubernetes.codec import Endpoint, LeaseEntry, Slice

__all__ = ["Entry", "PodState", "merge_endpoints", "pods_of", "read_entry"]


class PodState(msgspec.Struct, frozen=True, kw_only=True):
    """What all slices together say about a pod; see rule 4."""

    addresses: frozenset[str]
    ready: bool
    terminating: bool
    zone: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An instance, and whether it is on the healthy list.

    Attributes:
        id: the instance's id; of a malformed one what stands there.
        instance: the instance; None where it is malformed.
        healthy: whether it is on the healthy list.
        rejection: what is wrong with it; empty if nothing is.
        withdrawn: whether it is off the list for a reason that concerns it; see the module.
        drained: whether it was drained, or its pod is terminating.
        problem: why it is off the list otherwise; empty if it is not.
    """

    id: str
    instance: Instance | None
    healthy: bool = False
    rejection: str = ""
    withdrawn: bool = False
    drained: bool = False
    problem: str = ""


def merge_endpoints(endpoints: Iterable[Endpoint]) -> PodState | None:
    """What the endpoints of one pod say together; None where there are none."""
    addresses: set[str] = set()
    ready = terminating = False
    zone = ""
    for each in endpoints:
        addresses.update(map(_canonical, each.addresses))
        ready |= each.ready
        terminating |= each.terminating
        zone = zone or each.zone
    if not addresses:
        return None
    return PodState(
        addresses=frozenset(addresses),
        ready=ready and not terminating,
        terminating=terminating,
        zone=zone,
    )


def pods_of(slices: Iterable[Slice]) -> dict[str, PodState]:
    """The pods in all slices, by uid."""
    found: dict[str, list[Endpoint]] = {}
    for each in slices:
        for endpoint in each.endpoints:
            found.setdefault(endpoint.pod.uid, []).append(endpoint)
    states = {uid: merge_endpoints(endpoints) for uid, endpoints in found.items()}
    return {uid: state for uid, state in states.items() if state is not None}


def read_entry(lease: LeaseEntry, pods: Mapping[str, PodState]) -> Entry:
    """The entry of a Lease, with what is known of its pod."""
    instance, owner = lease.instance, lease.pod
    if instance is None or owner is None:
        return Entry(id=lease.id, instance=None, rejection=lease.rejection)
    pod = pods.get(owner.uid)
    drained, problem = lease.drained is not None, ""
    if pod is None:
        problem = (
            f"its pod {owner.name} is in no EndpointSlice: no Service selects it, or it is gone"
        )
    elif _canonical(instance.host) not in pod.addresses:
        return Entry(
            id=lease.id,
            instance=None,
            rejection=f"its address {instance.host} is not one of its pod {owner.name}, which has "
            f"{', '.join(sorted(pod.addresses))}: start it with --host and the pod's IP address",
        )
    elif pod.terminating:
        drained = True
    elif lease.sick:
        problem = "its engine does not answer, says the worker's own check"
    elif not pod.ready:
        problem = f"its pod {owner.name} is not ready: its readinessProbe fails"
    if pod is not None and pod.zone and not instance.zone and not instance.signature:
        instance = msgspec.structs.replace(instance, zone=pod.zone)
    return Entry(
        id=lease.id,
        instance=instance,
        healthy=not (drained or problem or lease.sick),
        withdrawn=drained or lease.sick,
        drained=drained,
        problem=problem,
    )


def _canonical(address: str) -> str:
    """An IP address as one text only: IPv6 has many."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address.lower()
